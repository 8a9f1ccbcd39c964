//! The truth about a history: what was promised to whom, what was stored, started, ended and settled. It sees what no
//! node sees, and tells at once when a promise is broken.

mod ending;
mod runs;
mod storing;

pub(crate) use storing::Args;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;
use wf_schema::{JobId, Lane, RunId, State};

use super::clock;

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    /// Which, in a word: a history is shrunk as long as it breaks the same.
    pub(crate) what: &'static str,
    pub(crate) detail: String,
}

/// How a job came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Over HTTP, or as plain JSON.
    Plain,
    /// With an idempotency key: stored once, whatever happens.
    Keyed,
    /// From a file, with `wf run`.
    File,
}

/// A job as its producer knows it, over everything that becomes of it.
#[derive(Clone, Debug)]
pub(crate) struct Tag {
    pub(crate) way: Way,
    /// Since when its producer knows that it is durable.
    pub(crate) accepted: Option<Instant>,
    /// The messages that brought it in.
    pub(crate) births: Vec<u64>,
    /// Its id, of the first of them.
    pub(crate) ids: BTreeSet<JobId>,
    /// A rollback took something of it away: nothing is promised any more.
    pub(crate) excused: bool,
    pub(crate) ended: Option<State>,
    /// How many executors it kills.
    pub(crate) kills: u8,
}

/// One attempt at a job.
#[derive(Clone, Debug, Default)]
pub(crate) struct Attempt {
    pub(crate) tag: u32,
    /// The messages that carry it.
    pub(crate) messages: Vec<u64>,
    pub(crate) starts: Vec<Start>,
    /// How it ended in a handler: when, where, whether well.
    pub(crate) ends: Vec<(Instant, usize, u32, bool)>,
    /// What stands on record: in the log of which message, since when.
    pub(crate) records: Vec<(u64, Instant, State)>,
    pub(crate) buried: bool,
}

/// A handler began.
#[derive(Clone, Debug)]
pub(crate) struct Start {
    pub(crate) at: Instant,
    pub(crate) node: usize,
    pub(crate) life: u32,
    /// The messages that may have brought it: mostly one.
    pub(crate) messages: Vec<u64>,
}

/// A message that was stored.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) id: String,
    pub(crate) run: Option<RunId>,
    pub(crate) lane: Lane,
    pub(crate) at: Instant,
    /// Its jobs: id, attempt, tag.
    pub(crate) jobs: Vec<(JobId, u32, u32)>,
    /// Whether it brings jobs in, and is not a retry or a move.
    pub(crate) birth: bool,
    pub(crate) deliveries: Vec<(Instant, usize, u32)>,
    pub(crate) removed: Option<Instant>,
    /// A rollback took it away.
    pub(crate) undone: bool,
    /// It was acknowledged, and the server has forgotten that.
    pub(crate) back: bool,
}

/// See the module.
pub(crate) struct Truth {
    pub(crate) tags: BTreeMap<u32, Tag>,
    pub(crate) attempts: BTreeMap<(JobId, u32), Attempt>,
    pub(crate) messages: BTreeMap<u64, Message>,
    /// When a node has last seen a message's log, and as it stood at what time.
    looked: BTreeMap<(usize, u32, u64), (Instant, Instant)>,
    /// What disturbed a node, or all of them.
    disturbances: Vec<(Instant, Option<usize>)>,
    drains: Vec<(Instant, usize)>,
    /// When runs of files ended.
    ends: Vec<(Instant, usize)>,
    /// What began again for no reason that is known yet: where and when it had begun, and what to say.
    unexplained: Vec<(usize, Instant, Start, String)>,
    /// Who was told that another has taken which message over.
    fenced: Vec<(Instant, usize, u64)>,
    /// How long ids are remembered.
    window: Duration,
    /// How long quick jobs may wait at most, if the history is one that tells.
    patience: Option<Duration>,
    /// When ids of the dedup window were forgotten.
    forgotten: Vec<Instant>,
    rolled_back: bool,
    pub(crate) violations: Vec<Violation>,
}

impl Truth {
    pub(crate) fn new(window: Duration, patience: Option<Duration>) -> Self {
        Self {
            tags: BTreeMap::new(),
            attempts: BTreeMap::new(),
            messages: BTreeMap::new(),
            looked: BTreeMap::new(),
            disturbances: Vec::new(),
            drains: Vec::new(),
            ends: Vec::new(),
            unexplained: Vec::new(),
            fenced: Vec::new(),
            window,
            patience,
            forgotten: Vec::new(),
            rolled_back: false,
            violations: Vec::new(),
        }
    }

