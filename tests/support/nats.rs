//! NATS servers, real and pretended.

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;
use wf_nats::testing::TestServer;
use wf_nats::{NatsBroker, NatsOptions};

/// A connection of the test's own to a factory that is set up.
pub(crate) async fn connect(server: &TestServer) -> Arc<NatsBroker> {
    NatsBroker::connect(NatsOptions::new([server.url()]).unwrap()).await.unwrap()
}

/// Something that says of itself what `info` says, as a NATS server does, and nothing else.
pub(crate) async fn pretender(info: &'static str) -> (SocketAddr, AbortOnDropHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let pretending = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut said = [0; 4096];
                stream.write_all(format!("INFO {info}\r\n").as_bytes()).await.ok();
                while let Ok(1..) = stream.read(&mut said).await {
                    if String::from_utf8_lossy(&said).contains("PING") {
                        stream.write_all(b"PONG\r\n").await.ok();
                    }
                }
            });
        }
    });
    (address, AbortOnDropHandle::new(pretending))
}

/// Asks a server `subject` as somebody with a client of another make would, and reads the answer as JSON.
pub(crate) async fn ask(server: &TestServer, subject: &str, request: &Value) -> Value {
    let mut link = BufReader::new(TcpStream::connect(server.address()).await.unwrap());
    let payload = request.to_string();
    let sent =
        format!("CONNECT {{\"verbose\":false}}\r\nSUB answer 1\r\nPUB {subject} answer {}\r\n{payload}\r\n", payload.len());
    link.write_all(sent.as_bytes()).await.unwrap();
    let mut line = String::new();
    while !line.starts_with("MSG answer ") {
        assert!(!line.starts_with("-ERR"), "{line}");
        line.clear();
        assert_ne!(link.read_line(&mut line).await.unwrap(), 0, "the server closed the connection");
    }
    let size = line.split_whitespace().next_back().unwrap().parse().unwrap();
    let mut answer = vec![0; size];
    link.read_exact(&mut answer).await.unwrap();
    let answer: Value = serde_json::from_slice(&answer).unwrap();
    assert!(answer["error"].is_null(), "{subject}: {answer}");
    answer
}
