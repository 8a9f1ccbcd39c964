//! A batch: the jobs of one lane that travel as one message.
//!
//! [`BatchBuilder`] writes one, [`Batch`] reads one. On the wire it is columnar (see `layout`): tables of the distinct
//! kinds and policies, then small columns, then all args in one piece; reading shares the memory of the message.

mod builder;
mod json;
mod layout;

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::column::Span;
use crate::{BatchId, Format, JobId, Kind, Limits, Millis, PastFailure, Policy, WireError, frame, now};

pub use builder::{BatchBuilder, PushError};
pub use json::{BadItem, JsonBatch};

/// What all jobs of a batch share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The batch the jobs were born in. A message of retried or moved jobs carries the id of their origin.
    pub id: BatchId,
    /// When the jobs were enqueued, first of all.
    pub enqueued_at: Millis,
    /// When they fell due, if they were scheduled or retried. The wait of a job starts here.
    pub due: Option<Millis>,
    /// How args are written, and results will be.
    pub format: Format,
    /// How often the jobs were moved from one executor to another.
    pub hops: u8,
    /// The trace they belong to: a W3C `traceparent`, at most [`Limits::TRACE`] bytes.
    pub trace: Option<String>,
    /// For how long, in seconds, the broker is to remember that the message was settled, from then on; 0 is not at all.
    /// For whoever may have to find out later whether it was ever stored.
    pub remember: u32,
}

impl Header {
    /// The header of a batch enqueued now.
    pub fn new(id: BatchId, format: Format) -> Self {
        Self { id, enqueued_at: now(), due: None, format, hops: 0, trace: None, remember: 0 }
    }

    /// When the jobs could first be started.
    pub fn available_at(&self) -> Millis {
        self.due.unwrap_or(self.enqueued_at)
    }
}

/// A batch as it was read: a table of contents over the message's own bytes.
#[derive(Clone, Debug)]
pub struct Batch {
    header: Header,
    kinds: Arc<[Kind]>,
    policies: Arc<[Policy]>,
    slots: Vec<Slot>,
    /// Holds the args of all jobs.
    args: Bytes,
    /// Holds the past failures of all jobs, each job's as postcard.
    histories: Bytes,
}

/// Where the parts of one job are.
#[derive(Clone, Copy, Debug)]
struct Slot {
    index: u32,
    attempt: u32,
    kind: u16,
    policy: u16,
    args: Span,
    history: Span,
}

impl Batch {
    /// Reads an enveloped batch.
    ///
    /// The memory taken is bounded by `limits`, whatever the message claims: `raw_bytes` for the body (none if it is
    /// not compressed: the message itself is shared) and 28 bytes for each of up to `jobs` jobs. Policies come out within
    /// the limits of [`Policy`], whatever was written.
    ///
    /// # Errors
    /// When the message is not a whole batch of a version this program knows, within `limits`.
    pub fn decode(message: &Bytes, limits: &Limits) -> Result<Self, WireError> {
        layout::decode(&frame::open(message, frame::Content::Batch, limits)?, limits)
    }

    /// Whether `message` is meant to be an enveloped message of Work Factory, rather than JSON.
    pub fn is_framed(message: &[u8]) -> bool {
        frame::is_framed(message)
    }

    /// Whether `message` is meant to be JSON: one job, an array, or a job a line.
    pub fn is_json(message: &[u8]) -> bool {
        matches!(message.iter().find(|b| !b.is_ascii_whitespace()), Some(b'{' | b'['))
    }

    /// What all the jobs share.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The same jobs, with the end of their run remembered for `seconds`.
    pub fn remembered(mut self, seconds: u32) -> Self {
        self.header.remember = seconds;
        self
    }

    /// The same jobs under another batch id: each tick of a cron is a batch of its own.
    pub fn with_id(mut self, id: BatchId) -> Self {
        self.header.id = id;
        self
    }

    /// The number of jobs.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there are no jobs.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The distinct kinds; [`JobView::kind_slot`] points here.
    pub fn kinds(&self) -> &Arc<[Kind]> {
        &self.kinds
    }

    /// The job at `place`, from 0 to `len`.
    #[inline]
    pub fn get(&self, place: usize) -> Option<JobView<'_>> {
        self.slots.get(place).map(|slot| JobView { batch: self, slot: *slot })
    }

    /// All jobs in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = JobView<'_>> {
        self.slots.iter().map(|slot| JobView { batch: self, slot: *slot })
    }

    /// The batch as messages of at most `max` bytes each: one if it fits, else halves of halves, whose jobs keep
    /// their ids.
    ///
    /// # Errors
    /// When a single job alone is larger than `max`.
    pub fn encode_within(&self, max: usize) -> Result<Vec<Bytes>, WireError> {
        let mut done = Vec::new();
        let mut open = vec![(0, self.len())];
        while let Some((start, end)) = open.pop() {
            let message = self.encode_part(&self.slots[start..end]);
            let single = end - start <= 1;
            match message {
                Ok(bytes) if bytes.len() <= max => done.push(bytes),
                Ok(bytes) if single => {
                    return Err(WireError::Limit { what: "the size of a job on the wire", value: bytes.len(), limit: max });
                }
                Err(error) if single => return Err(error.into()),
                // Too large, or (read from JSON) of more kinds or policies than one batch holds.
                _ => {
                    let half = start + (end - start) / 2;
                    // The stack gives back what was put last, so the second half goes in first.
                    open.push((half, end));
                    open.push((start, half));
                }
            }
        }
        Ok(done)
    }

    fn encode_part(&self, slots: &[Slot]) -> Result<Bytes, PushError> {
        let mut builder = BatchBuilder::new(self.header.clone());
        for slot in slots {
            builder.carry(&JobView { batch: self, slot: *slot }, slot.attempt, None)?;
        }
        Ok(builder.encode())
    }
}

/// One job of a [`Batch`].
#[derive(Clone, Copy, Debug)]
pub struct JobView<'a> {
    batch: &'a Batch,
    slot: Slot,
}

impl<'a> JobView<'a> {
    /// The job's id.
    pub fn id(&self) -> JobId {
        JobId { batch: self.batch.header.id, index: self.slot.index }
    }

    /// The job's index in the batch it was born in.
    #[inline]
    pub fn index(&self) -> u32 {
        self.slot.index
    }

    /// Which attempt this is, from 1.
    #[inline]
    pub fn attempt(&self) -> u32 {
        self.slot.attempt
    }

    /// The job's kind.
    pub fn kind(&self) -> &'a Kind {
        &self.batch.kinds[self.slot.kind as usize]
    }

    /// The kind's place in [`Batch::kinds`].
    #[inline]
    pub fn kind_slot(&self) -> usize {
        self.slot.kind as usize
    }

    /// How the job is to be treated.
    #[inline]
    pub fn policy(&self) -> &'a Policy {
        &self.batch.policies[self.slot.policy as usize]
    }

    /// What its handler is given.
    #[inline]
    pub fn args(&self) -> &'a [u8] {
        // Spans are made by `layout` and `json`, which keep them inside.
        self.batch.args.get(self.slot.args.range()).unwrap_or_default()
    }

    /// The same, sharing the message's memory: for work that outlives the batch.
    pub fn args_shared(&self) -> Bytes {
        self.batch.args.slice_ref(self.args())
    }

    /// The attempts that failed before, the oldest first; empty if they cannot be read.
    pub fn history(&self) -> Vec<PastFailure> {
        layout::decode_history(self.raw_history())
    }

    fn raw_history(&self) -> &'a [u8] {
        self.batch.histories.get(self.slot.history.range()).unwrap_or_default()
    }
}
