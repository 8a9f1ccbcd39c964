//! Collecting outcomes: from the broker's log of what became of each batch, to the results.
//!
//! The log is what everything else is derived from: it says the same whoever ran the jobs, in this process or on
//! another machine, before or after a crash. Hints say where to look; a look around now and then finds what hints
//! missed.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, MissedTickBehavior, interval};
use wf_broker::{Broker, BrokerError, LoggedRecord, Version};
use wf_schema::{BatchId, JobId, Lane, Limits, Millis, Record, RunId};

use super::bits::Bits;
use super::counts::Why;
use super::lost::{self, Finding, Suspect, Vigil};
use super::results::Results;
use super::{Counts, line};
use crate::feed::BadLine;
use crate::progress::Meter;

/// How many batches are looked up at a time.
const LOOKUPS: usize = 32;
/// How often an open batch is looked up without a hint.
const LOOK_AROUND: Duration = Duration::from_secs(10);
/// How often it is seen to whether batches are lost.
const VIGILS: Duration = Duration::from_secs(1);
/// How many lines are written at a time, in bytes.
const BLOCK: usize = 256 * 1024;

/// What a run tells its collector.
pub(super) enum Announced {
    /// A segment to collect. Comes before it is published.
    Segment(Expected),
    /// Some of a batch was not published, and cannot be: its outcomes may never come.
    Doubt(BatchId, Why),
}

/// A segment to collect.
pub(super) struct Expected {
    /// Which.
    pub(super) segment: u64,
    /// Whether it was published before, by a run that was interrupted.
    pub(super) replayed: bool,
    /// When it was published at the earliest.
    pub(super) since: Millis,
    /// Its batches.
    pub(super) batches: Vec<ExpectedBatch>,
    /// Its lines that are no jobs and have not been reported.
    pub(super) bad: Vec<BadLine>,
    /// Those that have been reported, before the run was interrupted.
    pub(super) before: Counts,
    /// Holds back the publishing of more while this one is open.
    pub(super) room: OwnedSemaphorePermit,
}

/// A batch to collect.
pub(super) struct ExpectedBatch {
    /// Which.
    pub(super) id: BatchId,
    /// Where it went.
    pub(super) lane: Lane,
    /// Its jobs.
    pub(super) jobs: u32,
    /// Those that have a line in the results from before.
    pub(super) reported: Bits,
}

/// Collects until it is told that there is no more to come and all is settled.
pub(super) struct Collector {
    broker: Arc<dyn Broker>,
    limits: Limits,
    meter: Arc<Meter>,
    results: Arc<Results>,
    /// Sorted, so that a look around asks in the same order whenever a history is played again.
    batches: BTreeMap<BatchId, OpenBatch>,
    segments: HashMap<u64, OpenSegment>,
    /// Batches to look up, each once.
    due: VecDeque<BatchId>,
    queued: HashSet<BatchId>,
    block: Vec<u8>,
    settled: mpsc::Sender<(u64, Counts)>,
    /// How long to wait for what the broker cannot tell of.
    patience: Duration,
}

struct OpenBatch {
    segment: u64,
    lane: Lane,
    since: Millis,
    vigil: Vigil,
    /// Why what the next look-up does not find will not come.
    lost: Option<Why>,
    jobs: u32,
    reported: Bits,
    ended: Bits,
    seen: HashMap<RunId, Version>,
    counts: Counts,
    looking: bool,
    looked_at: Instant,
}

struct OpenSegment {
    batches: usize,
    counts: Counts,
    _room: OwnedSemaphorePermit,
}

impl Collector {
    /// A collector that writes to `results` and tells `settled` of each segment whose outcomes are all written. Where the
    /// broker cannot tell whether a batch still waits, it gives up after `patience`.
    pub(super) fn new(
        broker: Arc<dyn Broker>,
        limits: Limits,
        results: Arc<Results>,
        meter: Arc<Meter>,
        settled: mpsc::Sender<(u64, Counts)>,
        patience: Duration,
    ) -> Self {
        Self {
            broker,
            limits,
            meter,
            results,
            batches: BTreeMap::new(),
            segments: HashMap::new(),
            due: VecDeque::new(),
            queued: HashSet::new(),
            block: Vec::new(),
            settled,
            patience,
        }
    }

