//! One direction of the link, and the threads that carry what goes that way.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{Conditions, Shared, Way, held, shut};

/// The most that is read at once.
const CHUNK: usize = 64 << 10;

/// Chunks of one connection on their way: 64 MiB, more than 300 MB/s have under way at 200 ms.
const ON_THE_WAY: usize = 1_024;

/// A direction of the link, over all connections.
#[derive(Default)]
pub(super) struct Lane {
    bytes: AtomicU64,
    /// Until when the rate of all connections together is used up.
    taken_until: Mutex<Option<Instant>>,
    holding: Mutex<bool>,
    resumed: Condvar,
}

impl Lane {
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(super) fn hold(&self, hold: bool) {
        *held(&self.holding) = hold;
        self.resumed.notify_all();
    }

    /// Waits while the direction is held.
    fn open(&self) {
        let holding = held(&self.holding);
        drop(self.resumed.wait_while(holding, |holding| *holding).unwrap_or_else(PoisonError::into_inner));
    }
}

struct Chunk {
    due: Instant,
    bytes: Vec<u8>,
}

/// Carries one direction of one connection until either side ends, then ends both.
pub(super) fn carry(from: TcpStream, to: TcpStream, way: Way, shared: &Arc<Shared>) {
    let (depart, arrive) = sync_channel(ON_THE_WAY);
    let (reading, writing) = (shared.clone(), shared.clone());
    std::thread::spawn(move || read(from, &depart, way, &reading));
    std::thread::spawn(move || write(to, &arrive, way, &writing));
}

fn lane(shared: &Shared, way: Way) -> &Lane {
    match way {
        Way::Up => &shared.up,
        Way::Down => &shared.down,
    }
}

fn read(mut from: TcpStream, depart: &SyncSender<Chunk>, way: Way, shared: &Shared) {
    let lane = lane(shared, way);
    let mut buffer = vec![0; CHUNK];
    let mut seen = shared.changes.load(Ordering::Acquire);
    let mut conditions: Arc<Conditions> = held(&shared.conditions).clone();
    let (mut own, mut last) = (None, shared.began);
    // What was read before the end is still carried: the writer ends when this sender is dropped.
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        let now = Instant::now();
        let changes = shared.changes.load(Ordering::Acquire);
        if changes != seen {
            (seen, conditions) = (changes, held(&shared.conditions).clone());
        }
        lane.bytes.fetch_add(length as u64, Ordering::Relaxed);
        let sent = now.max(through(&mut own, now, length, conditions.connection_rate)).max(through(
            &mut held(&lane.taken_until),
            now,
            length,
            conditions.rate,
        ));
        let arrival = sent + conditions.travel(length, fastrand::f64);
        // Whatever overtook it on the way waits for it at the end.
        last = (shared.began + conditions.stalled(arrival - shared.began)).max(last);
        if depart.send(Chunk { due: last, bytes: buffer[..length].to_vec() }).is_err() {
            return;
        }
        // More is read only when it could be sent: what waits, waits with the sender, as before a full router.
        pause(sent);
    }
}

/// When `bytes` are through a bottleneck of `rate` that is taken until `until`.
fn through(until: &mut Option<Instant>, now: Instant, bytes: usize, rate: Option<u64>) -> Instant {
    let Some(rate) = rate.filter(|rate| *rate > 0) else { return now };
    let end = until.unwrap_or(now).max(now) + Duration::from_secs_f64(bytes as f64 / rate as f64);
    *until = Some(end);
    end
}

fn write(mut to: TcpStream, arrive: &Receiver<Chunk>, way: Way, shared: &Shared) {
    let lane = lane(shared, way);
    for chunk in arrive {
        pause(chunk.due);
        lane.open();
        if to.write_all(&chunk.bytes).is_err() {
            break;
        }
    }
    // One side that ends, ends both.
    let mut open = held(&shared.open);
    let (Ok(near), Ok(far)) = (to.local_addr(), to.peer_addr()) else {
        // It was reset, and has no addresses any more to know it by.
        open.retain(|sockets| {
            let whole = sockets.iter().all(|socket| socket.peer_addr().is_ok());
            if !whole {
                shut(sockets);
            }
            whole
        });
        return;
    };
    let mine = |socket: &TcpStream| {
        socket.local_addr().is_ok_and(|address| address == near) && socket.peer_addr().is_ok_and(|address| address == far)
    };
    open.retain(|sockets| {
        let ends = sockets.iter().any(mine);
        if ends {
            shut(sockets);
        }
        !ends
    });
}

fn pause(until: Instant) {
    let left = until.saturating_duration_since(Instant::now());
    if !left.is_zero() {
        std::thread::sleep(left);
    }
}
