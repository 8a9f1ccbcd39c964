//! Lanes: who gets what, and what is given back.

use std::time::Duration;

use tokio::time::Instant;
use wf_broker::LaneStats;
use wf_schema::{Lane, Millis, RunId};

use super::{Kept, Server, State};

impl Server {
    /// The messages of `lane` that can be delivered, in their order.
    pub(crate) fn ready(&self, lane: &Lane, now: Instant, wall: Millis) -> Vec<RunId> {
        if self.paused.get(&lane.queue).is_some_and(|until| *until > wall) {
            return Vec::new();
        }
        let ready = |run: &&RunId| {
            self.messages.get(run).is_some_and(|kept| match kept.state {
                State::Waiting(from) => from <= now,
                State::Out { until, .. } => until <= now,
            })
        };
        self.lanes.get(lane).map(|runs| runs.iter().filter(ready).copied().collect()).unwrap_or_default()
    }

    /// Gives a message to somebody.
    pub(crate) fn deliver(&mut self, run: RunId, now: Instant, node: usize, life: u32) -> Option<Kept> {
        let until = now + self.bounds.lease;
        let kept = self.messages.get_mut(&run)?;
        kept.delivered += 1;
        kept.state = State::Out { until, node, life };
        Some(kept.clone())
    }

    /// Extends whoever's lease it is.
    pub(crate) fn renew(&mut self, run: RunId, now: Instant) {
        let lease = self.bounds.lease;
        if let Some(Kept { state: State::Out { until, .. }, .. }) = self.messages.get_mut(&run) {
            *until = now + lease;
        }
    }

    /// Gives it back, whoever has it.
    pub(crate) fn release(&mut self, run: RunId, now: Instant, delay: Duration) {
        if let Some(kept) = self.messages.get_mut(&run) {
            kept.state = State::Waiting(now + delay);
        }
    }

    /// Messages that are out, to be delivered once more.
    pub(crate) fn out(&self, count: usize) -> Vec<RunId> {
        let out = self.messages.values().filter(|kept| matches!(kept.state, State::Out { .. }));
        out.take(count).map(|kept| kept.run).collect()
    }

    /// The lanes that have messages.
    pub(crate) fn lanes(&self) -> Vec<Lane> {
        self.lanes.iter().filter(|(_, runs)| !runs.is_empty()).map(|(lane, _)| lane.clone()).collect()
    }

    /// How full `lane` is, with so many who wait for more.
    pub(crate) fn stats(&self, lane: &Lane, waiting: u64) -> LaneStats {
        let kept = || self.lanes.get(lane).into_iter().flatten().filter_map(|run| self.messages.get(run));
        let in_flight = kept().filter(|kept| matches!(kept.state, State::Out { .. })).count() as u64;
        let pending = kept().count() as u64 - in_flight;
        let oldest = kept().filter(|kept| matches!(kept.state, State::Waiting(_))).map(|kept| kept.at).min();
        LaneStats { pending, in_flight, oldest, waiting }
    }

    /// What is out with that life of a node.
    pub(crate) fn with(&self, node: usize, life: u32) -> Vec<&Kept> {
        let with = |kept: &&Kept| matches!(kept.state, State::Out { node: n, life: l, .. } if (n, l) == (node, life));
        self.messages.values().filter(with).collect()
    }
}
