//! A message that is ready to go: what the publisher sends, and what the spool keeps.

use std::sync::Arc;

use bytes::Bytes;
use wf_broker::{Broker, BrokerError, Key, Message, Scheduled, Stored, TRACE_SLACK, Trace};
use wf_schema::{Batch, BatchBuilder, BatchId, Lane, Limits, Millis};

use crate::PublishError;

/// One message, for now or for later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Envelope {
    pub(crate) lane: Lane,
    /// Its id at the broker, and its key if it is for later: both are of the form of a [`Key`].
    pub(crate) id: Arc<str>,
    /// When it falls due, if it is for later.
    pub(crate) due: Option<Millis>,
    /// Which jobs of its batch are in it: the index of the first, and how many follow on it.
    pub(crate) first: u32,
    pub(crate) jobs: u32,
    /// Its batch, and when that was made.
    pub(crate) batch: BatchId,
    pub(crate) made_at: Millis,
    /// For how many seconds the end of its run is remembered.
    pub(crate) remember: u32,
    pub(crate) bytes: Bytes,
}

impl Envelope {
    /// The messages that `batch` takes at a broker whose largest message has `max` bytes.
    pub(crate) fn wrap(lane: &Lane, due: Option<Millis>, batch: &BatchBuilder, max: usize) -> Result<Vec<Self>, PublishError> {
        let whole = batch.encode();
        let header = batch.header();
        let (id, remember) = (header.id, header.remember);
        let made_at = header.enqueued_at.min(id.millis());
        let envelope = |first: u32, jobs: usize, bytes| Self {
            lane: lane.clone(),
            id: part_id(id, first).into(),
            due,
            first,
            jobs: jobs as u32,
            batch: id,
            made_at,
            remember,
            bytes,
        };
        if whole.len() <= max {
            return Ok(vec![envelope(0, batch.len(), whole)]);
        }
        // It was written here, so it is read without limits.
        let no_limits = Limits { raw_bytes: usize::MAX, jobs: usize::MAX, args_bytes: usize::MAX };
        let batch = Batch::decode(&whole, &no_limits).map_err(PublishError::Split)?;
        let parts = batch.encode_within(max).map_err(PublishError::Split)?;
        let part = |bytes| {
            let part = Batch::decode(&bytes, &no_limits).map_err(PublishError::Split)?;
            Ok(envelope(part.get(0).map_or(0, |job| job.index()), part.len(), bytes))
        };
        parts.into_iter().map(part).collect()
    }

    /// The same, with the end of its run remembered for `seconds` at least, if that fits into `max` bytes.
    pub(crate) fn remembered(self, seconds: u32, max: usize) -> Self {
        let no_limits = Limits { raw_bytes: usize::MAX, jobs: usize::MAX, args_bytes: usize::MAX };
        let again = (self.remember < seconds).then(|| Batch::decode(&self.bytes, &no_limits).ok()).flatten();
        // It must stay one message, under its id.
        match again.and_then(|batch| batch.remembered(seconds).encode_within(usize::MAX).ok()).as_deref() {
            Some([bytes]) if bytes.len() <= max => Self { remember: seconds, bytes: bytes.clone(), ..self },
            _ => self,
        }
    }

    /// Its size in bytes.
    pub(crate) fn size(&self) -> usize {
        self.bytes.len()
    }

    /// As a message for now.
    pub(crate) fn message(&self) -> Message {
        Message { lane: self.lane.clone(), id: self.id.clone(), bytes: self.bytes.clone() }
    }

    /// How to find out whether it was stored, at `since` at the earliest.
    pub(crate) fn trace(&self, since: Millis) -> Trace {
        Trace { lane: self.lane.clone(), batch: self.batch, id: Some(self.id.clone()), later: self.due.is_some(), since }
    }

    /// Whether what is not found now was never stored, if it was not stored before `since`: the end of its run would
    /// still be remembered.
    pub(crate) fn leaves_evidence(&self, since: Millis, now: Millis) -> bool {
        let remembered = since.saturating_add(Millis::from(self.remember) * 1_000);
        self.remember > 0 && now.saturating_add(TRACE_SLACK) < remembered
    }

    /// Gives it to `broker`, once.
    pub(crate) async fn give(&self, broker: &dyn Broker) -> Result<Stored, BrokerError> {
        let Some(due) = self.due else { return broker.publish(self.message()).await };
        let key = Key::new(&self.id).map_err(|error| BrokerError::fatal("name the schedule", error))?;
        let scheduled = Scheduled { lane: self.lane.clone(), key, due, bytes: self.bytes.clone() };
        broker.publish_at(scheduled).await.map(|()| Stored { duplicate: false })
    }
}

/// What the part of a split batch whose first job has the index `first` is called.
fn part_id(batch: BatchId, first: u32) -> String {
    match first {
        0 => batch.to_string(),
        first => format!("{batch}.{first}"),
    }
}
