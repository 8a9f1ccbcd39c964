//! A link of one's own making: far away, and cut when a test says so.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// The most that is read at once.
const CHUNK: usize = 64 << 10;

/// Chunks on their way: 64 MiB, more than two connections of 165 MB/s have under way at 100 ms.
const ON_THE_WAY: usize = 1_024;

/// Passes TCP connections on to a server, each direction delayed. Ends when dropped.
pub struct DelayProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

struct Shared {
    target: SocketAddr,
    /// How long each direction takes, in microseconds.
    delay: AtomicU64,
    /// Counts the cuts; connections of an earlier count are dead.
    cuts: watch::Sender<u64>,
    /// Whether new connections are refused.
    refusing: watch::Sender<bool>,
    connections: AtomicU64,
    up: AtomicU64,
    down: AtomicU64,
}

impl DelayProxy {
    /// A link to `target` that takes `delay` in each direction: a round trip takes twice that.
    pub async fn start(target: SocketAddr, delay: Duration) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            target,
            delay: AtomicU64::new(micros(delay)),
            cuts: watch::Sender::new(0),
            refusing: watch::Sender::new(false),
            connections: AtomicU64::new(0),
            up: AtomicU64::new(0),
            down: AtomicU64::new(0),
        });
        let accepting = tokio::spawn(accept(listener, shared.clone()));
        Self { address, shared, accepting }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of the server behind it.
    pub fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// Lets each direction take `delay` from now on. What is on its way already arrives when it would have.
    pub fn set_delay(&self, delay: Duration) {
        self.shared.delay.store(micros(delay), Ordering::Relaxed);
    }

    /// Cuts all connections, and loses what is on its way. New ones are let through.
    pub fn cut(&self) {
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Refuses new connections, or lets them through again.
    pub fn refuse(&self, refuse: bool) {
        self.shared.refusing.send_replace(refuse);
    }

    /// How many connections it has passed on so far.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// How many bytes it has taken towards the server so far.
    pub fn bytes_up(&self) -> u64 {
        self.shared.up.load(Ordering::Relaxed)
    }

    /// How many bytes it has taken from the server so far.
    pub fn bytes_down(&self) -> u64 {
        self.shared.down.load(Ordering::Relaxed)
    }
}

impl Drop for DelayProxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

fn micros(delay: Duration) -> u64 {
    u64::try_from(delay.as_micros()).unwrap()
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((near, _)) = listener.accept().await {
        if !*shared.refusing.borrow() {
            tokio::spawn(pass(near, shared.clone()));
        }
    }
}

async fn pass(near: TcpStream, shared: Arc<Shared>) {
    let mut cuts = shared.cuts.subscribe();
    let Ok(far) = TcpStream::connect(shared.target).await else { return };
    near.set_nodelay(true).ok();
    far.set_nodelay(true).ok();
    shared.connections.fetch_add(1, Ordering::Relaxed);
    let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
    // One side that ends, ends both: dropping the halves closes the connection.
    tokio::select! {
        () = carry(near_read, far_write, &shared.delay, &shared.up) => {}
        () = carry(far_read, near_write, &shared.delay, &shared.down) => {}
        _ = cuts.changed() => {}
    }
}

/// Carries one direction, each chunk as much later as the link is long.
async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay: &AtomicU64, count: &AtomicU64) {
    let (depart, mut arrive) = mpsc::channel::<(Instant, Vec<u8>)>(ON_THE_WAY);
    let reading = async move {
        let mut buffer = vec![0; CHUNK];
        while let Ok(read @ 1..) = from.read(&mut buffer).await {
            count.fetch_add(read as u64, Ordering::Relaxed);
            let delay = Duration::from_micros(delay.load(Ordering::Relaxed));
            if depart.send((Instant::now() + delay, buffer[..read].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let writing = async move {
        while let Some((due, chunk)) = arrive.recv().await {
            tokio::time::sleep_until(due).await;
            if to.write_all(&chunk).await.is_err() {
                return;
            }
        }
    };
    // What was read before the end is still carried.
    tokio::join!(reading, writing);
}
