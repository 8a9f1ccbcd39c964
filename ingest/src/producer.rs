//! Takes jobs from callers and sees them into the broker in shared batches.

mod admission;
mod bulk;
mod carrier;
mod pace;

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use wf_broker::Broker;
use wf_schema::{Job, JobError, JobId, Kind, Limits, Policy, now};

use crate::batcher::Incoming;
use crate::breaker::Breaker;
use crate::group::{ArgsRow, Group};
use crate::schedule;
use crate::{EnqueueError, IdRange, ProducerOptions, Publisher, PublisherStats, Receipt};

pub(crate) use bulk::Bulk;
use carrier::Carrier;
pub use pace::{Pace, PaceSetter};

/// Takes jobs. Those of many callers share batches; nobody waits for a round trip of its own.
///
/// Cheap to clone. What the last clone leaves behind in open batches still goes on its way, but only
/// [`Producer::close`] waits for it.
///
/// ```no_run
/// # async fn example(broker: std::sync::Arc<dyn wf_broker::Broker>) -> Result<(), Box<dyn std::error::Error>> {
/// use wf_ingest::{Producer, ProducerOptions};
/// use wf_schema::Job;
///
/// let producer = Producer::new(broker, ProducerOptions::default());
/// let id = producer.enqueue(Job::new("math_add", &serde_json::json!({"a": 1, "b": 2}))?).await?;
/// println!("{id} is stored");
/// producer.close().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Producer {
    carrier: Arc<Carrier>,
    limits: Limits,
    _owner: Arc<Owner>,
}

/// Tells the carrier when nobody can give it jobs any more.
struct Owner(CancellationToken);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// A job that was taken and may not be stored yet.
#[derive(Clone, Debug)]
pub struct Submitted {
    /// Its id.
    pub id: JobId,
    /// Await it to know that the job is stored.
    pub stored: Receipt,
}

impl Producer {
    /// Publishes to `broker`. Must be called inside a tokio runtime; the work is done there.
    pub fn new(broker: Arc<dyn Broker>, options: ProducerOptions) -> Self {
        let breaker = Breaker::new(broker.clone(), options.unreachable_after);
        let publisher = Publisher::new(broker, options.window).patience(options.patience).guarded(breaker, options.spool.clone());
        if let Some(spool) = &options.spool {
            spool.ship(publisher.without_spool());
        }
        // A job that no message can hold would take its whole batch down with it, so it is refused at the door.
        let largest = publisher.broker().max_message().saturating_sub(ENVELOPE);
        let args_bytes = options.args_limit.min(Limits::default().args_bytes).min(largest);
        let limits = Limits { args_bytes, ..Limits::default() };
        let closing = CancellationToken::new();
        let carrier = Carrier::start(publisher, options, closing.clone());
        Self { carrier, limits, _owner: Arc::new(Owner(closing)) }
    }

    /// Enqueues `job` and waits until it is durable.
    ///
    /// # Errors
    /// When it is no job, when there was no room for it, or when the broker did not take it. What is retryable is
    /// said by [`EnqueueError::is_retryable`].
    pub async fn enqueue(&self, job: Job<'_>) -> Result<JobId, EnqueueError> {
        let Submitted { id, stored } = self.submit(job).await?;
        stored.stored().await?;
        Ok(id)
    }

    /// Takes `job` and answers with its id before it is durable; it may still be lost with this process. Waits for
    /// room only.
    ///
    /// # Errors
    /// As [`Producer::enqueue`]; what the broker says comes with the receipt.
    pub async fn submit(&self, job: Job<'_>) -> Result<Submitted, EnqueueError> {
        self.submit_traced(&job, None).await
    }

    /// The same with the trace that the job belongs to, a W3C `traceparent`. It travels if the job leaves alone.
    pub(crate) async fn submit_traced(&self, job: &Job<'_>, trace: Option<&str>) -> Result<Submitted, EnqueueError> {
        let incoming = Incoming { trace, ..self.admit_one(job)? };
        let mut submitted = None;
        let put = |_, _, id, stored: &Receipt| submitted = Some(Submitted { id, stored: stored.clone() });
        self.carrier.take(&[incoming], false, put).await?;
        submitted.ok_or(EnqueueError::Closed)
    }

