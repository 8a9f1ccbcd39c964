//! A record of what became of jobs: the outcomes of one step of one run, in one message.
//!
//! The record is the commit point of settling: what is in it has happened. [`RecordBuilder`] writes one, [`Record`]
//! reads one. Columnar like a batch: outcomes that are all alike (completed, first attempt) cost next to nothing.

mod builder;
mod layout;
mod mark;

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::column::Span;
use crate::frame::Content;
use crate::{BatchId, Failure, Format, JobId, Kind, Lane, Limits, Millis, RunId, State, WireError, frame};

pub use builder::RecordBuilder;
pub use mark::Mark;

/// What all outcomes of a record share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordHeader {
    /// The batch the jobs were born in.
    pub batch: BatchId,
    /// The run they were settled in.
    pub run: RunId,
    /// Which record of that run this is, from 0.
    pub step: u32,
    /// A number that only the writer has: how it knows its own record when the answer to its append was lost.
    pub writer: u64,
    /// The executor that wrote it.
    pub executor: String,
    /// When it was written.
    pub at: Millis,
    /// The lane the jobs came from.
    pub lane: Lane,
    /// How the results are written.
    pub format: Format,
    /// The largest message, in bytes, into which several jobs are put together that go on or have died. Whoever repeats
    /// the publications of the record cuts them as its writer did, whatever its own broker connection takes.
    pub cut: u32,
}

/// A record as it was read.
#[derive(Clone, Debug)]
pub struct Record {
    header: RecordHeader,
    kinds: Arc<[Kind]>,
    slots: Vec<Slot>,
    results: Bytes,
    failures: Vec<Failed>,
    mark: Option<Mark>,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    index: u32,
    attempt: u32,
    kind: u16,
    state: State,
    /// Where the result is within `results`.
    result: Span,
    /// The place in `failures`, if this one failed.
    failure: Option<u32>,
}

/// What only attempts that did not complete have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Failed {
    failure: Option<Failure>,
    retry_at: Option<Millis>,
}

impl Record {
    /// Reads an enveloped record.
    ///
    /// The memory taken is bounded by `limits`, whatever the message claims: `raw_bytes` for the body (none if it is
    /// not compressed: the message itself is shared), some 100 bytes for each of up to `jobs` outcomes, and the texts of
    /// the failures, which are part of the body, once more.
    ///
    /// # Errors
    /// When the message is not a whole record of a version this program knows, within `limits`.
    pub fn decode(message: &Bytes, limits: &Limits) -> Result<Self, WireError> {
        let (content, body) = frame::open_one_of(message, &[Content::Record, Content::MarkedRecord], limits)?;
        layout::decode(&body, content == Content::MarkedRecord, limits)
    }

    /// What it marks, if it marks anything.
    pub fn mark(&self) -> Option<&Mark> {
        self.mark.as_ref()
    }

    /// What all the outcomes share.
    pub fn header(&self) -> &RecordHeader {
        &self.header
    }

    /// The number of outcomes.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there are no outcomes.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// All outcomes, in the order they were settled.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = OutcomeView<'_>> {
        self.slots.iter().map(|slot| OutcomeView { record: self, slot: *slot })
    }
}

/// One outcome of a [`Record`].
#[derive(Clone, Copy, Debug)]
pub struct OutcomeView<'a> {
    record: &'a Record,
    slot: Slot,
}

impl<'a> OutcomeView<'a> {
    /// The job.
    pub fn id(&self) -> JobId {
        JobId { batch: self.record.header.batch, index: self.slot.index }
    }

    /// The job's index in its batch.
    pub fn index(&self) -> u32 {
        self.slot.index
    }

    /// Which attempt it was, from 1.
    pub fn attempt(&self) -> u32 {
        self.slot.attempt
    }

    /// The job's kind.
    pub fn kind(&self) -> &'a Kind {
        &self.record.kinds[self.slot.kind as usize]
    }

    /// How the attempt ended.
    pub fn state(&self) -> State {
        self.slot.state
    }

    /// The result, if it completed: in the record's format. Empty if the job asked for none to be stored.
    pub fn result(&self) -> &'a [u8] {
        self.record.results.get(self.slot.result.range()).unwrap_or_default()
    }

    /// Why it did not complete.
    pub fn failure(&self) -> Option<&'a Failure> {
        self.failed()?.failure.as_ref()
    }

    /// When the job is tried again, or started elsewhere, if it is.
    pub fn retry_at(&self) -> Option<Millis> {
        self.failed()?.retry_at
    }

    fn failed(&self) -> Option<&'a Failed> {
        self.record.failures.get(self.slot.failure? as usize)
    }
}
