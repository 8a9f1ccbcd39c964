//! A message that is ready to go: what the publisher sends, and what the spool keeps.

use std::sync::Arc;

use bytes::Bytes;
use wf_broker::{Broker, BrokerError, Key, Message, Scheduled, Stored};
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
    /// How many jobs are in it.
    pub(crate) jobs: u32,
    pub(crate) bytes: Bytes,
}

impl Envelope {
    /// The messages that `batch` takes at a broker whose largest message has `max` bytes.
    pub(crate) fn wrap(lane: &Lane, due: Option<Millis>, batch: &BatchBuilder, max: usize) -> Result<Vec<Self>, PublishError> {
        let whole = batch.encode();
        let id = batch.header().id;
        let envelope = |id: String, jobs: usize, bytes| Self { lane: lane.clone(), id: id.into(), due, jobs: jobs as u32, bytes };
        if whole.len() <= max {
            return Ok(vec![envelope(id.to_string(), batch.len(), whole)]);
        }
        // It was written here, so it is read without limits.
        let no_limits = Limits { raw_bytes: usize::MAX, jobs: usize::MAX, args_bytes: usize::MAX };
        let batch = Batch::decode(&whole, &no_limits).map_err(PublishError::Split)?;
        let parts = batch.encode_within(max).map_err(PublishError::Split)?;
        let part = |bytes| {
            let part = Batch::decode(&bytes, &no_limits).map_err(PublishError::Split)?;
            Ok(envelope(part_id(id, part.get(0).map_or(0, |job| job.index())), part.len(), bytes))
        };
        parts.into_iter().map(part).collect()
    }

    /// Its size in bytes.
    pub(crate) fn size(&self) -> usize {
        self.bytes.len()
    }

    /// As a message for now.
    pub(crate) fn message(&self) -> Message {
        Message { lane: self.lane.clone(), id: self.id.clone(), bytes: self.bytes.clone() }
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
