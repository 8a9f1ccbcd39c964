//! What is under way in one direction: a window that grows, and what has arrived by when.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};

/// What may be under way at first, in bytes.
const FIRST_WINDOW: u64 = 16 << 10;

/// What may be under way at most: half of what a server keeps for a slow reader before it closes the connection.
const WIDEST_WINDOW: u64 = 32 << 20;

/// The least that is sent at once.
const LEAST: usize = 256;

/// What has arrived: when, and how many bytes.
pub(super) type Sample = (Duration, u64);

/// One direction of one connection.
pub(super) struct Flow {
    began: Instant,
    /// What may still be sent, in bytes, as permits.
    room: Semaphore,
    window: AtomicU64,
    /// What went each way so far, in bytes.
    sent_bytes: AtomicU64,
    received_bytes: AtomicU64,
    state: Mutex<State>,
    /// Something is under way, or will not be any more.
    changed: Notify,
}

struct State {
    /// The bytes that may still be sent in all.
    left: u64,
    /// The sizes of what is under way, in its order.
    under_way: VecDeque<usize>,
    samples: Vec<Sample>,
}

impl Flow {
    /// A flow that began at `began`, of `bytes` in all.
    pub(super) fn new(began: Instant, bytes: u64) -> Self {
        Self {
            began,
            room: Semaphore::new(FIRST_WINDOW as usize),
            window: AtomicU64::new(FIRST_WINDOW),
            sent_bytes: AtomicU64::new(0),
            received_bytes: AtomicU64::new(0),
            state: Mutex::new(State { left: bytes, under_way: VecDeque::new(), samples: Vec::new() }),
            changed: Notify::new(),
        }
    }

    /// Waits for room for something of which `copies` arrive, of at most `largest` bytes each: its size. From then on
    /// it counts as under way. `None` when all was sent.
    pub(super) async fn take(&self, largest: usize, copies: usize) -> Option<usize> {
        // Small while the window is small, so that it can tell what arrives.
        let size = (self.window.load(Relaxed) as usize / (8 * copies)).clamp(LEAST, largest.max(LEAST)).min(largest.max(1));
        let all = (size * copies) as u64;
        // It is never closed, and never asked for more than the window has.
        self.room.acquire_many(all as u32).await.ok()?.forget();
        let mut state = self.state.lock();
        let fits = state.left >= all;
        state.left = if fits { state.left - all } else { 0 };
        if fits {
            state.under_way.extend(std::iter::repeat_n(size, copies));
        }
        drop(state);
        self.changed.notify_one();
        fits.then_some(size)
    }

    /// Waits until something is under way; false when nothing is and nothing will be.
    pub(super) async fn more(&self) -> bool {
        loop {
            {
                let state = self.state.lock();
                if !state.under_way.is_empty() {
                    return true;
                }
                if state.left == 0 {
                    return false;
                }
            }
            // One permit is kept, so what is sent in between is not missed.
            self.changed.notified().await;
        }
    }

    /// Notes that the oldest of what is under way has arrived.
    pub(super) fn mark_arrived(&self) {
        let size = self.state.lock().under_way.pop_front();
        self.arrived(size, size);
    }

    /// Notes that one of what is under way has arrived, with `counted` bytes.
    pub(super) fn copy_arrived(&self, counted: usize) {
        let size = self.state.lock().under_way.pop_front();
        self.arrived(size, Some(counted));
    }

    fn arrived(&self, size: Option<usize>, counted: Option<usize>) {
        let (Some(size), Some(counted)) = (size, counted) else { return };
        self.state.lock().samples.push((self.began.elapsed(), counted as u64));
        // By as much as has arrived, so that it doubles with every round trip.
        let window = self.window.load(Relaxed);
        let wider = (window + size as u64).min(WIDEST_WINDOW);
        self.window.store(wider, Relaxed);
        self.room.add_permits(size + (wider - window) as usize);
    }

    /// Counts a message that was sent,
    pub(super) fn sent(&self, bytes: usize) {
        self.sent_bytes.fetch_add(bytes as u64, Relaxed);
    }

