//! One lane: what waits in it, and who waits for it.

use std::collections::{BTreeSet, VecDeque};
use std::task::Waker;

use super::Entry;

/// A source that waits for a message.
pub(super) struct Seat {
    pub(super) source: u64,
    pub(super) waker: Waker,
}

#[derive(Default)]
pub(super) struct LaneState {
    /// Never delivered by this process, by sequence.
    pub(super) fresh: VecDeque<Entry>,
    /// The ready ones of those that are held.
    pub(super) again: BTreeSet<u64>,
    /// The sources that wait, in the order in which they came: the first `ready()` of them are served.
    pub(super) seats: VecDeque<Seat>,
    /// The weight of all its messages, the scheduled ones included.
    pub(super) weight: u64,
    pub(super) owned: u64,
    pub(super) delayed: u64,
}

impl LaneState {
    pub(super) fn ready(&self) -> usize {
        self.fresh.len() + self.again.len()
    }

    /// The sources that wait although all that is ready is as good as delivered.
    pub(super) fn in_vain(&self) -> usize {
        self.seats.len().saturating_sub(self.ready())
    }

    /// Tells those whose turn it is.
    pub(super) fn wake(&self) {
        for seat in self.seats.iter().take(self.ready()) {
            seat.waker.wake_by_ref();
        }
    }

    pub(super) fn idle(&self) -> bool {
        self.weight == 0 && self.seats.is_empty()
    }
}
