//! Keyed records.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use wf_broker::{BrokerError, Entry, Key, Revision};

use super::Server;

/// One writing of a record.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    pub(crate) at: Instant,
    pub(crate) revision: Revision,
    /// `None` once it is deleted.
    pub(crate) bytes: Option<Bytes>,
    pub(crate) until: Option<Instant>,
}

/// How many writings are kept, for replicas that lag.
const KEPT: usize = 4;

impl Server {
    /// The record as it stood at `at`, looked at `now`.
    pub(crate) fn entry(&self, key: &Key, at: Instant, now: Instant) -> Option<Entry> {
        let written = self.keyed.get(key)?.iter().rev().find(|written| written.at <= at)?;
        let live = written.until.is_none_or(|until| now < until);
        let bytes = written.bytes.clone().filter(|_| live)?;
        Some(Entry { bytes, revision: written.revision })
    }

    /// Writes `bytes`, if the record stands at `expected`; `None` is absent, and for `bytes` deletes.
    ///
    /// # Errors
    /// `Fenced`.
    pub(crate) fn write(
        &mut self,
        key: Key,
        expected: Option<Revision>,
        bytes: Option<Bytes>,
        ttl: Option<Duration>,
        now: Instant,
    ) -> Result<Revision, BrokerError> {
        if self.entry(&key, now, now).map(|entry| entry.revision) != expected {
            return Err(BrokerError::Fenced);
        }
        let revision = Revision(self.sequence('k'));
        let until = ttl.map(|ttl| now + Duration::from_secs(ttl.as_secs_f64().ceil().max(1.0) as u64));
        let writings = self.keyed.entry(key).or_default();
        writings.push(Written { at: now, revision, bytes, until });
        let gone = writings.len().saturating_sub(KEPT);
        writings.drain(..gone);
        Ok(revision)
    }
}
