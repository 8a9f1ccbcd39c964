//! What is stored: each job once, as far as that is promised.

use bytes::Bytes;
use serde::Deserialize;
use tokio::time::Instant;
use wf_schema::{Batch, BatchId, DeadLetter, Format, Header, JobId, Lane, Limits, RunId};

use super::{Message, Truth, Way};

/// What handlers of the simulation are given.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Args {
    pub(crate) tag: u32,
    #[serde(default)]
    pub(crate) ms: u32,
    #[serde(default)]
    pub(crate) fails: u8,
    #[serde(default)]
    pub(crate) permanent: bool,
}

/// The jobs of a message: id, attempt, tag.
pub(crate) fn jobs(bytes: &Bytes, lane: &Lane, fallback: BatchId) -> Vec<(JobId, u32, u32)> {
    let limits = Limits::default();
    let batch = if Batch::is_framed(bytes) {
        Batch::decode(bytes, &limits).ok()
    } else {
        Batch::from_json(bytes, lane, Header::new(fallback, Format::Json), &limits).ok().map(|read| read.batch)
    };
    let tag = |args: &[u8]| serde_json::from_slice::<Args>(args).map(|args| args.tag).unwrap_or_default();
    batch.map(|batch| batch.iter().map(|job| (job.id(), job.attempt(), tag(job.args()))).collect()).unwrap_or_default()
}

impl Truth {
    /// A message was stored, to be delivered now or later.
    pub(crate) fn stored(&mut self, uid: u64, run: Option<RunId>, lane: &Lane, id: &str, bytes: &Bytes, fallback: BatchId) {
        let jobs = jobs(bytes, lane, fallback);
        // What executors publish is named after batch, run, step, what and first job.
        let birth = id.matches('.').count() < 2;
        let now = Instant::now();
        for (job, attempt, tag) in &jobs {
            if birth {
                self.born(*tag, *job, uid, id);
            } else {
                self.again((*job, *attempt), uid, id);
            }
            let known = self.attempts.entry((*job, *attempt)).or_default();
            known.tag = *tag;
            known.messages.push(uid);
        }
        let message = Message {
            id: id.to_owned(),
            run,
            lane: lane.clone(),
            at: now,
            jobs,
            birth,
            deliveries: Vec::new(),
            removed: None,
            undone: false,
            back: false,
        };
        self.messages.insert(uid, message);
    }

    /// A message for later was put into its lane.
    pub(crate) fn fired(&mut self, uid: u64, run: RunId) {
        if let Some(message) = self.messages.get_mut(&uid) {
            message.run = Some(run);
        }
    }

    /// A message for later was replaced before it was due.
    pub(crate) fn replaced(&mut self, uid: u64) {
        if let Some(message) = self.messages.get_mut(&uid) {
            message.undone = true;
        }
    }

    fn born(&mut self, tag: u32, job: JobId, uid: u64, id: &str) {
        let Some(known) = self.tags.get(&tag) else { return };
        let before: Vec<u64> =
            known.births.iter().copied().filter(|uid| self.messages.get(uid).is_some_and(|message| !message.undone)).collect();
        let (way, excused) = (known.way, known.excused);
        if let Some(first) = before.first().and_then(|uid| self.messages.get(uid)).filter(|_| !excused) {
            let first_id = first.id.clone();
            match way {
                Way::Keyed => self.violated("keyed twice", format!("job {tag} is stored twice: as {first_id} and as {id}")),
                Way::File => self.violated("file twice", format!("job {tag} is stored twice: as {first_id} and as {id}")),
                Way::Plain if first_id != id => {
                    self.violated("two ids", format!("job {tag} is stored under two ids: {first_id} and {id}"));
                }
                // The server has forgotten the id: best effort, and said so.
                Way::Plain => {}
            }
        }
        if let Some(known) = self.tags.get_mut(&tag) {
            known.births.push(uid);
            known.ids.insert(job);
        }
    }

    /// A retry or a move is stored: once, as long as the server knows its name.
    fn again(&mut self, which: (JobId, u32), _uid: u64, id: &str) {
        let Some(attempt) = self.attempts.get(&which) else { return };
        let excused = self.tags.get(&attempt.tag).is_none_or(|tag| tag.excused);
        let same = attempt.messages.iter().filter_map(|uid| self.messages.get(uid)).find(|m| m.id == id && !m.undone);
        let Some(first) = same.filter(|_| !excused) else { return };
        let since = first.at;
        if !self.forgotten.iter().any(|at| *at >= since) && since + self.window > Instant::now() {
            self.violated("retry twice", format!("{id} is stored twice, and its name was not forgotten"));
        }
    }

    /// A dead letter was stored.
    pub(crate) fn buried(&mut self, bytes: &Bytes) {
        let limits = Limits::default();
        let batch = DeadLetter::decode(bytes, &limits).ok().and_then(|letter| letter.jobs(&limits).ok().flatten());
        for job in batch.iter().flat_map(Batch::iter) {
            if let Some(attempt) = self.attempts.get_mut(&(job.id(), job.attempt())) {
                attempt.buried = true;
            }
        }
    }
}
