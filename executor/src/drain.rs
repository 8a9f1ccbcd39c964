//! Coming to an end: what the parts of a node are told, and what is told of it afterwards.

use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::node::Node;

/// How far a node is on its way to its end. Each phase implies the ones before it.
#[derive(Default)]
pub(crate) struct Phases {
    /// Nothing new is pulled; what has not started is given back; what runs may go on until the deadline.
    pub(crate) draining: CancellationToken,
    /// The deadline has passed: what is done is settled, the rest is given back.
    pub(crate) overtime: CancellationToken,
    /// Nothing is done any more.
    pub(crate) gone: CancellationToken,
    deadline: OnceLock<Instant>,
}

impl Phases {
    /// Begins the drain; the first deadline holds.
    pub(crate) fn drain(&self, deadline: Instant) -> Instant {
        let deadline = *self.deadline.get_or_init(|| deadline);
        // After the deadline is set, for whoever wakes up asks for it.
        self.draining.cancel();
        deadline
    }

    /// How long until the deadline of a drain that has begun.
    pub(crate) fn left(&self) -> Duration {
        self.deadline.get().map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()))
    }
}

/// The lanes that are served, and how their flows ended.
#[derive(Default)]
pub(crate) struct Lanes {
    open: AtomicUsize,
    /// Deliveries that came and were not taken, and are given back.
    pub(crate) untaken: AtomicU64,
    /// Lanes from which something may still be on its way.
    pub(crate) unsure: AtomicU64,
}

impl Lanes {
    /// How many are being served.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }
}

/// A lane being served; dropped once its flow has ended. With the last one, what was parked is released.
pub(crate) struct OpenLane(Arc<Node>);

impl OpenLane {
    pub(crate) fn new(node: Arc<Node>) -> Self {
        node.lanes.open.fetch_add(1, Ordering::AcqRel);
        Self(node)
    }
}

impl Drop for OpenLane {
    fn drop(&mut self) {
        if self.0.lanes.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.renewals.unpark();
        }
    }
}

/// How a drain went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DrainReport {
    /// Batches finished and acknowledged since the drain began.
    pub finished: u64,
    /// Batches given back since then, as far as they were not done; with those that had come and nobody had taken.
    pub released: u64,
    /// Batches that could not even be given back in time: they come again when their lease is over.
    pub abandoned: u64,
    /// Lanes whose flow could not be ended in time. What the broker had sent of them and did not arrive comes again when
    /// its lease is over.
    pub unstopped: u64,
    /// Whether the broker has confirmed all that was acknowledged and given back.
    pub confirmed: bool,
    /// How long it took.
    pub took: Duration,
}

impl fmt::Display for DrainReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { finished, released, abandoned, unstopped, confirmed, took } = self;
        write!(f, "drained in {:.1} s: {finished} batches finished, {released} given back", took.as_secs_f64())?;
        if *abandoned > 0 {
            write!(f, ", {abandoned} left to their lease")?;
        }
        if *unstopped > 0 {
            write!(f, "; {unstopped} lanes may have had more on its way, which is left to its lease")?;
        }
        if *confirmed { Ok(()) } else { write!(f, "; not all of it is confirmed by the broker") }
    }
}
