//! The parts of a run, put together.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use wf_broker::{Broker, BrokerError};
use wf_executor::{Executor, ExecutorError, ExecutorOptions, Registry};
use wf_ingest::{Fate, Patience, PublishError, Publisher, Window};
use wf_schema::{BatchId, Limits};

use super::collector::{Announced, Collector, Expected, ExpectedBatch};
use super::counts::Why;
use super::destination::{Destination, Opened, Reported, ResultsError};
use super::journal::{Earlier, Journal, JournalError};
use super::results::{Outlet, Results};
use super::{Counts, Summary};
use crate::feed::{self, Cutter, FeedError, Input, Plan, Segment, Span, Wire, cut_ahead, cut_here};
use crate::progress::{Meter, Progress, Show};
use crate::tuner::Tuner;

/// How many batches may be published and not settled.
const OPEN_BATCHES: usize = 4_096;
/// How long a pause in the input may be before the jobs that are there go on their way.
const PATIENCE: Duration = Duration::from_millis(20);

/// How a run is to be made.
pub struct RunOptions {
    /// Where outcomes go; `None` is standard output.
    pub results: Option<Destination>,
    /// What to do about an earlier run of the same input.
    pub earlier: Earlier,
    /// The most jobs in a batch.
    pub batch_jobs: usize,
    /// The most bytes in a batch, before compression.
    pub batch_raw_bytes: usize,
    /// How much may be on its way to the broker.
    pub window: Window,
    /// How long to go on when the broker does not take a batch.
    pub patience: Patience,
    /// How the jobs are run.
    pub executor: ExecutorOptions,
    /// How long running jobs may go on when the run is interrupted.
    pub drain: Duration,
    /// What a message may hold.
    pub limits: Limits,
    /// Whether progress is shown.
    pub show: Show,
    /// What publishing and running follow.
    pub tuner: Tuner,
}

