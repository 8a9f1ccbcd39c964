//! The jobs of one run, from their beginning to their outcomes.

mod launch;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::{JoinError, JoinSet, unconstrained};
use tokio_util::sync::DropGuard;
use wf_schema::{JobView, Millis, State, now};

use super::measured::Measured;
use crate::JobFailure;
use crate::bury;
use crate::charge::Charge;
use crate::context::Shared;
use crate::hand::{Ask, Hand};
use crate::handler::Handler;
use crate::intake::Work;
use crate::node::Node;
use crate::outcome::{Done, Outcome};
use crate::retry::judge;
use crate::settle::{Lost, Settling};
use crate::stats::count_up;
use crate::surplus::MAX_HOPS;

/// The jobs of a run, as far as they have come. Dropped, what runs of them is stopped, and nothing more is settled.
pub(super) struct Jobs {
    node: Arc<Node>,
    work: Arc<Work>,
    /// By the kind's place in the batch.
    handlers: Vec<Option<Arc<dyn Handler>>>,
    shared: Arc<Shared>,
    /// Tells the handlers, also when the run is dropped.
    _cancel: DropGuard,
    settled: Vec<bool>,
    /// How many jobs have no outcome yet.
    open: usize,
    /// The next place to look at.
    next: usize,
    /// Ended and not committed yet.
    done: Done,
    waiting: JoinSet<Waited>,
    /// Where it is while nothing is being committed.
    settling: Option<Settling>,
    committing: Option<BoxFuture<'static, (Settling, Result<(), Lost>)>>,
    checkpoint: tokio::time::Instant,
    slot: Option<BoxFuture<'static, Option<OwnedSemaphorePermit>>>,
    /// Whether jobs are polled where they are begun.
    inline: bool,
    /// No more jobs are begun.
    halted: bool,
    /// Whether the drain was heard of.
    told: bool,
    /// The largest result that surely fits into a record, in bytes.
    result_limit: usize,
    /// What others ask of the batch.
    hand: Arc<Hand>,
    /// How many jobs were begun.
    begun: usize,
    measured: Measured,
}

/// A job that had to wait for something, at its end.
struct Waited {
    place: usize,
    result: Result<Bytes, JobFailure>,
    took: Duration,
}

/// What is waited for.
enum Event {
    Slot(Option<OwnedSemaphorePermit>),
    Ended(Result<Waited, JoinError>),
    Committed(Settling, Result<(), Lost>),
    Checkpoint,
    Asked(Ask),
    Draining,
    Overtime,
}

impl Jobs {
    pub(super) fn new(node: Arc<Node>, work: Arc<Work>, settling: Settling, mut settled: Vec<bool>, hand: Arc<Hand>) -> Self {
        let mut done = Done::default();
        let jobs = work.batch.len();
        for (place, item) in work.bad.iter().enumerate().map(|(n, item)| (jobs + n, item)) {
            if !std::mem::replace(&mut settled[place], true) {
                done.push(Outcome::otherwise(place, State::Discarded, Some(bury::of_item(item)), None));
            }
        }
        for (place, due) in &work.later {
            if !std::mem::replace(&mut settled[*place], true) {
                done.push(Outcome::otherwise(*place, State::Moved, None, Some(*due)));
            }
        }
        let shared = Arc::new(Shared::new(&work.batch, work.header.clone(), node.phases.draining.clone()));
        Self {
            handlers: work.batch.kinds().iter().map(|kind| node.registry.get(kind).cloned()).collect(),
            _cancel: shared.cancelled.clone().drop_guard(),
            shared,
            open: settled.iter().filter(|settled| !**settled).count(),
            settled,
            next: 0,
            done,
            waiting: JoinSet::new(),
            settling: Some(settling),
            committing: None,
            checkpoint: tokio::time::Instant::now() + node.options.checkpoint_interval(),
            slot: None,
            inline: true,
            halted: false,
            told: false,
            result_limit: node.options.reading().args_bytes.min(node.broker.max_message() / 4),
            hand,
            begun: 0,
            measured: Measured::new(&work),
            work,
            node,
        }
    }

