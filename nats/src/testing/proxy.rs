//! A link of one's own making: far away, slow, lossy, and cut when a test says so.
//!
//! Plain threads and blocking sockets: it takes nothing from the runtime that is tested over it, and sleeps to within
//! a tenth of a millisecond, which an async timer does not.

mod conditions;
mod lane;

use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

pub use conditions::{Conditions, Stalls};
use lane::Lane;

/// A direction of the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Towards the server.
    Up,
    /// From the server.
    Down,
}

/// Passes TCP connections on to a server, over a link of given [`Conditions`]. Ends when dropped.
pub struct DelayProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    target: Mutex<SocketAddr>,
    began: Instant,
    conditions: Mutex<Arc<Conditions>>,
    /// Counts the changes, so that who carries need not lock to see that there was none.
    changes: AtomicU64,
    up: Lane,
    down: Lane,
    /// Both sockets of every connection that lives.
    open: Mutex<Vec<[TcpStream; 2]>>,
    refusing: AtomicBool,
    ended: AtomicBool,
    connections: AtomicU64,
}

impl DelayProxy {
    /// A link to `target` that takes `delay` in each direction: a round trip takes twice that.
    pub fn start(target: SocketAddr, delay: Duration) -> Self {
        Self::with(target, Conditions { delay, ..Conditions::default() })
    }

    /// A link to `target` of these `conditions`, on a free port of the loopback interface.
    pub fn with(target: SocketAddr, conditions: Conditions) -> Self {
        Self::listening((Ipv4Addr::LOCALHOST, 0).into(), target, conditions).unwrap()
    }

    /// The same at `address`.
    ///
    /// # Errors
    /// When nothing can listen there.
    pub fn listening(address: SocketAddr, target: SocketAddr, conditions: Conditions) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            target: Mutex::new(target),
            began: Instant::now(),
            conditions: Mutex::new(Arc::new(conditions)),
            changes: AtomicU64::new(0),
            up: Lane::default(),
            down: Lane::default(),
            open: Mutex::default(),
            refusing: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            connections: AtomicU64::new(0),
        });
        let accepting = shared.clone();
        std::thread::Builder::new().name("link".into()).spawn(move || accept(&listener, &accepting))?;
        Ok(Self { address, shared })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of the server behind it.
    pub fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// Leads new connections to `target`.
    pub fn lead_to(&self, target: SocketAddr) {
        *held(&self.shared.target) = target;
    }

    /// Changes the conditions, for connections that live too. What is on its way still arrives as it would have.
    pub fn set(&self, conditions: Conditions) {
        *held(&self.shared.conditions) = Arc::new(conditions);
        self.shared.changes.fetch_add(1, Ordering::Release);
    }

    /// Changes how long each direction takes.
    pub fn set_delay(&self, delay: Duration) {
        let now = held(&self.shared.conditions).clone();
        self.set(Conditions { delay, ..(*now).clone() });
    }

    /// Lets nothing arrive that goes this `way`, silently, until [`DelayProxy::resume`].
    pub fn hold(&self, way: Way) {
        self.lane(way).hold(true);
    }

    /// Lets everything that was held back arrive.
    pub fn resume(&self, way: Way) {
        self.lane(way).hold(false);
    }

    /// Cuts all connections, and loses what is on its way. New ones are let through.
    pub fn cut(&self) {
        for sockets in held(&self.shared.open).drain(..) {
            shut(&sockets);
        }
    }

    /// Refuses new connections, or lets them through again.
    pub fn refuse(&self, refuse: bool) {
        self.shared.refusing.store(refuse, Ordering::Release);
    }

    /// How many connections it has passed on so far.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// How many bytes it has taken towards the server so far.
    pub fn bytes_up(&self) -> u64 {
        self.shared.up.bytes()
    }

    /// How many bytes it has taken from the server so far.
    pub fn bytes_down(&self) -> u64 {
        self.shared.down.bytes()
    }

    fn lane(&self, way: Way) -> &Lane {
        match way {
            Way::Up => &self.shared.up,
            Way::Down => &self.shared.down,
        }
    }
}

impl Drop for DelayProxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Release);
        self.cut();
        self.resume(Way::Up);
        self.resume(Way::Down);
        // Wakes the thread that accepts, so that it sees the end.
        TcpStream::connect(self.address).ok();
    }
}

/// A lock is never held over a panic here.
fn held<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn shut(sockets: &[TcpStream; 2]) {
    for socket in sockets {
        // It may be closed already.
        socket.shutdown(Shutdown::Both).ok();
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for near in listener.incoming().map_while(Result::ok) {
        if shared.ended.load(Ordering::Acquire) {
            return;
        }
        if !shared.refusing.load(Ordering::Acquire) {
            let shared = shared.clone();
            std::thread::spawn(move || pass(near, &shared));
        }
    }
}

/// Starts the threads of a connection. One that cannot be made on the far side ends on the near side too.
fn pass(near: TcpStream, shared: &Arc<Shared>) {
    // The near side was told at once that it is connected; over a real link it hears that a round trip later.
    let delay = held(&shared.conditions).delay;
    std::thread::sleep(2 * delay);
    let target = *held(&shared.target);
    let Ok(far) = TcpStream::connect(target) else { return };
    near.set_nodelay(true).ok();
    far.set_nodelay(true).ok();
    let (Ok(one), Ok(other)) = (near.try_clone(), far.try_clone()) else { return };
    shared.connections.fetch_add(1, Ordering::Relaxed);
    held(&shared.open).push([one, other]);
    for (from, to, way) in [(&near, &far, Way::Up), (&far, &near, Way::Down)] {
        if let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) {
            lane::carry(from, to, way, shared);
        }
    }
}