    /// Collects what `expected` announces; done when that is closed and everything announced is settled.
    ///
    /// # Errors
    /// When the broker can give no more hints or answers.
    pub(super) async fn run(mut self, mut expected: mpsc::Receiver<Announced>) -> Result<(), BrokerError> {
        let broker = self.broker.clone();
        let mut hints = broker.watch_all().await?;
        let mut lookups = FuturesUnordered::new();
        let mut around = interval(LOOK_AROUND);
        around.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut vigils = interval(VIGILS);
        vigils.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut searches = FuturesUnordered::new();
        let mut more = true;
        while more || !self.segments.is_empty() {
            while lookups.len() < LOOKUPS
                && let Some(id) = self.next_due()
            {
                let broker = broker.clone();
                lookups.push(async move { (id, broker.read(id).await) });
            }
            if lookups.is_empty() {
                self.write().await;
            }
            // In the order in which one makes work for the next, so that none starves: segments are few and bounded by
            // the room, the tick is rare, and look-ups run out without hints.
            tokio::select! {
                biased;
                announced = expected.recv(), if more => match announced {
                    Some(announced) => self.hear(announced).await,
                    None => more = false,
                },
                _ = around.tick() => self.look_around(),
                _ = vigils.tick(), if searches.is_empty() => {
                    let suspects = self.suspects();
                    if !suspects.is_empty() {
                        searches.push(lost::look_for(broker.clone(), suspects));
                    }
                },
                Some(findings) = searches.next(), if !searches.is_empty() => self.searched(findings)?,
                Some((id, found)) = lookups.next(), if !lookups.is_empty() => self.found(id, found).await?,
                hint = hints.changed() => match hint? {
                    Some(id) => {
                        // A segment is announced before it is published, so the announcement is there already, if this
                        // is about one of its batches; only who is served first is left to chance.
                        while let Ok(announced) = expected.try_recv() {
                            self.hear(announced).await;
                        }
                        self.look(id);
                    }
                    None => self.look_around(),
                },
            }
        }
        self.write().await;
        Ok(())
    }

    async fn hear(&mut self, announced: Announced) {
        match announced {
            Announced::Segment(segment) => self.expect(segment).await,
            Announced::Doubt(id, why) => {
                if let Some(batch) = self.batches.get_mut(&id) {
                    batch.vigil.doubt(why, Instant::now());
                }
            }
        }
    }

    /// The batches of which it is time to ask whether anything of them is still there.
    fn suspects(&mut self) -> Vec<Suspect> {
        let now = Instant::now();
        let due = self.batches.iter_mut().filter(|(_, batch)| batch.lost.is_none() && batch.vigil.is_due(now));
        due.map(|(id, batch)| {
            batch.vigil.asked(now);
            Suspect { id: *id, lane: batch.lane.clone(), since: batch.since, doubted: batch.vigil.is_doubted() }
        })
        .collect()
    }