    pub(crate) fn violated(&mut self, what: &'static str, detail: String) {
        self.violations.push(Violation { what, detail: format!("at {} ms: {detail}", clock::elapsed()) });
    }

    /// Somebody is about to ask for this job.
    pub(crate) fn asked(&mut self, tag: u32, way: Way, kills: u8) {
        let new = Tag { way, accepted: None, births: Vec::new(), ids: BTreeSet::new(), excused: false, ended: None, kills };
        self.tags.entry(tag).or_insert(new);
    }

    /// Its producer was told that it is durable.
    pub(crate) fn accepted(&mut self, tag: u32) {
        if let Some(tag) = self.tags.get_mut(&tag) {
            tag.accepted.get_or_insert_with(Instant::now);
        }
    }

    /// Whether `node` was told that another has taken the message over: then it is left to whoever has it, or to its lease.
    pub(crate) fn was_fenced(&self, node: usize, uid: u64) -> bool {
        self.fenced.iter().any(|(_, who, of)| (*who, *of) == (node, uid))
    }

    /// Whether a job of this tag kills its executor once more.
    pub(crate) fn takes_a_life(&mut self, tag: u32) -> bool {
        let Some(tag) = self.tags.get_mut(&tag).filter(|tag| tag.kills > 0) else { return false };
        tag.kills -= 1;
        true
    }

    /// The tag of a job.
    pub(crate) fn tag_of(&self, job: JobId) -> Option<u32> {
        self.attempts.range((job, 0)..=(job, u32::MAX)).next().map(|(_, attempt)| attempt.tag)
    }

    /// Whether the store was ever rolled back.
    pub(crate) fn is_rolled_back(&self) -> bool {
        self.rolled_back
    }

    /// Whether something was taken away of any of these jobs.
    pub(crate) fn is_excused(&self, first: u32, jobs: usize) -> bool {
        (first..).take(jobs).any(|tag| self.tags.get(&tag).is_some_and(|tag| tag.excused))
    }

    /// Something happened to a node, or to all of them.
    pub(crate) fn disturb(&mut self, node: Option<usize>, at: Instant) {
        self.disturbances.push((at, node));
    }

    /// A node is asked to stop: from now on it gives things back.
    pub(crate) fn drains(&mut self, node: usize, at: Instant) {
        self.drains.push((at, node));
    }

    /// The run of a file ends.
    pub(crate) fn ends(&mut self, node: usize, at: Instant) {
        self.ends.push((at, node));
    }

    /// A message is back that had been acknowledged.
    pub(crate) fn back(&mut self, uid: u64) {
        if let Some(message) = self.messages.get_mut(&uid) {
            (message.removed, message.back) = (None, true);
        }
    }

    /// Whether `node` was asked to stop from `from` to `to`.
    pub(crate) fn drained(&self, node: usize, from: Instant, to: Instant) -> bool {
        self.drains.iter().any(|(at, who)| (from..=to).contains(at) && *who == node)
    }

    /// Whether something happened to `node` from `from` to `to`.
    pub(crate) fn disturbed(&self, node: usize, from: Instant, to: Instant) -> bool {
        self.disturbances.iter().any(|(at, who)| (from..=to).contains(at) && who.is_none_or(|who| who == node))
    }

    /// The server has forgotten ids.
    pub(crate) fn forget_ids(&mut self, at: Instant) {
        self.forgotten.push(at);
    }

    /// The store is as it was at `then`.
    pub(crate) fn rolled_back(&mut self, then: Instant) {
        let mut lost = BTreeSet::new();
        for message in self.messages.values_mut().filter(|message| message.at >= then) {
            message.undone = true;
            lost.extend(message.jobs.iter().map(|(_, _, tag)| *tag));
        }
        for message in self.messages.values_mut().filter(|message| message.removed.is_some_and(|at| at >= then)) {
            message.removed = None;
            lost.extend(message.jobs.iter().map(|(_, _, tag)| *tag));
        }
        for attempt in self.attempts.values_mut() {
            if attempt.records.iter().any(|(_, at, _)| *at >= then) {
                lost.insert(attempt.tag);
            }
        }
        for (number, tag) in &mut self.tags {
            // The claim of a request that was not answered before is gone, too.
            let claimed = tag.way == Way::Keyed && tag.accepted.is_none_or(|at| at >= then);
            tag.excused |= claimed || lost.contains(number);
        }
        self.looked.clear();
        self.rolled_back = true;
        self.forget_ids(Instant::now());
        self.disturb(None, Instant::now());
    }
}
