//! Cutting ahead, and publishing what was cut.

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use wf_ingest::{PublishError, Publisher};

use super::{CutBatch, Cutter, Due, FeedError, Segment};

/// How many segments may be cut ahead of publishing.
const CUT_AHEAD: usize = 2;

/// How much a number of jobs took on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wire {
    /// Bytes of messages.
    pub bytes: u64,
    /// Jobs in them.
    pub jobs: u64,
}

impl std::ops::AddAssign for Wire {
    fn add_assign(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.jobs += other.jobs;
    }
}

/// Cuts the input on a thread of its own, a little ahead, until it ends, fails, or `stop` is cancelled.
pub fn cut_ahead(mut cutter: Cutter, stop: CancellationToken) -> mpsc::Receiver<Result<Segment, FeedError>> {
    let (sender, receiver) = mpsc::channel(CUT_AHEAD);
    tokio::task::spawn_blocking(move || {
        while !stop.is_cancelled()
            && let Some(segment) = cutter.cut_next().transpose()
        {
            let failed = segment.is_err();
            if sender.blocking_send(segment).is_err() || failed {
                return;
            }
        }
    });
    receiver
}

/// The same on the caller's runtime, a segment at a time: for the simulator.
#[doc(hidden)]
pub fn cut_here(mut cutter: Cutter, stop: CancellationToken) -> mpsc::Receiver<Result<Segment, FeedError>> {
    let (sender, receiver) = mpsc::channel(CUT_AHEAD);
    tokio::spawn(async move {
        while !stop.is_cancelled()
            && let Some(segment) = cutter.cut_next().transpose()
        {
            let failed = segment.is_err();
            if sender.send(segment).await.is_err() || failed {
                return;
            }
        }
    });
    receiver
}

/// Publishes a batch and waits until it is durable.
///
/// # Errors
/// When the broker does not take it, also after the publisher's patience.
pub async fn publish(publisher: Publisher, batch: CutBatch) -> Result<Wire, PublishError> {
    let jobs = batch.builder.len() as u64;
    let sending = match batch.due {
        Due::Now => publisher.send(batch.lane, &batch.builder).await?,
        Due::At(due) => publisher.send_at(batch.lane, due, &batch.builder).await?,
    };
    let published = sending.await?;
    Ok(Wire { bytes: published.wire_bytes as u64, jobs })
}
