//! The logs of runs, which are the fence, and the copies that readers see.

use bytes::Bytes;
use tokio::time::Instant;
use wf_broker::{BrokerError, LoggedRecord, Version};
use wf_schema::{BatchId, RunId};

use super::Server;

/// The log of a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log {
    pub(crate) records: Vec<(Version, Bytes, Instant)>,
    /// Where it stands; more than the last record once it has ended.
    pub(crate) version: Version,
}

/// A record as readers see it.
#[derive(Clone, Debug)]
pub(crate) struct Copy {
    pub(crate) batch: BatchId,
    pub(crate) record: LoggedRecord,
    pub(crate) at: Instant,
}

impl Server {
    /// Appends to the log of (`batch`, `run`).
    ///
    /// # Errors
    /// `Fenced`, `TooLarge`.
    pub(crate) fn append(
        &mut self,
        batch: BatchId,
        run: RunId,
        expected: Version,
        bytes: Bytes,
        now: Instant,
    ) -> Result<Version, BrokerError> {
        self.fits(&bytes)?;
        let stands = self.logs.get(&(batch, run)).map_or(Version::NONE, |log| log.version);
        if stands != expected {
            return Err(BrokerError::Fenced);
        }
        let version = Version(self.sequence('r'));
        let log = self.logs.entry((batch, run)).or_default();
        log.records.push((version, bytes, now));
        log.version = version;
        Ok(version)
    }

    /// The log of (`batch`, `run`) as it stood at `at`.
    pub(crate) fn log(&self, batch: BatchId, run: RunId, at: Instant) -> Vec<LoggedRecord> {
        let records = self.logs.get(&(batch, run)).map(|log| &log.records).into_iter().flatten();
        let there = records.filter(|(_, _, since)| *since <= at);
        there.map(|(version, bytes, _)| LoggedRecord { run, version: *version, bytes: bytes.clone() }).collect()
    }

    /// Keeps a copy for readers.
    pub(crate) fn copy(&mut self, batch: BatchId, record: LoggedRecord, at: Instant) {
        self.copies.push_back(Copy { batch, record, at });
        while self.copies.len() > self.bounds.copies {
            self.copies.pop_front();
        }
    }

    /// All copies of records of `batch` that were there at `at`.
    pub(crate) fn read(&self, batch: BatchId, at: Instant) -> Vec<LoggedRecord> {
        let of = |copy: &&Copy| copy.batch == batch && copy.at <= at;
        let mut read: Vec<LoggedRecord> = self.copies.iter().filter(of).map(|copy| copy.record.clone()).collect();
        read.sort_by_key(|record| (record.run, record.version));
        read
    }

    /// Drops all copies but the newest.
    pub(crate) fn evict(&mut self, left: usize) -> usize {
        let gone = self.copies.len().saturating_sub(left);
        self.copies.drain(..gone);
        gone
    }
}
