//! The logs of runs, which are the fence, and the copies that readers see.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use wf_broker::{BrokerError, LogEnd, LoggedRecord, LoggedRun, RunLog, Version};
use wf_schema::{BatchId, Millis, RunId};

use super::Server;
use crate::simulate::clock;

/// How long a replica that lags may still show what was replaced.
const SHOWN: Duration = Duration::from_secs(5);

/// One entry of a log: a record, or its end.
#[derive(Clone, Debug)]
pub(crate) struct Logged {
    version: Version,
    /// `None` is the end.
    bytes: Option<Bytes>,
    /// The id of the message that it belongs to.
    message: Arc<str>,
    at: Instant,
    /// When it was replaced, or runs out.
    until: Option<Instant>,
}

/// A record as readers see it.
#[derive(Clone, Debug)]
pub(crate) struct Copy {
    batch: BatchId,
    step: u32,
    record: LoggedRecord,
    at: Instant,
    wall: Millis,
}

impl Logged {
    fn is_there(&self, at: Instant) -> bool {
        self.at <= at && self.until.is_none_or(|until| at < until)
    }
}

impl Server {
    /// Where the log of a run stands.
    fn stands(&self, log: &RunLog, at: Instant) -> Version {
        let logged = self.logs.get(&(log.batch, log.run)).into_iter().flatten();
        logged.filter(|logged| logged.is_there(at)).map(|logged| logged.version).next_back().unwrap_or(Version::NONE)
    }

    /// Appends to `log`.
    ///
    /// # Errors
    /// `Fenced`, `TooLarge`.
    pub(crate) fn append(&mut self, log: &RunLog, expected: Version, bytes: Bytes, now: Instant) -> Result<Version, BrokerError> {
        self.fits(&bytes)?;
        if self.stands(log, now) != expected {
            return Err(BrokerError::Fenced);
        }
        let version = Version(self.sequence('r'));
        self.log(log, Logged { version, bytes: Some(bytes), message: log.message.clone(), at: now, until: None });
        Ok(version)
    }

    fn log(&mut self, log: &RunLog, logged: Logged) {
        let entries = self.logs.entry((log.batch, log.run)).or_default();
        entries.retain(|old| old.until.is_none_or(|until| logged.at < until + SHOWN));
        entries.push(logged);
    }

    /// Ends a log, if it stands where `end` says.
    pub(crate) fn end(&mut self, end: &LogEnd, now: Instant) -> bool {
        if self.stands(&end.log, now) != end.version {
            return false;
        }
        for old in self.logs.entry((end.log.batch, end.log.run)).or_default() {
            old.until = Some(old.until.map_or(now, |until| until.min(now)));
        }
        let keep = end.keep.unwrap_or_default().max(self.bounds.window);
        let (version, message) = (Version(self.sequence('r')), end.log.message.clone());
        self.log(&end.log, Logged { version, bytes: None, message, at: now, until: Some(now + keep) });
        true
    }

    /// The log of a run as it stood at `at`.
    pub(crate) fn read_run(&self, log: &RunLog, at: Instant) -> LoggedRun {
        let mut read = LoggedRun::default();
        for logged in self.logs.get(&(log.batch, log.run)).into_iter().flatten().filter(|logged| logged.is_there(at)) {
            read.version = logged.version;
            let ours = logged.message == log.message;
            match &logged.bytes {
                Some(bytes) if ours => {
                    read.records.push(LoggedRecord { run: log.run, version: logged.version, bytes: bytes.clone() });
                }
                Some(_) => {}
                None => {
                    read.records.clear();
                    read.ended = ours;
                }
            }
        }
        read
    }

    /// The messages of `batch` that have left something in a log: their ids, and whether their runs have ended.
    pub(crate) fn logged(&self, batch: BatchId, at: Instant) -> Vec<(Arc<str>, bool)> {
        let mut found: BTreeMap<(RunId, Arc<str>), bool> = BTreeMap::new();
        for ((_, run), entries) in self.logs.iter().filter(|((of, _), _)| *of == batch) {
            for logged in entries.iter().filter(|logged| logged.is_there(at)) {
                found.insert((*run, logged.message.clone()), logged.bytes.is_none());
            }
        }
        found.into_iter().map(|((_, message), ended)| (message, ended)).collect()
    }

    /// Keeps a copy for readers: whether it is new.
    ///
    /// # Errors
    /// `TooLarge`.
    pub(crate) fn copy(&mut self, log: &RunLog, step: u32, bytes: Bytes, now: Instant) -> Result<bool, BrokerError> {
        self.fits(&bytes)?;
        let name = format!("c {} {} {step}", log.batch, log.run);
        if self.knows(&name, now) {
            return Ok(false);
        }
        self.ids.insert(name, (now, None));
        let record = LoggedRecord { run: log.run, version: Version(self.sequence('c')), bytes };
        self.copies.push_back(Copy { batch: log.batch, step, record, at: now, wall: clock::millis(0) });
        let most = self.bounds.copies;
        self.evict(most);
        Ok(true)
    }

    /// All copies of records of `batch` that were there at `at`.
    pub(crate) fn read(&self, batch: BatchId, at: Instant) -> Vec<LoggedRecord> {
        let mut copies: Vec<&Copy> = self.copies.iter().filter(|copy| copy.batch == batch && copy.at <= at).collect();
        copies.sort_by_key(|copy| (copy.record.run, copy.step, copy.record.version));
        copies.into_iter().map(|copy| copy.record.clone()).collect()
    }

    /// Drops all copies but the newest: how many.
    pub(crate) fn evict(&mut self, left: usize) -> usize {
        let gone = self.copies.len().saturating_sub(left);
        let last = self.copies.drain(..gone).next_back();
        if let Some(copy) = last {
            self.kept_since = copy.wall + 1;
        }
        gone
    }

    /// Drops all records of logs but the newest, as if they were copies.
    pub(crate) fn evict_logs(&mut self, left: usize) {
        let of = |entries: &Vec<Logged>| entries.iter().map(|logged| logged.version).collect::<Vec<_>>();
        let mut versions: Vec<Version> = self.logs.values().flat_map(of).collect();
        versions.sort_unstable();
        let gone = versions.len().saturating_sub(left);
        let oldest = versions.get(gone).copied().unwrap_or(Version(u64::MAX));
        for entries in self.logs.values_mut() {
            entries.retain(|logged| logged.version >= oldest);
        }
    }
}