    /// Takes note of what the broker has. What it has nothing of is looked up once more: what cannot be read then, will
    /// not come.
    fn searched(&mut self, findings: Result<Vec<(BatchId, Finding)>, BrokerError>) -> Result<(), BrokerError> {
        let findings = match findings {
            Ok(findings) => findings,
            Err(error) if error.is_retryable() => {
                tracing::debug!(error = &error as &dyn std::error::Error, "open batches could not be looked for; retrying");
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        for (id, finding) in findings {
            let Some(batch) = self.batches.get_mut(&id) else { continue };
            batch.lost = batch.vigil.found(finding, Instant::now(), self.patience);
            if finding != Finding::Waits {
                self.look(id);
            }
        }
        Ok(())
    }

    async fn expect(&mut self, expected: Expected) {
        let mut counts = expected.before;
        for bad in &expected.bad {
            line::bad_line(&mut self.block, bad.line, &bad.message);
            counts.jobs += 1;
            counts.discarded += 1;
            self.meter.ended(1, 1);
        }
        self.segments.insert(expected.segment, OpenSegment { batches: expected.batches.len(), counts, _room: expected.room });
        let none = expected.batches.is_empty();
        for batch in expected.batches {
            let open = OpenBatch {
                segment: expected.segment,
                lane: batch.lane,
                since: expected.since,
                vigil: Vigil::new(Instant::now()),
                lost: None,
                jobs: batch.jobs,
                reported: batch.reported,
                ended: Bits::default(),
                seen: HashMap::new(),
                counts: Counts::default(),
                looking: false,
                looked_at: Instant::now(),
            };
            self.batches.insert(batch.id, open);
            if expected.replayed {
                // It may have been settled before anybody listened.
                self.look(batch.id);
            }
        }
        if none {
            self.close_segment(expected.segment).await;
        }
    }

    fn look(&mut self, id: BatchId) {
        if self.batches.contains_key(&id) && self.queued.insert(id) {
            self.due.push_back(id);
        }
    }

    fn look_around(&mut self) {
        let stale = self.batches.iter().filter(|(_, batch)| batch.looked_at.elapsed() >= LOOK_AROUND);
        let stale: Vec<_> = stale.map(|(id, _)| *id).collect();
        stale.into_iter().for_each(|id| self.look(id));
    }

    /// The next batch to look up, passing over those that are being looked up: they come again.
    fn next_due(&mut self) -> Option<BatchId> {
        for _ in 0..self.due.len() {
            let id = self.due.pop_front()?;
            match self.batches.get_mut(&id) {
                Some(batch) if batch.looking => self.due.push_back(id),
                Some(batch) => {
                    batch.looking = true;
                    batch.looked_at = Instant::now();
                    self.queued.remove(&id);
                    return Some(id);
                }
                None => {
                    self.queued.remove(&id);
                }
            }
        }
        None
    }

    async fn found(&mut self, id: BatchId, found: Result<Vec<LoggedRecord>, BrokerError>) -> Result<(), BrokerError> {
        let Some(batch) = self.batches.get_mut(&id) else { return Ok(()) };
        batch.looking = false;
        let records = match found {
            Ok(records) => records,
            // The next look around asks again.
            Err(error) if error.is_retryable() => {
                tracing::warn!(batch = %id, error = &error as &dyn std::error::Error, "outcomes could not be read; trying again");
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let mut news = false;
        for logged in records {
            let seen = batch.seen.entry(logged.run).or_default();
            if logged.version <= *seen {
                continue;
            }
            *seen = logged.version;
            news = true;
            match Record::decode(&logged.bytes, &self.limits) {
                Ok(record) => report(batch, &record, &mut self.block, &self.meter),
                Err(error) => tracing::error!(batch = %id, run = %logged.run, %error, "a record of outcomes cannot be read"),
            }
        }
        match batch.lost {
            _ if news => {
                batch.vigil.progressed(Instant::now());
                batch.lost = None;
            }
            // This look-up began before anybody knew.
            Some(_) if self.queued.contains(&id) => {}
            Some(why) => give_up(id, batch, why, &mut self.block, &self.meter),
            None => {}
        }
        if self.block.len() >= BLOCK {
            self.write().await;
        }
        self.close_if_done(id).await;
        Ok(())
    }

    async fn close_if_done(&mut self, id: BatchId) {
        let done = self.batches.get(&id).is_some_and(|batch| batch.ended.count() >= batch.jobs);
        if !done {
            return;
        }
        let Some(batch) = self.batches.remove(&id) else { return };
        if let Some(segment) = self.segments.get_mut(&batch.segment) {
            segment.batches -= 1;
            segment.counts += batch.counts;
            if segment.batches == 0 {
                self.close_segment(batch.segment).await;
            }
        }
    }

    async fn close_segment(&mut self, number: u64) {
        if let Some(segment) = self.segments.remove(&number) {
            // The lines go first: whoever hears of the segment syncs the results before it forgets the segment.
            self.write().await;
            let _gone = self.settled.send((number, segment.counts)).await;
        }
    }

    async fn write(&mut self) {
        if !self.block.is_empty() {
            let block = std::mem::replace(&mut self.block, Vec::with_capacity(BLOCK + BLOCK / 4));
            self.results.write(block).await;
        }
    }
}

/// Writes the lines of the jobs whose outcomes will not come.
fn give_up(id: BatchId, batch: &mut OpenBatch, why: Why, block: &mut Vec<u8>, meter: &Meter) {
    let mut lost = 0;
    for index in 0..batch.jobs {
        if !batch.ended.set(index) {
            continue;
        }
        batch.counts.lost(why);
        if !batch.reported.has(index) {
            line::unknown(block, JobId { batch: id, index }, &batch.lane.queue, why);
            lost += 1;
        }
    }
    meter.ended(lost, lost);
}

/// Writes the lines of the jobs that ended with `record`, each job once.
fn report(batch: &mut OpenBatch, record: &Record, block: &mut Vec<u8>, meter: &Meter) {
    let (mut ended, mut failed) = (0, 0);
    for outcome in record.iter() {
        if !outcome.state().is_final() || !batch.ended.set(outcome.index()) {
            continue;
        }
        batch.counts.ended(outcome.state());
        if batch.reported.has(outcome.index()) {
            continue;
        }
        line::outcome(block, record.header(), &outcome);
        ended += 1;
        failed += u64::from(outcome.state() != wf_schema::State::Completed);
    }
    meter.ended(ended, failed);
}
