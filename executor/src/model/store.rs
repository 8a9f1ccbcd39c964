//! What the model stores, and what its clock does to that.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use wf_broker::{LogEnd, LoggedRecord, Scheduled, Version};
use wf_schema::{BatchId, DeadLetter, Lane, Limits, Record, RunId};

/// What the broker stores.
#[derive(Default)]
pub(crate) struct Store {
    pub(crate) ready: VecDeque<Waiting>,
    pub(crate) owned: HashMap<RunId, Waiting>,
    /// Ever, so that no repetition is taken for something new.
    pub(super) ids: HashSet<String>,
    pub(crate) scheduled: BTreeMap<String, Scheduled>,
    /// What stands in the logs, by batch.
    pub(crate) log: HashMap<BatchId, Vec<LoggedRecord>>,
    /// What readers see, by batch.
    pub(crate) shown: HashMap<BatchId, Vec<Bytes>>,
    /// The records that another message of the same name left in a log.
    pub(crate) others: HashSet<Version>,
    /// The runs that have ended, and for how long that is remembered.
    pub(crate) ended: HashMap<RunId, (Version, Option<Duration>)>,
    pub(crate) dead: Vec<Bytes>,
    pub(super) sequence: u64,
    /// Each request that was done, by name.
    pub(crate) calls: Vec<&'static str>,
}

#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    pub(super) lane: Lane,
    pub(super) bytes: Bytes,
    pub(super) run: RunId,
    pub(super) delivered: u64,
}

impl Store {
    pub(super) fn put(&mut self, lane: Lane, bytes: Bytes) {
        self.sequence += 1;
        self.ready.push_back(Waiting { lane, bytes, run: RunId::new('m', self.sequence), delivered: 0 });
    }

    /// All that is scheduled falls due.
    pub(crate) fn fire(&mut self) {
        for (_, scheduled) in std::mem::take(&mut self.scheduled) {
            self.put(scheduled.lane, scheduled.bytes);
        }
    }

    /// The window is over in which ids are remembered.
    pub(crate) fn forget_ids(&mut self) {
        self.ids.clear();
    }

    /// So is that in which the ends of logs are.
    pub(crate) fn forget(&mut self) {
        self.forget_ids();
        for (run, _) in std::mem::take(&mut self.ended) {
            self.log.values_mut().for_each(|log| log.retain(|logged| logged.run != run));
        }
    }

    /// All leases run out.
    pub(crate) fn expire(&mut self) {
        self.ready.extend(self.owned.drain().map(|(_, waiting)| waiting));
    }

    /// The lease of `run` runs out.
    pub(crate) fn expire_one(&mut self, run: RunId) {
        let waiting = self.owned.get(&run).unwrap().clone();
        self.ready.push_front(waiting);
    }

    /// Where the log of a run stands.
    pub(super) fn stands(&self, batch: BatchId, run: RunId) -> Version {
        let log = self.log.get(&batch).into_iter().flatten().filter(|logged| logged.run == run);
        let last = log.map(|logged| logged.version).max().unwrap_or_default();
        self.ended.get(&run).map_or(last, |(version, _)| last.max(*version))
    }

    pub(super) fn end(&mut self, end: &LogEnd) {
        if self.stands(end.log.batch, end.log.run) == end.version {
            self.sequence += 1;
            self.ended.insert(end.log.run, (Version(self.sequence), end.keep));
        }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.ready.is_empty() && self.owned.is_empty() && self.scheduled.is_empty()
    }

    pub(crate) fn records(&self, batch: BatchId) -> Vec<Record> {
        let logged = self.log.get(&batch).map(Vec::as_slice).unwrap_or_default();
        logged.iter().map(|logged| Record::decode(&logged.bytes, &Limits::default()).unwrap()).collect()
    }

    pub(crate) fn letters(&self) -> Vec<DeadLetter> {
        self.dead.iter().map(|bytes| DeadLetter::decode(bytes, &Limits::default()).unwrap()).collect()
    }
}
