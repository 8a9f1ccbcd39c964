//! A tap on the wire between a process and a NATS server: counts what passes. It reads the protocol itself, so that
//! what it tells does not depend on what is tested.

use std::collections::HashMap;
use std::io::Result;
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;

/// What was sent to the server, in messages; and what of it was under way at once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Traffic {
    /// Batches of jobs.
    pub(crate) jobs: u64,
    /// Records of outcomes.
    pub(crate) records: u64,
    /// Acknowledgements, renewals and releases.
    pub(crate) acks: u64,
    /// Pulls.
    pub(crate) pulls: u64,
    /// Everything else: questions about streams, records and the like.
    pub(crate) others: u64,
    /// All bytes.
    pub(crate) bytes: u64,
    /// Connections that were made.
    pub(crate) connections: u64,
    /// The client's own pings.
    pub(crate) pings: u64,
    /// Bytes of batches of jobs, for each connection.
    pub(crate) job_bytes: Vec<u64>,
    /// The largest batch of jobs, in bytes.
    pub(crate) largest: u64,
    /// Batches of jobs that the server has not answered yet.
    pub(crate) unanswered: UnderWay,
    /// Batches of jobs that were delivered and not settled.
    pub(crate) unsettled: UnderWay,
    /// How often any batch of jobs had been delivered, to whomever, when it came here: the most.
    pub(crate) most_delivered: u64,
    /// The latest pull from a lane.
    pub(crate) pull: Option<Value>,
}

impl Traffic {
    /// All messages.
    pub(crate) fn messages(&self) -> u64 {
        self.jobs + self.records + self.acks + self.pulls + self.others
    }
}

/// Messages that are under way, by the subject of what ends it.
#[derive(Clone, Debug, Default)]
pub(crate) struct UnderWay {
    now: HashMap<String, u64>,
    bytes: u64,
    /// The most that ever were, in bytes.
    pub(crate) most_bytes: u64,
    /// The most that ever were.
    pub(crate) most: usize,
}

impl UnderWay {
    fn begins(&mut self, until: &str, bytes: u64) {
        // What is sent again counts once.
        self.bytes += bytes - self.now.insert(until.to_owned(), bytes).unwrap_or(0).min(bytes);
        self.most_bytes = self.most_bytes.max(self.bytes);
        self.most = self.most.max(self.now.len());
    }

    fn ends(&mut self, subject: &str) {
        self.bytes -= self.now.remove(subject).unwrap_or(0);
    }
}

/// A listener that passes everything on to `to`.
pub(crate) struct Tap {
    address: SocketAddr,
    traffic: Arc<Mutex<Traffic>>,
    _accepting: AbortOnDropHandle<()>,
}

impl Tap {
    pub(crate) async fn on(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let traffic = Arc::new(Mutex::new(Traffic::default()));
        let counted = traffic.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let counted = counted.clone();
                // Whoever breaks a connection is what the test is about, not a failure of the tap.
                tokio::spawn(async move { drop(pass(stream, to, counted).await) });
            }
        });
        Self { address, traffic, _accepting: AbortOnDropHandle::new(accepting) }
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    pub(crate) fn traffic(&self) -> Traffic {
        self.traffic.lock().clone()
    }
}

async fn pass(from: TcpStream, to: SocketAddr, traffic: Arc<Mutex<Traffic>>) -> Result<()> {
    let to = TcpStream::connect(to).await?;
    from.set_nodelay(true)?;
    to.set_nodelay(true)?;
    let (from_client, mut to_client) = from.into_split();
    let (from_server, mut to_server) = to.into_split();
    let connection = {
        let mut traffic = traffic.lock();
        traffic.connections += 1;
        traffic.job_bytes.push(0);
        traffic.job_bytes.len() - 1
    };
    let counted = traffic.clone();
    let _back = AbortOnDropHandle::new(tokio::spawn(async move {
        let mut server = Frames::of(from_server);
        while let Ok(Some(frame)) = server.next().await {
            delivered(&mut counted.lock(), frame);
            if to_client.write_all(&frame.bytes).await.is_err() {
                break;
            }
        }
    }));
    let mut client = Frames::of(from_client);
    while let Some(frame) = client.next().await? {
        sent(&mut traffic.lock(), connection, frame);
        to_server.write_all(&frame.bytes).await?;
    }
    Ok(())
}

/// One operation of the protocol.
#[derive(Default)]
struct Frame {
    bytes: Vec<u8>,
    /// Its line, in words.
    words: Vec<String>,
    /// Where the payload begins.
    payload: usize,
}

