//! What a publisher has done.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::Published;
use crate::{SpoolStats, Window};

/// What a [`super::Publisher`] and its clones have done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PublisherStats {
    /// Messages the broker stored, or had already.
    pub messages: u64,
    /// Their size in bytes.
    pub wire_bytes: u64,
    /// Jobs that went on their way.
    pub jobs: u64,
    /// Messages the broker had already.
    pub duplicates: u64,
    /// Tries after the first.
    pub retries: u64,
    /// Bytes on their way now.
    pub in_flight_bytes: usize,
    /// Messages on their way now.
    pub in_flight_messages: usize,
    /// How much may be on its way now; with the profile `auto` it follows the link.
    pub window: Window,
    /// Messages that were put into the spool.
    pub spooled: u64,
    /// What the spool holds, if there is one.
    pub spool: Option<SpoolStats>,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    messages: AtomicU64,
    wire_bytes: AtomicU64,
    jobs: AtomicU64,
    duplicates: AtomicU64,
    retries: AtomicU64,
    spooled: AtomicU64,
}

impl Counters {
    pub(super) fn add(&self, published: &Published, jobs: usize) {
        self.messages.fetch_add((published.messages - published.spooled) as u64, Relaxed);
        self.spooled.fetch_add(published.spooled as u64, Relaxed);
        if published.spooled == 0 {
            self.wire_bytes.fetch_add(published.wire_bytes as u64, Relaxed);
        }
        self.duplicates.fetch_add(published.duplicates as u64, Relaxed);
        self.jobs(jobs);
    }

    pub(super) fn jobs(&self, jobs: usize) {
        self.jobs.fetch_add(jobs as u64, Relaxed);
    }

    pub(super) fn retry(&self) {
        self.retries.fetch_add(1, Relaxed);
    }

    pub(super) fn read(&self, window: Window, in_flight: Window, spool: Option<SpoolStats>) -> PublisherStats {
        PublisherStats {
            messages: self.messages.load(Relaxed),
            wire_bytes: self.wire_bytes.load(Relaxed),
            jobs: self.jobs.load(Relaxed),
            duplicates: self.duplicates.load(Relaxed),
            retries: self.retries.load(Relaxed),
            in_flight_bytes: in_flight.bytes,
            in_flight_messages: in_flight.messages,
            window,
            spooled: self.spooled.load(Relaxed),
            spool,
        }
    }
}
