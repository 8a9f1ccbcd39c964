//! What went over the wire, counted: how tests show that no job costs a round trip of its own.

use std::sync::atomic::{AtomicU64, Ordering};

/// How much was sent so far, over all connections of a broker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Messages that were published, those for later and the outcome log's included.
    pub published: u64,
    /// The bytes of those that the server has stored.
    pub stored_bytes: u64,
    /// Requests that a caller waited for: reads, records, settings.
    pub requested: u64,
    /// Acknowledgements and releases.
    pub settled: u64,
    /// Renewals of leases.
    pub renewed: u64,
    /// Pulls: each asks for many messages.
    pub pulled: u64,
    /// Messages that came.
    pub delivered: u64,
    /// Their bytes.
    pub delivered_bytes: u64,
    /// What was sent again because a connection was lost before its answer came, or nobody was there to answer.
    pub resent: u64,
    /// How often a connection was made anew.
    pub reconnected: u64,
    /// Dead letters that the server was seen to drop before their time, to make room for newer ones.
    pub dead_dropped: u64,
}

/// The counters behind [`Counts`].
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) published: Counter,
    pub(crate) stored_bytes: Counter,
    pub(crate) requested: Counter,
    pub(crate) settled: Counter,
    pub(crate) renewed: Counter,
    pub(crate) pulled: Counter,
    pub(crate) delivered: Counter,
    pub(crate) delivered_bytes: Counter,
    pub(crate) resent: Counter,
    pub(crate) reconnected: Counter,
    pub(crate) dead_dropped: Counter,
}

impl Counters {
    pub(crate) fn counts(&self) -> Counts {
        Counts {
            published: self.published.value(),
            stored_bytes: self.stored_bytes.value(),
            requested: self.requested.value(),
            settled: self.settled.value(),
            renewed: self.renewed.value(),
            pulled: self.pulled.value(),
            delivered: self.delivered.value(),
            delivered_bytes: self.delivered_bytes.value(),
            resent: self.resent.value(),
            reconnected: self.reconnected.value(),
            dead_dropped: self.dead_dropped.value(),
        }
    }
}

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub(crate) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
