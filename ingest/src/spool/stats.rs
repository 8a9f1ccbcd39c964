//! What a spool holds, in numbers.

use std::time::Duration;

use wf_schema::{Millis, now};

use super::ledger::Totals;

/// What a [`super::Spool`] holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SpoolStats {
    /// Jobs in it.
    pub jobs: u64,
    /// Messages that they travel in.
    pub batches: u64,
    /// What those weigh, in bytes.
    pub bytes: u64,
    /// The most that they may weigh, in bytes.
    pub limit: u64,
    /// How long the oldest has been in it.
    pub oldest: Option<Duration>,
    /// Messages that the broker was given and has not confirmed: those may be stored twice, if the broker stored them
    /// and has forgotten their ids by the time they are sent again.
    pub unconfirmed: u64,
    /// Entries that cannot be used and are kept aside.
    pub aside: u64,
    /// Jobs that were shipped since the process started.
    pub shipped: u64,
}

impl SpoolStats {
    pub(super) fn new(totals: Totals, oldest: Option<Millis>) -> Self {
        let Totals { bytes, limit, batches, jobs, unconfirmed, aside, shipped } = totals;
        let oldest = oldest.map(|at| Duration::from_millis(now().saturating_sub(at)));
        Self { jobs, batches, bytes, limit, oldest, unconfirmed, aside, shipped }
    }
}
