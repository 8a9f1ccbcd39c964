//! Settling a run: **record, then retries and dead letters, then ack**. In this order, written here and nowhere else.
//!
//! 1. *Append* record k of (batch, run), if the log still stands at k - 1. The record is the commit point: what is in
//!    it has happened. Who is refused has been overtaken: it publishes nothing and acknowledges nothing.
//! 2. *Publish* what the record obliges to, under names made from (batch, run, k): the record itself, for those who want
//!    to know, retries and dead letters. After the append, because a retry
//!    that was published for an outcome which is not on record would run beside the original. Before anything else,
//!    because record k + 1 says that the publications of record k are done.
//! 3. *Ack*. Last, because a message that is gone brings nobody back to repeat step 2.
//!
//! Whatever is interrupted is taken up by the next holder of the run: it reads the records, repeats step 2 for the
//! last one (all before it are done, as said), and runs only what none of them settles. A run of jobs that all
//! completed, with nothing to store, has nothing to say in steps 1 and 2.
//!
//! The order is in the types: only an [`Appended`] record can be published, only [`Settling::finish`] acknowledges.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use tokio::time::Instant;
use wf_broker::{Broker, BrokerError, LogEnd, Version};
use wf_schema::{Mark, Record, RecordBuilder, RecordHeader, State, WireError, now};

use crate::KnownFault;
use crate::intake::Work;
use crate::node::Node;
use crate::outcome::{Done, End, Outcome};
use crate::patience::insist;
use crate::publication::{Publication, copy, plan};
use crate::renew::Held;
use crate::stats::count_up;
use crate::suspicion::Suspicion;

/// How many publications of one record are under way at once.
const TOGETHER: usize = 16;
/// The size at which a record is closed and the next begun, in bytes before compression: readers hold it whole.
const LARGEST: usize = 4 << 20;
/// The smallest message that anything is cut down to, in bytes.
const SMALLEST: usize = 4 * 1024;

/// The most bytes of a message with several jobs that go on or have died. Well below what any server takes, so that all of
/// them can publish what one has begun to.
const CUT: usize = 256 * 1024;

/// How long what was read of a run's records counts as what is there; where that is longer, three round trips.
const FRESH: Duration = Duration::from_millis(500);
/// How often an append gives way to records of another message of the same name before it counts as fenced.
const OTHERS: u32 = 3;

