//! NATS servers, real and pretended.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
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