/// Why a run did not come to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// Its progress cannot be kept.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Its outcomes cannot be written.
    #[error(transparent)]
    Results(#[from] ResultsError),
    /// Its jobs cannot be read.
    #[error(transparent)]
    Feed(#[from] FeedError),
    /// Its jobs cannot be published.
    #[error("the jobs cannot be published")]
    Publish(#[from] PublishError),
    /// The broker failed.
    #[error("the run cannot go on")]
    Broker(#[from] BrokerError),
    /// The executor failed.
    #[error("the jobs cannot be run")]
    Executor(#[source] ExecutorError),
    /// A part of the run ended by itself.
    #[error("the run stopped: {0} ended early")]
    Ended(&'static str),
    /// Somebody asked it to stop.
    #[error("interrupted; go on with --resume")]
    Interrupted,
}

/// Runs all jobs of `input` with the handlers of `registry` and writes their outcomes.
///
/// # Errors
/// When it cannot come to its end. What was settled stays settled: the run can be resumed.
pub async fn run(
    broker: Arc<dyn Broker>,
    registry: Registry,
    input: Input,
    options: RunOptions,
    stop: CancellationToken,
) -> Result<Summary, RunError> {
    run_at(broker, registry, input, options, None, stop).await
}

/// The same wholly on the caller's runtime, with outcomes that go to `outlet`: for the simulator.
///
/// # Errors
/// As [`run`].
#[doc(hidden)]
pub async fn run_here(
    broker: Arc<dyn Broker>,
    registry: Registry,
    input: Input,
    options: RunOptions,
    outlet: Arc<dyn Outlet>,
    stop: CancellationToken,
) -> Result<Summary, RunError> {
    run_at(broker, registry, input, options, Some(outlet), stop).await
}

async fn run_at(
    broker: Arc<dyn Broker>,
    registry: Registry,
    input: Input,
    options: RunOptions,
    outlet: Option<Arc<dyn Outlet>>,
    stop: CancellationToken,
) -> Result<Summary, RunError> {
    let start = Instant::now();
    let journal =
        Journal::open(broker.clone(), &input.name, options.earlier, options.batch_jobs, options.batch_raw_bytes).await?;
    let meter = Arc::new(Meter::default());
    let destination = match &outlet {
        None => options.results.unwrap_or_default(),
        Some(outlet) => Destination::outlet(outlet.clone()),
    };
    let (opened, reported) = match options.earlier {
        Earlier::Resume => go_on(destination, &journal.progress().plan).await?,
        Earlier::Refuse | Earlier::Forget => (destination.begin()?, Reported::default()),
    };
    let results = Arc::new(Results::start(opened)?);
    let start_executor = if outlet.is_some() { Executor::start_here } else { Executor::start };
    let executor = start_executor(broker.clone(), registry, options.executor).map_err(RunError::Executor)?;
    options.tuner.executor(&executor);
    // Cut as before: a batch that was published in part is to be completed, not to be cut in another way.
    let max_message = journal.progress().plan.max_message;
    let publisher = Publisher::new(broker.clone(), options.window).patience(options.patience).cut_at(max_message);
    options.tuner.publisher(&publisher);
    let progress = Progress::start(meter.clone(), "run", input.size, options.show);

    let plan = journal.progress().plan.clone();
    let segments = match &outlet {
        None => cut_ahead(Cutter::new(input.reader, plan, options.limits, PATIENCE, true)?, stop.clone()),
        Some(_) => cut_here(Cutter::here(input.reader, plan, options.limits, true)?, stop.clone()),
    };
    // As many as there can be open segments: the collector must never wait for a flow that waits for room.
    let (settled, settlements) = mpsc::channel(OPEN_BATCHES);
    let (expect, expected) = mpsc::channel(1);
    let collector =
        Collector::new(broker.clone(), options.limits, results.clone(), meter.clone(), settled, options.patience.away);
    let flow = Flow {
        publisher,
        executor: &executor,
        segments,
        expect,
        settlements,
        results: results.clone(),
        reported,
        room: Arc::new(Semaphore::new(OPEN_BATCHES)),
        look: Arc::new(Semaphore::new(1)),
        meter: meter.clone(),
        wire: journal.progress().wire,
        journal,
    };
    let collecting = AbortOnDropHandle::new(tokio::spawn(collector.run(expected)));
    let outcome = {
        let collected = async { collecting.await.map_err(|_| RunError::Ended("the collector"))?.map_err(RunError::Broker) };
        tokio::select! {
            biased;
            () = stop.cancelled() => Err(RunError::Interrupted),
            ended = executor.stopped() => ended.map_err(RunError::Executor).and(Err(RunError::Ended("the executor"))),
            // The collector ends once the flow has nothing more to expect; the flow then ends with the last settlement.
            both = async { tokio::try_join!(Box::pin(flow.run()), collected) } => both.map(|(journal, ())| journal),
        }
    };
    drop(progress);
    let drained = executor.drain(if outcome.is_ok() { Duration::ZERO } else { options.drain }).await;
    tracing::debug!(?drained, "drained");
    let (counts, wire) = match outcome {
        Ok(journal) => {
            let progress = (journal.progress().settled, journal.progress().wire);
            results.sync().await?;
            journal.finish().await?;
            progress
        }
        Err(error) => {
            // What can still be written is; what stands in the way of it is the lesser news.
            let _unwritten = results.sync().await;
            return Err(error);
        }
    };
    if let Some(results) = Arc::into_inner(results) {
        results.close().await?;
    }
    Ok(Summary::new(counts, meter.ended_jobs(), start.elapsed(), wire.bytes, wire.jobs))
}

async fn go_on(results: Destination, plan: &Plan) -> Result<(Opened, Reported), RunError> {
    let batches: Vec<BatchId> = plan.open_batches().collect();
    if !results.blocks() {
        return Ok(results.resume(batches.into_iter())?);
    }
    let read = tokio::task::spawn_blocking(move || results.resume(batches.into_iter()));
    Ok(read.await.map_err(|_| RunError::Ended("reading the results"))??)
}

/// From cut segments to settled ones.
struct Flow<'a> {
    journal: Journal,
    publisher: Publisher,
    executor: &'a Executor,
    segments: mpsc::Receiver<Result<Segment, FeedError>>,
    expect: mpsc::Sender<Announced>,
    settlements: mpsc::Receiver<(u64, Counts)>,
    results: Arc<Results>,
    /// What the interrupted run has written already about segments that are replayed.
    reported: Reported,
    room: Arc<Semaphore>,
    /// Lets one segment at a time be looked for.
    look: Arc<Semaphore>,
    meter: Arc<Meter>,
    wire: Wire,
}

/// A task that publishes one batch and answers with what it took on the wire.
type Publishing = JoinHandle<Result<Wire, RunError>>;

impl Flow<'_> {
    async fn run(mut self) -> Result<Journal, RunError> {
        let mut publishing: FuturesUnordered<Publishing> = FuturesUnordered::new();
        let mut more = true;
        while more || !publishing.is_empty() {
            // New segments last: what is published and settled makes room for them, and is bounded by them.
            tokio::select! {
                biased;
                Some(settled) = self.settlements.recv() => self.note(None, vec![settled]).await?,
                Some(published) = publishing.next(), if !publishing.is_empty() => {
                    self.wire += published.map_err(|_| RunError::Ended("a publisher"))??;
                }
                segment = self.segments.recv(), if more => match segment {
                    Some(segment) => self.admit(segment?, &mut publishing).await?,
                    None => more = false,
                },
            }
        }
        // Nothing more is expected: the collector ends when all is settled, and the settlements end with it.
        drop(std::mem::replace(&mut self.expect, mpsc::channel(1).0));
        while let Some(settled) = self.settlements.recv().await {
            self.note(None, vec![settled]).await?;
        }
        Ok(self.journal)
    }

    /// Notes in one write that `planned` is about to be published, and all that was settled meanwhile.
    async fn note(&mut self, planned: Option<Span>, mut settled: Vec<(u64, Counts)>) -> Result<(), RunError> {
        while let Ok(more) = self.settlements.try_recv() {
            settled.push(more);
        }
        if !settled.is_empty() {
            // The results come first: a segment that the journal forgets must have its lines on disk.
            self.results.sync().await?;
        }
        Ok(self.journal.note(planned.as_slice(), &settled, self.wire).await?)
    }

    async fn admit(&mut self, segment: Segment, publishing: &mut FuturesUnordered<Publishing>) -> Result<(), RunError> {
        self.meter.read(segment.jobs() + segment.bad.len() as u64, segment.span.bytes);
        if !segment.replayed {
            self.note(Some(segment.span), Vec::new()).await?;
        }
        for batch in &segment.batches {
            self.executor.serve(batch.lane.queue.clone());
        }
        let expected = self.expectation(&segment).await?;
        self.expect.send(Announced::Segment(expected)).await.map_err(|_| RunError::Ended("the collector"))?;
        if segment.replayed {
            let again = publish_again(self.publisher.clone(), segment, self.look.clone(), self.expect.clone());
            publishing.push(tokio::spawn(again));
            return Ok(());
        }
        for batch in segment.batches {
            let publisher = self.publisher.clone();
            publishing.push(tokio::spawn(async move { Ok(feed::publish(publisher, batch).await?) }));
        }
        Ok(())
    }

    /// What the collector is to expect of the segment. Waits until there is room for it among the open ones.
    async fn expectation(&mut self, segment: &Segment) -> Result<Expected, RunError> {
        let wanted = segment.batches.len().clamp(1, OPEN_BATCHES) as u32;
        let room = self.room.clone().acquire_many_owned(wanted).await.map_err(|_| RunError::Ended("the run"))?;
        let (old, bad) = segment.bad.iter().cloned().partition::<Vec<_>, _>(|bad| bad.line <= self.reported.bad_line);
        let before = Counts { jobs: old.len() as u64, discarded: old.len() as u64, ..Counts::default() };
        let batches = segment.batches.iter().map(|batch| {
            let id = batch.builder.header().id;
            ExpectedBatch {
                id,
                lane: batch.lane.clone(),
                jobs: batch.builder.len() as u32,
                reported: self.reported.jobs.remove(&id).unwrap_or_default(),
            }
        });
        Ok(Expected {
            segment: segment.span.number,
            replayed: segment.replayed,
            since: segment.span.at,
            batches: batches.collect(),
            bad,
            before,
            room,
        })
    }
}

/// Publishes what is missing of a segment that an interrupted run had planned. Each message is looked for by itself: of
/// a batch that was cut into several, some may have been published. What may have run is not published again; the
/// collector is told that its outcomes may never come.
async fn publish_again(
    publisher: Publisher,
    segment: Segment,
    look: Arc<Semaphore>,
    doubts: mpsc::Sender<Announced>,
) -> Result<Wire, RunError> {
    // A look reads what lies in the lanes: many at once would read the same.
    let _turn = look.acquire_owned().await.map_err(|_| RunError::Ended("the run"))?;
    let batches: Vec<_> = segment.batches.iter().map(|batch| (batch.lane.clone(), batch.due.time(), &batch.builder)).collect();
    let mut wire = Wire::default();
    for again in publisher.publish_missing(&batches, segment.span.at).await? {
        let why = match again.fate {
            Fate::Stored => continue,
            Fate::Published(bytes) => {
                wire += Wire { bytes: bytes as u64, jobs: again.jobs.into() };
                continue;
            }
            Fate::Gone => Why::Forgotten,
            Fate::Untold => Why::Untold,
        };
        let Some((_, _, batch)) = batches.get(again.batch) else { continue };
        // A collector that is done with the batch has all its outcomes.
        let _done = doubts.send(Announced::Doubt(batch.header().id, why)).await;
    }
    Ok(wire)
}
