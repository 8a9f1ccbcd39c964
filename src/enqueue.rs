//! Enqueueing a file of jobs: read, cut, publish, with nothing waiting for a round trip but the end.

use std::fmt;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use wf_broker::Broker;
use wf_ingest::{Patience, PublishError, Publisher, Window};
use wf_schema::{BatchId, Limits};

use crate::feed::{Cutter, FeedError, Input, Plan, Wire, cut_ahead, publish};
use crate::progress::{Meter, Progress, Show, grouped};
use crate::tuner::Tuner;

/// How many lines that are no jobs are shown; the rest is counted.
const SHOWN: u64 = 20;
/// How many batches may be under way to the publisher's window.
const UNDER_WAY: usize = 1_024;

/// How a file is to be enqueued.
pub struct EnqueueOptions {
    /// The most jobs in a batch.
    pub batch_jobs: usize,
    /// The most bytes in a batch, before compression.
    pub batch_raw_bytes: usize,
    /// How much may be on its way to the broker.
    pub window: Window,
    /// How long to go on when the broker does not take a batch.
    pub patience: Patience,
    /// What a message may hold.
    pub limits: Limits,
    /// How long a pause in the input may be before the jobs that are there go on their way.
    pub pause: Duration,
    /// Whether progress is shown.
    pub show: Show,
    /// What publishing follows.
    pub tuner: Tuner,
}

/// Why enqueueing did not come to its end. What was stored before stays stored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EnqueueError {
    /// The jobs cannot be read.
    #[error(transparent)]
    Feed(#[from] FeedError),
    /// The broker does not take them.
    #[error("the jobs cannot be published")]
    Publish(#[from] PublishError),
    /// A task ended by itself.
    #[error("publishing ended early")]
    Ended,
}

/// What enqueueing came to.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct EnqueueSummary {
    /// The jobs that are stored.
    pub enqueued: u64,
    /// The lines that are no jobs.
    pub rejected: u64,
    /// Whether it was stopped before the end of the input.
    pub interrupted: bool,
    /// How long it took, in seconds.
    pub elapsed_s: f64,
    /// Jobs by the second.
    pub jobs_per_s: f64,
    /// What a job took on the wire, in bytes.
    pub wire_bytes_per_job: f64,
}

/// Enqueues all jobs of `input`. When it returns, they are durable.
///
/// # Errors
/// When the input cannot be read, or the broker does not store a batch; what was stored before stays stored.
pub async fn enqueue(
    broker: Arc<dyn Broker>,
    input: Input,
    options: EnqueueOptions,
    stop: CancellationToken,
) -> Result<EnqueueSummary, EnqueueError> {
    let start = Instant::now();
    let meter = Arc::new(Meter::default());
    let progress = Progress::start(meter.clone(), "enqueued", input.size, options.show);
    let plan = Plan::new(BatchId::new(), options.batch_jobs, options.batch_raw_bytes, broker.max_message());
    let mut segments = cut_ahead(Cutter::new(input.reader, plan, options.limits, options.pause, false)?, stop.clone());
    let publisher = Publisher::new(broker, options.window).patience(options.patience);
    options.tuner.publisher(&publisher);
    let mut under_way = FuturesUnordered::new();
    let (mut rejected, mut total, mut more) = (0, Wire::default(), true);
    while more || !under_way.is_empty() {
        tokio::select! {
            Some(published) = under_way.next(), if !under_way.is_empty() => {
                let published: Result<_, tokio::task::JoinError> = published;
                let wire = published.map_err(|_| EnqueueError::Ended)??;
                total += wire;
                meter.ended(wire.jobs, 0);
            }
            // Reading may be waiting for input that never comes: it is not waited for. What was read goes out.
            () = stop.cancelled(), if more => more = false,
            segment = segments.recv(), if more && under_way.len() < UNDER_WAY => match segment {
                Some(segment) => {
                    let segment = segment?;
                    meter.read(segment.jobs(), segment.span.bytes);
                    for bad in &segment.bad {
                        rejected += 1;
                        if rejected <= SHOWN {
                            let _unheard = writeln!(std::io::stderr(), "line {}: {}", bad.line, bad.message);
                        }
                    }
                    under_way.extend(segment.batches.into_iter().map(|batch| tokio::spawn(publish(publisher.clone(), batch))));
                }
                None => more = false,
            },
        }
    }
    drop(progress);
    if rejected > SHOWN {
        let _unheard = writeln!(std::io::stderr(), "... and {} more lines that are no jobs", rejected - SHOWN);
    }
    let elapsed = start.elapsed().as_secs_f64().max(1e-6);
    let per_job = if total.jobs == 0 { 0.0 } else { total.bytes as f64 / total.jobs as f64 };
    let tenths = |value: f64| (value * 10.0).round() / 10.0;
    Ok(EnqueueSummary {
        enqueued: total.jobs,
        rejected,
        interrupted: stop.is_cancelled(),
        elapsed_s: (elapsed * 1000.0).round() / 1000.0,
        jobs_per_s: tenths(total.jobs as f64 / elapsed),
        wire_bytes_per_job: tenths(per_job),
    })
}

impl fmt::Display for EnqueueSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<14} {}", "enqueued", grouped(self.enqueued))?;
        writeln!(f, "{:<14} {}", "rejected", grouped(self.rejected))?;
        writeln!(f, "{:<14} {:.3} s", "elapsed", self.elapsed_s)?;
        writeln!(f, "{:<14} {}", "jobs/s", grouped(self.jobs_per_s as u64))?;
        write!(f, "{:<14} {:.1} on the wire", "bytes per job", self.wire_bytes_per_job)?;
        if self.interrupted { write!(f, "\ninterrupted before the end of the input") } else { Ok(()) }
    }
}