    /// Begins all jobs that are not settled, as slots allow, and waits for their ends.
    pub(super) async fn run(&mut self, turn: OwnedSemaphorePermit, charge: &mut Charge) -> Result<(), Lost> {
        charge.open(self.open, self.work.header.hops < MAX_HOPS);
        let mut turn = Some(turn);
        let mut slot = None;
        loop {
            let more = !self.halted && self.seek();
            if !more {
                (slot, self.slot) = (None, None);
                if turn.take().is_some() && !self.halted {
                    charge.started();
                }
                if self.waiting.is_empty() {
                    return Ok(());
                }
            }
            match slot.take() {
                Some(held) => {
                    slot = self.launch(held);
                    if slot.is_some() {
                        self.tell(charge);
                        tokio::task::yield_now().await;
                        while let Some(event) = self.event(false).now_or_never() {
                            self.hear(event)?;
                        }
                    }
                }
                None => {
                    if more {
                        self.tell(charge);
                    }
                    match self.event(more).await {
                        Event::Slot(held) => slot = held,
                        event => self.hear(event)?,
                    }
                }
            }
        }
    }

    /// Says how far it is, for whoever wonders whether others should have some of it.
    fn tell(&self, charge: &mut Charge) {
        let running = self.waiting.len();
        charge.crowded(self.begun, running, self.open.saturating_sub(running));
    }

    /// Moves `next` on to a job that is not settled, if there is one.
    fn seek(&mut self) -> bool {
        while self.settled.get(self.next).is_some_and(|settled| *settled) {
            self.next += 1;
        }
        self.next < self.work.batch.len()
    }

    /// Books how a job ended.
    fn end(&mut self, job: &JobView<'_>, place: usize, result: Result<Bytes, JobFailure>) {
        match result {
            Ok(_) if !self.work.keeps(job) => {
                self.done.completed(place);
                self.open -= 1;
            }
            result => self.push(self.judge(job, place, result)),
        }
    }

    fn judge(&self, job: &JobView<'_>, place: usize, result: Result<Bytes, JobFailure>) -> Outcome {
        let limit = self.result_limit;
        match result {
            Ok(_) if !job.policy().store_result => Outcome::completed(place, Bytes::new()),
            Ok(result) if result.len() <= limit => Outcome::completed(place, result),
            Ok(result) => {
                let (size, advice) = (result.len(), "put it elsewhere and return where it is");
                let message = format!("the result has {size} bytes; at most {limit} are stored: {advice}");
                judge(job, place, JobFailure::permanent("result_too_large", message), now(), 0.0)
            }
            Err(failure) => judge(job, place, failure, now(), fastrand::f64()),
        }
    }

    /// The next thing that happens; `more` says whether there are jobs that wait for a slot. Cancel safe.
    async fn event(&mut self, more: bool) -> Event {
        let node = &self.node;
        let due = self.committing.is_none() && !self.done.is_empty();
        let unstarted = !self.halted && self.open > self.waiting.len();
        let (committing, slot) = (&mut self.committing, &mut self.slot);
        let committed = async {
            match committing {
                Some(commit) => commit.await,
                None => std::future::pending().await,
            }
        };
        // The wait for a slot is kept from one event to the next, or it would lose its place in the queue.
        let slotted = async {
            let wait = slot.get_or_insert_with(|| node.slots.clone().acquire_owned().map(Result::ok).boxed());
            wait.await
        };
        tokio::select! {
            biased;
            () = node.phases.overtime.cancelled(), if !self.halted || !self.waiting.is_empty() => Event::Overtime,
            () = node.phases.draining.cancelled(), if !self.told => Event::Draining,
            (settling, result) = committed => {
                self.committing = None;
                Event::Committed(settling, result)
            }
            Some(ended) = self.waiting.join_next(), if !self.waiting.is_empty() => Event::Ended(ended),
            slot = slotted, if more => {
                self.slot = None;
                Event::Slot(slot)
            }
            () = tokio::time::sleep_until(self.checkpoint), if due => Event::Checkpoint,
            ask = self.hand.asked(), if unstarted => Event::Asked(ask),
        }
    }

    fn hear(&mut self, event: Event) -> Result<(), Lost> {
        match event {
            Event::Slot(_) => {}
            Event::Ended(ended) => self.ended(ended),
            Event::Committed(settling, result) => {
                result?;
                self.settling = Some(settling);
                self.checkpoint = tokio::time::Instant::now() + self.node.options.checkpoint_interval();
            }
            Event::Checkpoint => self.commit(),
            Event::Asked(Ask::Release) if self.begun == 0 && !self.halted => {
                self.halted = true;
                count_up(&self.node.tally.handed_on, 1);
            }
            Event::Asked(Ask::Release) => {}
            Event::Asked(Ask::Split { keep, piece }) => self.split(keep, piece),
            Event::Draining => {
                self.told = true;
                self.halted = !self.is_short();
            }
            Event::Overtime => {
                self.halted = true;
                self.shared.cancelled.cancel();
                self.waiting.abort_all();
                // Those that were done just now still count; the others are for whoever has the batch next.
                while let Some(Some(ended)) = unconstrained(self.waiting.join_next()).now_or_never() {
                    self.ended(ended);
                }
                self.waiting = JoinSet::new();
            }
        }
        Ok(())
    }

