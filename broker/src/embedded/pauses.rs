//! The queues that are held, and until when.

use std::collections::HashMap;

use wf_schema::{Millis, Queue};

#[derive(Default)]
pub(super) struct Pauses(HashMap<Queue, Millis>);

impl Pauses {
    /// Holds `queue` until `until`.
    pub(super) fn begin(&mut self, queue: Queue, until: Millis) {
        self.0.insert(queue, until);
    }

    /// Holds `queue` no more; whether it was held.
    pub(super) fn end(&mut self, queue: &Queue) -> bool {
        self.0.remove(queue).is_some()
    }

    /// Until when `queue` is held, if it is.
    pub(super) fn until(&self, queue: &Queue, now: Millis) -> Option<Millis> {
        self.0.get(queue).copied().filter(|until| *until > now)
    }

    /// When the next pause is over.
    pub(super) fn next(&self) -> Option<Millis> {
        self.0.values().min().copied()
    }

    /// The queues whose pause is over.
    pub(super) fn over(&self, now: Millis) -> Vec<Queue> {
        self.0.iter().filter(|(_, until)| **until <= now).map(|(queue, _)| queue.clone()).collect()
    }
}