    /// Enqueues all of `jobs` and waits until they are durable: their ids, in order.
    ///
    /// # Errors
    /// The first thing that went wrong, once nothing of it is on its way any more. Jobs before and behind the one that
    /// it befell may be stored; those behind a job that is none are not taken.
    pub async fn enqueue_all<'a>(&self, jobs: impl IntoIterator<Item = Job<'a>>) -> Result<Vec<IdRange>, EnqueueError> {
        let mut bulk = self.bulk(usize::MAX);
        let mut stopped = Ok(());
        let (mut first, mut group) = (0, Group::default());
        for job in jobs {
            if !group.takes(&job) {
                stopped = bulk.push(first, &group).await;
                if stopped.is_err() {
                    break;
                }
                first += group.len() as u64;
                group.clear();
            }
            group.add(&job);
        }
        if stopped.is_ok() {
            stopped = bulk.push(first, &group).await;
        }
        let tallied = bulk.finish().await;
        if let Some(failed) = tallied.failed.into_iter().next() {
            return Err(failed.error);
        }
        stopped?;
        Ok(tallied.ids.into_iter().map(|(_, ids)| ids).collect())
    }

    /// Waits until everything taken so far is durable, without lingering.
    ///
    /// # Errors
    /// The first thing that went wrong with what was on its way when this was called.
    pub async fn flush(&self) -> Result<(), EnqueueError> {
        self.carrier.flush().await
    }

    /// Takes no more jobs, also from clones, and waits until everything taken so far was answered.
    ///
    /// # Errors
    /// As [`Producer::flush`].
    pub async fn close(&self) -> Result<(), EnqueueError> {
        self.carrier.close().await
    }

    /// What was published so far, and what is on its way.
    pub fn stats(&self) -> PublisherStats {
        self.carrier.publisher().stats()
    }

    /// The most bytes of jobs that ever waited in memory for their batch to leave.
    pub fn most_held(&self) -> usize {
        self.carrier.most_held()
    }

    /// What a job may be, for whoever parses them.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(crate) fn publisher(&self) -> &Publisher {
        self.carrier.publisher()
    }

    pub(crate) fn options(&self) -> &ProducerOptions {
        self.carrier.options()
    }

    /// A bulk request, with ids and failures listed up to `listed` ranges.
    pub(crate) fn bulk(&self, listed: usize) -> Bulk {
        Bulk::new(self.clone(), listed)
    }

    /// What the batcher must know of jobs like `job` with these `args`, up to the first whose args are too large. A job made
    /// by hand may hold anything, and one that readers refuse would make its whole batch unreadable.
    ///
    /// # Errors
    /// When the first cannot be run at all.
    pub(crate) fn admit<'a>(&self, job: &'a Job<'_>, args: ArgsRow<'a>) -> Result<Incoming<'a>, EnqueueError> {
        Kind::check(&job.kind).map_err(JobError::from)?;
        if !(1..=Policy::MAX_ATTEMPTS).contains(&job.policy.max_attempts) {
            let limit = format!("from 1 (no retries) to {}", Policy::MAX_ATTEMPTS);
            return Err(JobError::Limit { field: "max_attempts", value: job.policy.max_attempts.to_string(), limit }.into());
        }
        let most = self.limits.args_bytes;
        let size = |n: usize| args.get(n).map_or(0, <[u8]>::len);
        let fitting = (0..args.len()).take_while(|n| size(*n) <= most).count();
        if fitting == 0 {
            let limit = format!("at most {most} bytes: put large inputs elsewhere and pass where they are");
            return Err(JobError::Limit { field: "args", value: format!("{} bytes long", size(0)), limit }.into());
        }
        let run_time = self.options().run_times.as_ref().map_or(Duration::ZERO, |times| times.expected(&job.kind));
        // The clock is read for scheduled jobs only.
        let due = job.run_at.and_then(|at| schedule::due(Some(at), now()));
        Ok(Incoming { job, args: args.first(fitting), due, run_time, trace: None })
    }

    /// The same for a single job.
    ///
    /// # Errors
    /// When it cannot be run at all.
    pub(crate) fn admit_one<'a>(&self, job: &'a Job<'_>) -> Result<Incoming<'a>, EnqueueError> {
        self.admit(job, ArgsRow::One(&job.args))
    }
}

/// What a message of a single job takes beside its args, at most: envelope, header, kind and policy. Bytes.
const ENVELOPE: usize = 1_024;