    fn ended(&mut self, ended: Result<Waited, JoinError>) {
        // An attempt's panic is caught within; what is left are those that were aborted.
        let Ok(Waited { place, result, took }) = ended else { return };
        let work = self.work.clone();
        if let Some(job) = work.batch.get(place) {
            self.end(&job, place, result);
            self.measured.took(job.kind_slot(), 1, took);
        }
    }

    fn push(&mut self, outcome: Outcome) {
        self.done.push(outcome);
        self.open -= 1;
    }

    /// Gives the unstarted jobs behind the next `keep` to others, in pieces of `piece`.
    fn split(&mut self, keep: usize, piece: usize) {
        if self.halted || self.begun == 0 || self.work.header.hops >= MAX_HOPS {
            return;
        }
        let jobs = self.work.batch.len();
        let moved: Vec<usize> = (self.next..jobs).filter(|place| !self.settled[*place]).skip(keep).collect();
        let pieces = moved.chunks(piece.max(1));
        // They go on at once. Those that share a time travel together, so each piece has one of its own, all of them
        // past: then whoever publishes them, from the record alone, makes the same pieces.
        let first = now().saturating_sub(pieces.len() as Millis);
        tracing::debug!(batch = %self.work.header.id, jobs = moved.len(), pieces = pieces.len(), "moved to others who wait");
        for (time, places) in (first..).zip(pieces) {
            for place in places {
                self.settled[*place] = true;
                self.push(Outcome::otherwise(*place, State::Moved, None, Some(time)));
            }
        }
        if !moved.is_empty() {
            count_up(&self.node.tally.split, 1);
            // It is for those who wait now.
            self.checkpoint = tokio::time::Instant::now();
        }
    }

    /// Commits what is done, beside the jobs that run on.
    fn commit(&mut self) {
        self.measured.tell(&self.work, &self.node.run_times);
        if let Some(mut settling) = self.settling.take() {
            let done = std::mem::take(&mut self.done);
            self.committing = Some(Box::pin(async move {
                let result = settling.commit(&done.into_outcomes()).await;
                (settling, result)
            }));
        }
    }

    /// Whether the jobs that have not begun can be expected to end well before the deadline.
    fn is_short(&self) -> bool {
        let rest = self.work.batch.len().saturating_sub(self.next);
        let Measured { ran, busy, .. } = self.measured;
        ran > 0 && self.node.estimate(rest, busy / ran) < self.node.phases.left() / 2
    }

    /// How long all jobs would have taken, going by those that ran, once all have an outcome.
    pub(super) fn busy(&self) -> Option<Duration> {
        self.measured.whole(&self.work).filter(|_| self.whole())
    }

    /// Whether every job has an outcome.
    fn whole(&self) -> bool {
        self.open == 0
    }

    /// Settles what is done, and acknowledges the batch if that is all of it.
    pub(super) async fn settle(mut self) -> Result<(), Lost> {
        let Some(mut settling) = self.settling().await? else { return Ok(()) };
        if self.whole() {
            return settling.finish(self.done).await;
        }
        settling.commit(&self.done.into_outcomes()).await?;
        settling.release().await
    }

    /// Settles what is done, for one who goes on with the run; and whether that is all of it.
    pub(super) async fn hand_back(mut self) -> Result<Option<(Settling, bool)>, Lost> {
        let Some(mut settling) = self.settling().await? else { return Ok(None) };
        let whole = self.whole();
        settling.commit(&self.done.into_outcomes()).await?;
        Ok(Some((settling, whole)))
    }

    /// The settling, once nothing is being committed. It is only ever away while it commits.
    async fn settling(&mut self) -> Result<Option<Settling>, Lost> {
        self.measured.tell(&self.work, &self.node.run_times);
        if let Some(commit) = self.committing.take() {
            let (settling, result) = commit.await;
            result?;
            return Ok(Some(settling));
        }
        Ok(self.settling.take())
    }
}
