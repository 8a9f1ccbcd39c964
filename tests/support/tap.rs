//! A tap on the wire between a process and a NATS server: counts what the process sends. It reads the protocol itself,
//! so that what it tells does not depend on what is tested.

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;

/// What was sent to the server, in messages.
#[derive(Clone, Copy, Debug, Default)]
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
}

impl Traffic {
    /// All messages.
    pub(crate) fn messages(&self) -> u64 {
        self.jobs + self.records + self.acks + self.pulls + self.others
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
        *self.traffic.lock()
    }
}

async fn pass(from: TcpStream, to: SocketAddr, traffic: Arc<Mutex<Traffic>>) -> std::io::Result<()> {
    let to = TcpStream::connect(to).await?;
    from.set_nodelay(true)?;
    to.set_nodelay(true)?;
    let (from_client, mut to_client) = from.into_split();
    let (mut from_server, mut to_server) = to.into_split();
    let back = AbortOnDropHandle::new(tokio::spawn(async move { drop(copy(&mut from_server, &mut to_client).await) }));
    let mut client = BufReader::with_capacity(1 << 16, from_client);
    let (mut line, mut payload) = (Vec::new(), Vec::new());
    loop {
        line.clear();
        if client.read_until(b'\n', &mut line).await? == 0 {
            break;
        }
        let text = String::from_utf8_lossy(&line);
        let mut words = text.split_ascii_whitespace();
        let verb = words.next().unwrap_or_default().to_ascii_uppercase();
        payload.clear();
        if verb == "PUB" || verb == "HPUB" {
            let subject = words.next().unwrap_or_default();
            count(&mut traffic.lock(), subject);
            let size: usize = words.next_back().and_then(|size| size.parse().ok()).unwrap_or(0);
            // The line's end behind the payload belongs to it.
            payload.resize(size + 2, 0);
            client.read_exact(&mut payload).await?;
        }
        traffic.lock().bytes += (line.len() + payload.len()) as u64;
        to_server.write_all(&line).await?;
        to_server.write_all(&payload).await?;
    }
    drop(back);
    Ok(())
}

fn count(traffic: &mut Traffic, subject: &str) {
    let counter = match subject {
        s if s.starts_with("wf.jobs.") => &mut traffic.jobs,
        s if s.starts_with("wf.results.") => &mut traffic.records,
        s if s.starts_with("$JS.ACK.") => &mut traffic.acks,
        s if s.starts_with("$JS.API.CONSUMER.MSG.NEXT.") => &mut traffic.pulls,
        _ => &mut traffic.others,
    };
    *counter += 1;
}