/// Why a run cannot be settled here.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Lost {
    /// Another executor has taken it over.
    #[error("another executor has taken the batch over")]
    Fenced,
    /// The broker refuses for good.
    #[error("the broker does not take what became of the batch")]
    Broker(#[from] BrokerError),
    /// An outcome cannot be written at all.
    #[error("what became of the batch cannot be written")]
    Wire(#[from] WireError),
}

/// The settling of one run. Owns the hold on its message: dropped, it settles nothing more.
pub(crate) struct Settling {
    node: Arc<Node>,
    work: Arc<Work>,
    held: Held,
    /// Ours alone; tells our own record from another's when an append is refused.
    writer: u64,
    /// The number of the next record.
    step: u32,
    /// Where the log stands, as far as we know.
    version: Version,
    /// When it was last settled up to.
    since: Instant,
    /// Whether it was delivered before.
    again: bool,
    /// Whether jobs are marked on record as begun by us.
    marked: bool,
    /// Whether the log has ended: somebody has settled the run whole, and only the ack was lost.
    ended: bool,
}

/// A record that stands in the log and whose publications may be missing.
#[must_use = "what the record obliges to is still to be published"]
enum Appended {
    /// It obliges to nothing.
    Silent,
    /// It is to be shown to readers, and no more.
    Quiet(u32, Bytes),
    /// It has jobs that go on, or have died.
    Record(Box<Record>, Bytes),
}

impl Appended {
    /// Whether it obliges to more than to show itself.
    fn obliges(&self) -> bool {
        matches!(self, Self::Record(..))
    }

    /// What `record`, read from `bytes`, may oblige to.
    fn of(record: Record, bytes: Bytes) -> Self {
        if record.iter().next().is_none() { Self::Silent } else { Self::Record(Box::new(record), bytes) }
    }
}

impl Settling {
    /// Takes the run up where its last holder left it: which places are settled already, and what is known against the
    /// others. `found` is what stood on record a while ago; if that is too long ago, it is read once more, for a run that
    /// waited for its turn may have been settled meanwhile, by a holder from whom nothing was heard when it was
    /// delivered again.
    pub(crate) async fn take_up(
        node: Arc<Node>,
        work: Arc<Work>,
        held: Held,
        delivered: u64,
        found: Option<Found>,
    ) -> Result<(Self, Vec<bool>, Suspicion), Lost> {
        let (since, again) = (Instant::now(), delivered > 1);
        let mut settled = vec![false; work.len()];
        let mut suspicion = Suspicion::default();
        let writer = node.writer();
        let (step, version) = (0, Version::NONE);
        let mut this = Self { node, work, held, writer, step, version, since, again, marked: false, ended: false };
        if again {
            let fresh = FRESH.max(3 * this.node.distance());
            let waited = found.as_ref().is_some_and(|found| found.at.elapsed() > fresh);
            let log = match found.filter(|_| !waited) {
                Some(found) => found.log,
                None => this.log().await?,
            };
            // No record, but it may have been settled without one.
            if waited && log.version == Version::NONE && !this.is_stored().await? {
                return Err(Lost::Fenced);
            }
            suspicion =
                Suspicion::read(log.records.iter().map(|(record, _)| record), &this.work, |writer| this.node.is_own(writer));
            this.follow(log, &mut settled).await?;
        }
        Ok((this, settled, suspicion))
    }

    /// Goes on from where `log` stands.
    async fn follow(&mut self, log: Log, settled: &mut [bool]) -> Result<(), Lost> {
        (self.step, self.version, self.ended) = (log.steps, log.version, log.ended);
        if log.ended {
            // All that its records obliged to was published before.
            settled.fill(true);
            return Ok(());
        }
        for outcome in log.records.iter().flat_map(|(record, _)| record.iter()) {
            if let Some(place) = self.work.place_of(outcome.index()) {
                settled[place] = true;
            }
        }
        // A record behind another says that all before it is published, unless it only says how.
        let mut scheduled = Vec::new();
        for (record, bytes) in log.records.into_iter().rev() {
            if let Some(Mark::Scheduled(firsts)) = record.mark() {
                scheduled.extend(firsts);
                continue;
            }
            let appended = Appended::of(record, bytes);
            let obliges = appended.obliges();
            if self.node.options.has_fault(KnownFault::ForgottenDetours) {
                scheduled.clear();
            }
            self.publish(appended, scheduled).await?;
            return if obliges { self.note_published().await } else { Ok(()) };
        }
        Ok(())
    }

    /// Says on record what is begun next, before it is.
    pub(crate) async fn mark(&mut self, mark: Mark) -> Result<(), Lost> {
        self.marked = mark != Mark::Nothing;
        let record = RecordBuilder::new(self.header()).marking(mark);
        self.append_silent(&record).await
    }

    /// Says on record that what the last one obliges to is published, when it may be long before the next. A broker
    /// remembers what it has stored for a while only; whoever took the run up after that would publish it all again.
    async fn note_published(&mut self) -> Result<(), Lost> {
        let record = RecordBuilder::new(self.header());
        self.append_silent(&record).await
    }

    /// Appends a record without outcomes: it obliges to nothing.
    async fn append_silent(&mut self, record: &RecordBuilder) -> Result<(), Lost> {
        let Appended::Silent = self.append(&[], record.encode()).await? else {
            return Err(WireError::Malformed("a record without outcomes").into());
        };
        Ok(())
    }

    /// Its jobs begin: only from now on there is something to settle.
    pub(crate) fn begin(&mut self) {
        self.since = Instant::now();
    }

    /// Steps 1 and 2 for `outcomes`, of a run that goes on, here or elsewhere.
    pub(crate) async fn commit(&mut self, outcomes: &[Outcome]) -> Result<(), Lost> {
        if self.settle(outcomes).await? { self.note_published().await } else { Ok(()) }
    }

    /// Steps 1 and 2 for `outcomes`: whether the last record obliged to more than to show itself.
    async fn settle(&mut self, outcomes: &[Outcome]) -> Result<bool, Lost> {
        let mut obliged = false;
        let mut size = (self.node.broker.max_message() / 2).min(LARGEST);
        let mut rest = outcomes;
        while !rest.is_empty() {
            let (bytes, count) = self.compose(rest, size);
            match self.append(&rest[..count], bytes).await {
                Ok(appended) => {
                    obliged = appended.obliges();
                    self.publish(appended, Vec::new()).await?;
                }
                Err(Lost::Broker(BrokerError::TooLarge { .. })) if count > 1 && size > SMALLEST => {
                    size /= 2;
                    continue;
                }
                Err(lost) => return Err(lost),
            }
            self.node.tally.settled(rest[..count].iter().map(Outcome::state));
            rest = &rest[count..];
        }
        self.since = Instant::now();
        Ok(obliged)
    }

    /// Steps 1 and 2 for the last jobs of the run, if they need them, and step 3.
    ///
    /// Without a record there is no fence, so an ack alone may come from one who was overtaken, in two ways that lose
    /// nothing: all jobs of the run have completed, at *its* hands. Who overtook it runs them once more, and may find
    /// the message gone. But of a run that was delivered before, records may be missing from what was read (a replica may
    /// lag), and with them retries that nobody has published; then only the append tells, and there is always one.
    pub(crate) async fn finish(mut self, done: Done) -> Result<(), Lost> {
        let remember = self.work.header.remember;
        let quick = !self.again
            && remember == 0
            && self.since.elapsed() <= self.node.options.checkpoint_interval() + Duration::from_millis(100);
        match done.plain().filter(|_| quick) {
            // Nothing to say but that all is done, which the ack says by itself, at whatever holder's hands.
            Some(completed) => count_up(&self.node.tally.completed, completed),
            // The ack follows: nobody has to be told.
            None => drop(self.settle(&done.into_outcomes()).await?),
        }
        if remember > 0 && self.version == Version::NONE {
            // A batch of no jobs. It was there all the same.
            self.mark(Mark::Nothing).await?;
        }
        let keep = Some(Duration::from_secs(remember.into())).filter(|keep| !keep.is_zero());
        let end = LogEnd { log: self.work.log.clone(), version: self.version, keep };
        self.held.ack(Some(end).filter(|_| self.version != Version::NONE && !self.ended));
        count_up(&self.node.tally.acked, 1);
        Ok(())
    }

    /// Gives the run back as far as it is committed; the next holder does the rest. From one who was overtaken this
    /// takes the run from its new holder and gives it to a third: each takes up what is on record, and of those who
    /// append one is fenced.
    pub(crate) async fn release(mut self) -> Result<(), Lost> {
        if self.marked {
            // Before the release, or whoever has it next would think that it was lost here.
            self.mark(Mark::Nothing).await?;
        }
        self.held.release();
        count_up(&self.node.tally.released, 1);
        Ok(())
    }

    fn header(&self) -> RecordHeader {
        RecordHeader {
            batch: self.work.header.id,
            run: self.work.log.run,
            step: self.step,
            writer: self.writer,
            executor: self.node.options.name().to_owned(),
            at: now(),
            lane: self.work.lane.clone(),
            format: self.work.header.format,
            cut: u32::try_from(self.node.broker.max_message().min(CUT)).unwrap_or(u32::MAX),
        }
    }

    /// As many of `outcomes` as fit into one record of about `size` bytes, at least one, and their number.
    fn compose(&self, outcomes: &[Outcome], size: usize) -> (Bytes, usize) {
        let mut record = RecordBuilder::new(self.header());
        let mut count = 0;
        for outcome in outcomes {
            // Outcomes are made for places that are there; one for none has nothing to say.
            let Some((index, attempt, kind)) = self.work.label(outcome.place as usize) else {
                count += 1;
                continue;
            };
            let added = match &outcome.end {
                End::Completed(result) => record.completed(index, attempt, kind, result),
                End::Otherwise(o) => record.failed(index, attempt, kind, o.state, o.failure.clone(), o.retry_at),
            };
            if !added {
                break;
            }
            count += 1;
            // The next one may not fit any more: it is at most as large as what is kept of a failure or a result.
            if record.raw_len() >= size {
                break;
            }
        }
        (record.encode(), count.max(1))
    }

    /// Step 1.
    async fn append(&mut self, outcomes: &[Outcome], bytes: Bytes) -> Result<Appended, Lost> {
        let opens = self.version == Version::NONE;
        self.version = self.append_where_it_stands(&bytes).await?;
        let step = self.step;
        self.step += 1;
        count_up(&self.node.tally.appends, 1);
        // The first record of a run is taken from whoever writes it when nobody remembers the run any more: also from one
        // who was stopped until another had settled it and the end of its log was forgotten.
        if opens && self.held.may_have_lapsed() && !self.is_stored().await? {
            let end = LogEnd { log: self.work.log.clone(), version: self.version, keep: None };
            insist("end a log", || self.node.broker.end(end.clone())).await?;
            return Err(Lost::Fenced);
        }
        Ok(match outcomes {
            [] => Appended::Silent,
            outcomes if outcomes.iter().all(|outcome| outcome.state() == State::Completed) => Appended::Quiet(step, bytes),
            // Read from the bytes that stand in the log, so that what is published now is what whoever reads them later
            // would publish.
            _ => Appended::Record(Box::new(Record::decode(&bytes, self.node.options.reading())?), bytes),
        })
    }

    async fn append_where_it_stands(&self, bytes: &Bytes) -> Result<Version, Lost> {
        let broker = &self.node.broker;
        let mut expected = self.version;
        for _ in 0..=OTHERS {
            let appended = insist("append a record", || broker.append(self.work.log.clone(), expected, bytes.clone())).await;
            match appended {
                Err(BrokerError::Fenced) => {}
                appended => return Ok(appended?),
            }
            let log = self.log().await?;
            // It had been done before, and only its answer was lost: then our own record is the last in the log. If
            // others follow it, their writer has taken over all that ours obliges to.
            let ours = |(last, _): &(Record, Bytes)| (last.header().writer, last.header().step) == (self.writer, self.step);
            if log.records.last().is_some_and(ours) {
                return Ok(log.version);
            }
            // A message that is long gone had the same name, and these are its records: they are no fence to ours.
            let others = log.steps == 0 && !log.ended && self.step == 0 && log.version != expected;
            if !others {
                break;
            }
            expected = log.version;
        }
        Err(Lost::Fenced)
    }

    async fn is_stored(&self) -> Result<bool, Lost> {
        Ok(insist("look for a message", || self.held.stored()).await?)
    }

    /// Step 2; `scheduled` are those messages, by their first jobs, that an earlier publisher had to schedule.
    async fn publish(&mut self, appended: Appended, mut scheduled: Vec<u32>) -> Result<(), Lost> {
        let (step, bytes, record) = match appended {
            Appended::Silent => return Ok(()),
            Appended::Quiet(step, bytes) => (step, bytes, None),
            Appended::Record(record, bytes) => (record.header().step, bytes, Some(record)),
        };
        let copy = copy(&self.work.log, step, &self.work.lane, bytes);
        let refused = self.publish_all(record.as_deref(), &scheduled, Some(copy)).await?;
        let Some(record) = record.filter(|_| !refused.is_empty()) else { return Ok(()) };
        // The others are stored, and these are surely not. They go another way, and that is on record before they do.
        scheduled = refused;
        let mark = RecordBuilder::new(self.header()).marking(Mark::Scheduled(scheduled.clone()));
        self.append_silent(&mark).await?;
        self.publish_all(Some(&record), &scheduled, None).await.map(drop)
    }

    /// Publishes what `record` obliges to, and its copy; without one, only what is `scheduled`. Gives the first jobs of
    /// those messages that their lane did not take.
    async fn publish_all(&self, record: Option<&Record>, scheduled: &[u32], copy: Option<Publication>) -> Result<Vec<u32>, Lost> {
        let broker: &dyn Broker = &*self.node.broker;
        let mut max = broker.max_message();
        loop {
            let follows = record.map(|record| plan(record, &self.work, scheduled, max)).transpose()?.unwrap_or_default();
            let wanted = follows.into_iter().filter(|publication| copy.is_some() || publication.is_diverted());
            let each = copy.clone().into_iter().chain(wanted).map(|publication| publication.publish(broker));
            match stream::iter(each).buffer_unordered(TOGETHER).try_collect::<Vec<_>>().await {
                Err(BrokerError::TooLarge { .. }) if max > SMALLEST => max /= 2,
                answer => return Ok(answer?.into_iter().flatten().collect()),
            }
        }
    }

    /// What stands in the log of the run.
    async fn log(&self) -> Result<Log, Lost> {
        Log::read(&self.node, &self.work).await
    }
}

/// What stood on record of a run when that was looked up.
pub(crate) struct Found {
    log: Log,
    at: Instant,
}

impl Found {
    /// Looks up what is on record of the run of `work`.
    pub(crate) async fn look_up(node: &Node, work: &Work) -> Result<Self, Lost> {
        let at = Instant::now();
        Ok(Self { log: Log::read(node, work).await?, at })
    }
}

/// The log of one run.
struct Log {
    /// Those that can be read, in order, and their bytes.
    records: Vec<(Record, Bytes)>,
    /// How many there are.
    steps: u32,
    version: Version,
    /// Somebody has settled the run whole.
    ended: bool,
}

impl Log {
    async fn read(node: &Node, work: &Work) -> Result<Self, Lost> {
        let name = &work.log;
        let logged = insist("read records", || node.broker.read_run(name.clone())).await?;
        let steps = u32::try_from(logged.records.len()).unwrap_or(u32::MAX);
        let mut log = Self { records: Vec::new(), steps, version: logged.version, ended: logged.ended };
        for logged in logged.records {
            match Record::decode(&logged.bytes, node.options.reading()) {
                Ok(record) => log.records.push((record, logged.bytes)),
                // What it settled is run again: twice is better than never.
                Err(error) => tracing::error!(batch = %name.batch, run = %name.run, %error, "a record cannot be read"),
            }
        }
        Ok(log)
    }
}

#[cfg(test)]
mod tests;
