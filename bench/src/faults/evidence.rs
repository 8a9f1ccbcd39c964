//! What is known of a round: what producers were told, what handlers did, what the broker has on record, what was done
//! to them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Context;
use wf_schema::{JobId, RunId, State};

use super::journal::{self, Entry, Told};

/// Everything that is known of a round. Times are those of the round's clock, in milliseconds.
#[derive(Debug, Default)]
pub(crate) struct Evidence {
    /// By key.
    pub(crate) asked: BTreeMap<String, Asked>,
    pub(crate) runs: Vec<Run>,
    pub(crate) settled: Vec<Settled>,
    /// When each key became a dead letter.
    pub(crate) dead: BTreeMap<String, u64>,
    /// The keys of jobs that still wait at the broker, or in a spool.
    pub(crate) waiting: BTreeSet<String>,
    pub(crate) disturbances: Vec<Disturbance>,
    /// When it was no longer looked.
    pub(crate) end: u64,
    /// The lease of the factory.
    pub(crate) lease: u64,
    /// How much longer than a lease nothing may happen: a redelivery is noticed and on its way, a leader elected.
    pub(crate) margin: u64,
    /// Whether no node may begin a run that it has begun before.
    pub(crate) begins_once: bool,
    /// How long the longest job takes.
    pub(crate) longest_job: u64,
}

/// A job as its producer saw it.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    /// It was sent under a name of its own, so sending it again must not double it.
    pub(crate) once: bool,
    /// When it was sent, each time.
    pub(crate) sent: Vec<u64>,
    pub(crate) told: Vec<(u64, Told)>,
}

impl Asked {
    /// When it was accepted, and whether by a spool.
    pub(crate) fn accepted(&self) -> Option<(u64, bool)> {
        self.told.iter().find_map(|(at, told)| match told {
            Told::Accepted { spool } => Some((*at, *spool)),
            _ => None,
        })
    }

    /// Whether the producer has reason to believe that it is not stored: every time it sent it, it was told so.
    pub(crate) fn refused(&self) -> bool {
        self.told.len() == self.sent.len() && self.told.iter().all(|(_, told)| matches!(told, Told::Refused { .. }))
    }
}

/// One beginning of one attempt, in a handler.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) key: String,
    pub(crate) id: JobId,
    pub(crate) attempt: u32,
    /// Which node it was on, and which of the processes that the node has been.
    pub(crate) node: String,
    pub(crate) process: u32,
    pub(crate) begun: u64,
    /// When it ended, and whether well. A run that was killed has no end.
    pub(crate) ended: Option<(u64, bool)>,
}

/// An outcome on record.
#[derive(Clone, Debug)]
pub(crate) struct Settled {
    pub(crate) id: JobId,
    pub(crate) attempt: u32,
    pub(crate) run: RunId,
    pub(crate) state: State,
    /// When the broker stored it.
    pub(crate) at: u64,
}

/// Something that was done to the factory on purpose.
#[derive(Clone, Debug)]
pub(crate) struct Disturbance {
    pub(crate) what: String,
    pub(crate) whom: Whom,
    pub(crate) from: u64,
    pub(crate) until: u64,
}

/// Whom a disturbance reaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Whom {
    /// The broker, and so everybody.
    Broker,
    /// Whoever gives it jobs.
    Producers,
    /// All executors.
    Executors,
    /// One node.
    Node(String),
}

impl Disturbance {
    /// Whether it reaches what runs on the executor `node`.
    pub(crate) fn reaches(&self, node: &str) -> bool {
        match &self.whom {
            Whom::Broker | Whom::Executors => true,
            Whom::Producers => false,
            Whom::Node(name) => name == node,
        }
    }
}

impl Evidence {
    /// Adds what stands in the journals in `folder`: `<node>.<process>.journal`.
    ///
    /// # Errors
    /// When one of them cannot be read.
    pub(crate) fn add_journals(&mut self, folder: &Path) -> anyhow::Result<()> {
        for file in std::fs::read_dir(folder).with_context(|| format!("no folder at {}", folder.display()))? {
            let path = file?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let Some((node, process)) = name.strip_suffix(".journal").and_then(|name| name.rsplit_once('.')) else { continue };
            self.add(node, process.parse()?, journal::read(&path)?);
        }
        Ok(())
    }

    fn add(&mut self, node: &str, process: u32, lines: Vec<journal::Line>) {
        // Where the run of (job, attempt) that has not ended is.
        let mut open: BTreeMap<(JobId, u32), usize> = BTreeMap::new();
        for journal::Line { at, entry } in lines {
            match entry {
                Entry::Intent { key, once } => {
                    let asked = self.asked.entry(key).or_default();
                    asked.once = once;
                    asked.sent.push(at);
                }
                Entry::Answer { key, told } => self.asked.entry(key).or_default().told.push((at, told)),
                Entry::Begun { key, id, attempt } => {
                    open.insert((id, attempt), self.runs.len());
                    self.runs.push(Run { key, id, attempt, node: node.to_owned(), process, begun: at, ended: None });
                }
                Entry::Ended { id, attempt, completed, .. } => {
                    if let Some(at_run) = open.remove(&(id, attempt)) {
                        self.runs[at_run].ended = Some((at, completed));
                    }
                }
            }
        }
    }

    /// When each key first had an outcome: completed, or a dead letter.
    pub(crate) fn outcomes(&self) -> BTreeMap<&str, u64> {
        let mut outcomes: BTreeMap<&str, u64> = self.dead.iter().map(|(key, at)| (key.as_str(), *at)).collect();
        for run in &self.runs {
            if let Some((at, true)) = run.ended {
                outcomes.entry(&run.key).and_modify(|first| *first = at.min(*first)).or_insert(at);
            }
        }
        outcomes
    }

    /// The keys that were accepted and have no outcome yet.
    pub(crate) fn open(&self) -> Vec<&str> {
        let outcomes = self.outcomes();
        let open = |(key, asked): (&'_ String, &Asked)| asked.accepted().is_some() && !outcomes.contains_key(key.as_str());
        self.asked.iter().filter(|(key, asked)| open((key, asked))).map(|(key, _)| key.as_str()).collect()
    }
}
