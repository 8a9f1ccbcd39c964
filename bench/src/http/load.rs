//! The callers.

use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// The connections that bulk bodies are sent over: so many that their callers, each of whom waits a round trip for every
/// answer, are not what limits the longest link.
pub(super) const BULK_CONNECTIONS: usize = 16;

/// A connection that is kept.
type Connection = SendRequest<Full<Bytes>>;

/// Posts jobs one by one over each of `connections` connections for `time`: how many were taken, and the time it took
/// until all of them were answered.
///
/// # Errors
/// When one is not answered 202.
pub(super) async fn singles(address: SocketAddr, connections: usize, time: Duration) -> anyhow::Result<(u64, Duration)> {
    let open = futures::future::try_join_all((0..connections).map(|_| connect(address))).await?;
    let next = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    let mut posting = JoinSet::new();
    for mut connection in open {
        let next = next.clone();
        posting.spawn(async move {
            while began.elapsed() < time {
                let mut body = String::with_capacity(64);
                write_job(&mut body, next.fetch_add(1, Ordering::Relaxed))?;
                post(&mut connection, "/v1/jobs", "application/json", body.into()).await?;
            }
            anyhow::Ok(())
        });
    }
    all(posting).await?;
    Ok((next.load(Ordering::Relaxed), began.elapsed()))
}

/// Posts `bodies` over a few connections, each once: how many jobs were taken, and the time it took until all of them
/// were answered.
///
/// # Errors
/// When one is not answered 202, or not with all of its jobs.
pub(super) async fn bulks(address: SocketAddr, bodies: Arc<Bodies>) -> anyhow::Result<(u64, Duration)> {
    let open = futures::future::try_join_all((0..BULK_CONNECTIONS).map(|_| connect(address))).await?;
    let next = Arc::new(AtomicUsize::new(0));
    let began = Instant::now();
    let mut posting = JoinSet::new();
    for mut connection in open {
        let (next, bodies) = (next.clone(), bodies.clone());
        posting.spawn(async move {
            while let Some(body) = bodies.bodies.get(next.fetch_add(1, Ordering::Relaxed)) {
                let answer = post(&mut connection, "/v1/jobs/batch", "application/x-ndjson", body.clone()).await?;
                let Answer { accepted } = serde_json::from_slice(&answer)?;
                anyhow::ensure!(accepted == bodies.lines, "{} jobs were sent, {accepted} were taken", bodies.lines);
            }
            anyhow::Ok(())
        });
    }
    all(posting).await?;
    Ok((bodies.jobs(), began.elapsed()))
}

#[derive(Deserialize)]
struct Answer {
    accepted: u64,
}

async fn all(mut posting: JoinSet<anyhow::Result<()>>) -> anyhow::Result<()> {
    while let Some(ended) = posting.join_next().await {
        ended??;
    }
    Ok(())
}

async fn connect(address: SocketAddr) -> anyhow::Result<Connection> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // What befalls it is told to whoever waits for an answer.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}

/// Posts `body` and reads the answer, which must be 202.
async fn post(connection: &mut Connection, path: &str, kind: &str, body: Bytes) -> anyhow::Result<Bytes> {
    connection.ready().await?;
    let request = Request::post(path).header(header::HOST, "localhost").header(header::CONTENT_TYPE, kind);
    let response = connection.send_request(request.body(Full::new(body))?).await.context("no answer")?;
    let status = response.status();
    let answer = response.into_body().collect().await?.to_bytes();
    anyhow::ensure!(status == StatusCode::ACCEPTED, "answered {status}: {}", String::from_utf8_lossy(&answer));
    Ok(answer)
}

fn write_job(text: &mut String, n: u64) -> std::fmt::Result {
    // As `work::pair` has it.
    write!(text, r#"{{"kind":"math_add","args":{{"a":{n},"b":{}}}}}"#, n % 1_000)
}

/// NDJSON bodies, made before anything is measured. No two jobs in them have the same number.
pub(super) struct Bodies {
    lines: u64,
    bodies: Vec<Bytes>,
}

impl Bodies {
    /// `bodies` bodies of `lines` jobs each.
    pub(super) fn new(lines: u64, bodies: u64) -> anyhow::Result<Self> {
        let body = |body: u64| {
            let mut text = String::new();
            for n in body * lines..(body + 1) * lines {
                write_job(&mut text, n)?;
                text.push('\n');
            }
            Ok(Bytes::from(text))
        };
        Ok(Self { lines, bodies: (0..bodies).map(body).collect::<Result<_, std::fmt::Error>>()? })
    }

    /// The first of them; they share memory.
    pub(super) fn first(&self, bodies: usize) -> Self {
        Self { lines: self.lines, bodies: self.bodies.iter().take(bodies).cloned().collect() }
    }

    pub(super) fn all(&self) -> &[Bytes] {
        &self.bodies
    }

    /// The number of jobs in all of them.
    pub(super) fn jobs(&self) -> u64 {
        self.lines * self.bodies.len() as u64
    }
}