impl Frame {
    fn word(&self, n: usize) -> &str {
        self.words.get(n).map_or("", String::as_str)
    }

    /// The size that the line says at its end: that of headers and payload together.
    fn size(&self) -> usize {
        self.words.last().and_then(|size| size.parse().ok()).unwrap_or(0)
    }

    /// The size of the headers, if it has any.
    fn headers(&self) -> usize {
        let headers = self.word(0).starts_with('H').then(|| self.words.iter().rev().nth(1)?.parse().ok()).flatten();
        headers.unwrap_or(0)
    }

    /// The subject of the answer, which stands before the sizes if it is there at all.
    fn reply(&self, fixed: usize) -> Option<&str> {
        let sizes = if self.word(0).starts_with('H') { 2 } else { 1 };
        (self.words.len() > fixed + sizes).then(|| self.word(fixed))
    }

    fn payload(&self) -> &[u8] {
        &self.bytes[(self.payload + self.headers()).min(self.bytes.len())..(self.payload + self.size()).min(self.bytes.len())]
    }

    fn payload_size(&self) -> u64 {
        (self.size() - self.headers()) as u64
    }
}

/// The operations that come from one side.
struct Frames<R> {
    from: BufReader<R>,
    frame: Frame,
}

impl<R: AsyncRead + Unpin> Frames<R> {
    fn of(from: R) -> Self {
        Self { from: BufReader::with_capacity(1 << 16, from), frame: Frame::default() }
    }

    async fn next(&mut self) -> Result<Option<&Frame>> {
        let frame = &mut self.frame;
        frame.bytes.clear();
        if self.from.read_until(b'\n', &mut frame.bytes).await? == 0 {
            return Ok(None);
        }
        frame.words = String::from_utf8_lossy(&frame.bytes).split_ascii_whitespace().map(str::to_owned).collect();
        frame.payload = frame.bytes.len();
        if let Some(verb) = frame.words.first_mut() {
            verb.make_ascii_uppercase();
            if matches!(verb.as_str(), "PUB" | "HPUB" | "MSG" | "HMSG") {
                // The line's end behind the payload belongs to it.
                frame.bytes.resize(frame.payload + frame.size() + 2, 0);
                self.from.read_exact(&mut frame.bytes[frame.payload..]).await?;
            }
        }
        Ok(Some(frame))
    }
}

/// Counts what the client sends.
fn sent(traffic: &mut Traffic, connection: usize, frame: &Frame) {
    traffic.bytes += frame.bytes.len() as u64;
    match frame.word(0) {
        "PING" => traffic.pings += 1,
        "PUB" | "HPUB" => published(traffic, connection, frame),
        _ => {}
    }
}

fn published(traffic: &mut Traffic, connection: usize, frame: &Frame) {
    let counter = match frame.word(1) {
        s if s.starts_with("wf.jobs.") => {
            let size = frame.payload_size();
            traffic.job_bytes[connection] += size;
            traffic.largest = traffic.largest.max(size);
            if let Some(reply) = frame.reply(2) {
                traffic.unanswered.begins(reply, size);
            }
            &mut traffic.jobs
        }
        s if s.starts_with("wf.runs.") || s.starts_with("wf.results.") => &mut traffic.records,
        s if s.starts_with("$JS.ACK.") => {
            // Renewals begin with +WPI, and end nothing.
            if !frame.payload().starts_with(b"+WPI") {
                traffic.unsettled.ends(s);
            }
            &mut traffic.acks
        }
        s if s.starts_with("$JS.API.CONSUMER.MSG.NEXT.") => {
            if s.contains("WF_JOBS") {
                traffic.pull = serde_json::from_slice(frame.payload()).ok();
            }
            &mut traffic.pulls
        }
        _ => &mut traffic.others,
    };
    *counter += 1;
}

/// Counts what the server sends.
fn delivered(traffic: &mut Traffic, frame: &Frame) {
    if matches!(frame.word(0), "MSG" | "HMSG") {
        traffic.unanswered.ends(frame.word(1));
        if let Some(reply) = frame.reply(3).filter(|reply| reply.starts_with("$JS.ACK.")) {
            traffic.unsettled.begins(reply, frame.payload_size());
            // $JS.ACK.<stream>.<consumer>.<delivered>. and four more.
            let delivered = reply.rsplit('.').nth(4).and_then(|delivered| delivered.parse().ok());
            traffic.most_delivered = traffic.most_delivered.max(delivered.unwrap_or(0));
        }
    }
}