    /// or received.
    pub(super) fn received(&self, bytes: usize) {
        self.received_bytes.fetch_add(bytes as u64, Relaxed);
    }

    /// The bytes that were sent and received so far.
    pub(super) fn moved(&self) -> (u64, u64) {
        (self.sent_bytes.load(Relaxed), self.received_bytes.load(Relaxed))
    }

    /// What has arrived so far.
    pub(super) fn samples(&self) -> Vec<Sample> {
        std::mem::take(&mut self.state.lock().samples)
    }
}

/// The bytes a second that arrived in the later half of the time, when slow starts are over; and whether it was still
/// growing at the end. `None` when nothing arrived.
pub(super) fn steady(mut samples: Vec<Sample>) -> Option<(f64, bool)> {
    samples.sort_unstable();
    let whole = samples.last()?.0.max(Duration::from_micros(1));
    let between = |from: f64, to: f64| {
        let (from, to) = (whole.mul_f64(from), whole.mul_f64(to));
        let bytes: u64 = samples.iter().filter(|(at, _)| *at > from && *at <= to).map(|(_, bytes)| bytes).sum();
        bytes as f64 / (to - from).as_secs_f64().max(1e-6)
    };
    // A few arrivals have no halves worth the name.
    if samples.len() < 16 {
        return Some((between(0.0, 1.0), true));
    }
    Some((between(0.5, 1.0), between(0.75, 1.0) > 1.3 * between(0.5, 0.75)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn arrivals(rates: &[u64]) -> Vec<Sample> {
        // A hundred arrivals in each tenth of a second.
        let tenths = rates.iter().zip(0_u64..);
        tenths.flat_map(|(rate, n)| (1..=100).map(move |i| (Duration::from_millis(100 * n + i), rate / 1_000))).collect()
    }

    #[test]
    fn the_rate_is_that_of_the_later_half() {
        assert_eq!(steady(Vec::new()), None);
        let (rate, rising) = steady(arrivals(&[100_000, 400_000, 1_000_000, 1_000_000])).unwrap();
        assert!((rate - 1_000_000.0).abs() < 20_000.0 && !rising, "{rate} {rising}");
        let (rate, rising) = steady(arrivals(&[1_000_000, 2_000_000, 4_000_000, 8_000_000])).unwrap();
        assert!((rate - 6_000_000.0).abs() < 100_000.0 && rising, "{rate} {rising}");
        // Too few to tell: what came, by the time that it took.
        let few = vec![(Duration::from_secs(1), 1_000), (Duration::from_secs(2), 1_000)];
        assert_eq!(steady(few), Some((1_000.0, true)));
    }

    #[tokio::test]
    async fn a_window_grows_by_what_arrives_and_ends_with_its_bytes() {
        let flow = Flow::new(Instant::now(), 100 << 10);
        let first = flow.take(32 << 10, 1).await.unwrap();
        assert_eq!(first as u64, FIRST_WINDOW / 8);
        assert!(flow.more().await);
        flow.mark_arrived();
        assert_eq!(flow.window.load(Relaxed), FIRST_WINDOW + first as u64);
        assert_eq!(flow.room.available_permits() as u64, FIRST_WINDOW + first as u64);
        let mut sent = first;
        while let Some(size) = flow.take(32 << 10, 1).await {
            flow.mark_arrived();
            sent += size;
        }
        assert!(sent <= 100 << 10 && sent > 80 << 10, "{sent}");
        assert!(!flow.more().await);
        assert_eq!(flow.samples().iter().map(|(_, bytes)| *bytes).sum::<u64>(), sent as u64);
    }

    #[tokio::test]
    async fn chunks_of_a_kind_wait_for_room() {
        let flow = Flow::new(Instant::now(), u64::MAX);
        let mut taken = 0;
        while let Ok(size) = tokio::time::timeout(Duration::ZERO, flow.take(16 << 10, 16)).await {
            taken += size.unwrap() * 16;
        }
        assert_eq!(taken as u64, FIRST_WINDOW);
    }
}
