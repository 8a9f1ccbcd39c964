//! The logs of the runs. Their records are also what readers read: there are no copies.
//!
//! Retention drops the oldest records, but none of a run whose message is still stored: without them the run would
//! start over. It passes over those, and drops them once their message is gone. They do not count against the limits,
//! or long runs would push the outcomes of all others out.

use std::collections::HashMap;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::sync::broadcast::{self, error::RecvError};
use wf_schema::{BatchId, Millis, RunId, now};

use super::core::OrUnreadable;
use super::ended::Ended;
use super::keys::{self, Age};
use super::lanes::Lanes;
use super::oldest::Oldest;
use super::publish::check_size;
use super::store::{KeyRange, Space, Store, StoreResult};
use super::watchers::Watch;
use super::writer::{Round, Writer};
use super::{Embedded, EmbeddedOptions, OpenCause};
use crate::{BoxFuture, BrokerError, Hint, Key, LogEnd, LoggedRecord, LoggedRun, OutcomeLog, Result, RunLog, Version};

/// What a record counts beyond its own bytes.
const RECORD_OVERHEAD: u64 = 128;
/// Records that retention looks at in one round, so that a burst of them delays nobody.
const LOOKED_AT_AT_ONCE: usize = 2048;
/// What the keys of those keyed records begin with that say which runs have ended: `end.<batch>.<run>`, with the id of
/// the run's message in it.
pub(super) const END: &str = "end";

pub(super) struct Outcomes {
    most_records: u64,
    most_bytes: u64,
    most_age: Millis,
    /// All that there are, and their bytes.
    records: u64,
    bytes: u64,
    oldest: Oldest,
    /// What retention has passed over, by the sequence of the run's message; and how much that is.
    open: HashMap<u64, Vec<Age>>,
    open_records: u64,
    open_bytes: u64,
    /// From when on nothing was dropped. That is not kept: what a broker has dropped in an earlier life, it may have
    /// dropped until it was opened.
    kept_since: Millis,
    /// Where runs stand after this round's appends, which the store does not have yet.
    heads: HashMap<(BatchId, RunId), u64>,
}

impl Outcomes {
    pub(super) fn open(store: &dyn Store, options: &EmbeddedOptions) -> Result<Self, OpenCause> {
        let known = store.get(Space::Meta, keys::OUTCOME_SIZE)?;
        let [records, bytes] = match &known {
            Some(value) => keys::read_numbers(value)?,
            None => [0, 0],
        };
        let mut oldest = Oldest::new(Space::Ages);
        oldest.peek(store)?;
        Ok(Self {
            most_records: options.outcome_records,
            most_bytes: options.outcome_bytes,
            most_age: options.outcome_age.as_millis() as Millis,
            records,
            bytes,
            oldest,
            open: HashMap::new(),
            open_records: 0,
            open_bytes: 0,
            kept_since: if known.is_some() { now() } else { 0 },
            heads: HashMap::new(),
        })
    }

    /// When the next record is too old.
    pub(super) fn next(&self) -> Option<Millis> {
        let oldest = Age::read(self.oldest.known()?).ok()?;
        Some(oldest.stored_at.saturating_add(self.most_age).saturating_add(1))
    }

    /// The round is over: the store has what it wrote.
    pub(super) fn committed(&mut self) {
        self.heads.clear();
    }

    fn is_too_much(&self) -> bool {
        self.records.saturating_sub(self.open_records) > self.most_records
            || self.bytes.saturating_sub(self.open_bytes) > self.most_bytes
    }

    /// Retention passes over a record.
    fn pass_over(&mut self, age: Age) {
        self.open_records += 1;
        self.open_bytes += age.weight();
        self.open.entry(age.run.sequence()).or_default().push(age);
    }

    /// The records that were passed over for the sake of the message with `sequence`.
    fn take_open(&mut self, sequence: u64) -> Vec<Age> {
        let ages = self.open.remove(&sequence).unwrap_or_default();
        self.open_records -= ages.len() as u64;
        self.open_bytes -= ages.iter().map(Age::weight).sum::<u64>();
        ages
    }

    fn drop_record(&mut self, round: &mut Round, age: &Age) {
        round.remove(Space::Outcomes, keys::outcome(age.batch, age.run, age.version));
        round.remove(Space::Ages, age.key());
        self.kept_since = self.kept_since.max(age.stored_at.saturating_add(1));
        self.records = self.records.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(age.weight());
    }

    fn write_size(&self, round: &mut Round) {
        let mut size = BytesMut::with_capacity(16);
        size.put_u64(self.records);
        size.put_u64(self.bytes);
        round.put(Space::Meta, keys::OUTCOME_SIZE.to_vec(), size.freeze());
    }
}

impl Age {
    /// What the record counts against the limits.
    fn weight(&self) -> u64 {
        u64::from(self.size) + RECORD_OVERHEAD
    }
}

impl OutcomeLog for Embedded {
    fn append(&self, log: RunLog, expected: Version, bytes: Bytes) -> BoxFuture<'_, Version> {
        Box::pin(async move {
            check_size(bytes.len(), self.core.options.max_message)?;
            let cost = bytes.len();
            let append = move |writer: &mut Writer, round: &mut Round| writer.append(round, &log, expected, bytes);
            self.core.ask("append the outcome", cost, append).await
        })
    }

    fn read_run(&self, log: RunLog) -> BoxFuture<'_, LoggedRun> {
        Box::pin(async move {
            let records = self.records_of(KeyRange::prefix(&keys::outcomes_of_run(log.batch, log.run))).await?;
            let version = records.last().map_or(Version::NONE, |last| last.version);
            // Who has a message that is gone was overtaken by one who has settled it.
            let ended = !self.core.lanes(|lanes| is_open(lanes, log.run));
            Ok(LoggedRun { records: if ended { Vec::new() } else { records }, version, ended })
        })
    }

    fn publish_outcome(&self, _: RunLog, _: u32, _: Bytes) -> BoxFuture<'_, ()> {
        // Readers see the log itself.
        Box::pin(std::future::ready(Ok(())))
    }

    fn end(&self, end: LogEnd) -> BoxFuture<'_, ()> {
        let sequence = end.log.run.sequence();
        Box::pin(self.core.ask("end the log", 0, move |writer, round| {
            if !writer.core.lanes(|lanes| is_open(lanes, end.log.run)) {
                writer.end_log(round, sequence, Some(end));
            }
            Ok(())
        }))
    }

    fn read(&self, batch: BatchId) -> BoxFuture<'_, Vec<LoggedRecord>> {
        Box::pin(self.records_of(KeyRange::prefix(&keys::outcomes_of(batch))))
    }

    fn kept_since(&self) -> BoxFuture<'_, Millis> {
        Box::pin(self.core.ask("ask for the oldest outcome", 0, |writer, _| Ok(writer.outcomes.kept_since)))
    }

    fn watch(&self, batch: BatchId) -> BoxFuture<'_, Box<dyn Hint>> {
        Box::pin(async move {
            let watch = self.core.outcomes.watch(batch).ok_or_else(|| Ended::Closed.refuse("watch the batch"))?;
            Ok(Box::new(OneBatch(watch)) as Box<dyn Hint>)
        })
    }

    fn watch_all(&self) -> BoxFuture<'_, Box<dyn Hint>> {
        Box::pin(async move {
            let watch = self.core.outcomes.watch_all().ok_or_else(|| Ended::Closed.refuse("watch the batches"))?;
            Ok(Box::new(AllBatches(watch)) as Box<dyn Hint>)
        })
    }
}

impl Embedded {
    async fn records_of(&self, range: KeyRange) -> Result<Vec<LoggedRecord>> {
        const WHAT: &str = "read the outcomes";
        let read = |(key, bytes): (Bytes, Bytes)| {
            let (_, run, version) = keys::read_outcome(&key).or_unreadable(WHAT)?;
            Ok(LoggedRecord { run, version: Version(version), bytes })
        };
        let records = move |store: &dyn Store| {
            let records = store.pairs(Space::Outcomes, &range, usize::MAX);
            records.or_unreadable(WHAT)?.into_iter().map(read).collect()
        };
        self.core.read(WHAT, records).await
    }
}

/// Whether `run` is one of this broker whose message waits or is somebody's.
fn is_open(lanes: &Lanes, run: RunId) -> bool {
    is_ours(run) && lanes.has(run.sequence())
}

fn is_ours(run: RunId) -> bool {
    run == RunId::new(keys::RUN_LETTER, run.sequence())
}

struct OneBatch(Watch<BatchId>);

impl Hint for OneBatch {
    fn changed(&mut self) -> BoxFuture<'_, Option<BatchId>> {
        Box::pin(async { self.0.changed().await.map(Some).ok_or_else(|| Ended::Closed.refuse("watch the batch")) })
    }
}

struct AllBatches(broadcast::Receiver<BatchId>);

impl Hint for AllBatches {
    fn changed(&mut self) -> BoxFuture<'_, Option<BatchId>> {
        Box::pin(async {
            match self.0.recv().await {
                Ok(batch) => Ok(Some(batch)),
                Err(RecvError::Lagged(_)) => Ok(None),
                Err(RecvError::Closed) => Err(Ended::Closed.refuse("watch the batches")),
            }
        })
    }
}

impl Writer {
    fn append(&mut self, round: &mut Round, log: &RunLog, expected: Version, bytes: Bytes) -> Result<Version> {
        let (batch, run) = (log.batch, log.run);
        if !self.core.lanes(|lanes| is_open(lanes, run)) {
            return Err(BrokerError::Fenced);
        }
        let head = match self.outcomes.heads.get(&(batch, run)) {
            Some(head) => *head,
            None => self.head(batch, run)?,
        };
        if head != expected.0 {
            return Err(BrokerError::Fenced);
        }
        // A number of the sequence rather than a count: one that was dropped for its age never comes again.
        let version = self.sequence.next(round);
        let age = Age { version, stored_at: round.now, size: bytes.len() as u32, batch, run };
        round.put(Space::Ages, age.key(), Bytes::new());
        round.put(Space::Outcomes, keys::outcome(batch, run, version), bytes);
        round.outcome_changed(batch);
        let outcomes = &mut self.outcomes;
        outcomes.heads.insert((batch, run), version);
        outcomes.records += 1;
        outcomes.bytes += age.weight();
        outcomes.write_size(round);
        Ok(Version(version))
    }

    fn head(&self, batch: BatchId, run: RunId) -> Result<u64> {
        const WHAT: &str = "append the outcome";
        let all = KeyRange::prefix(&keys::outcomes_of_run(batch, run));
        match self.store.last_key(Space::Outcomes, &all).or_unreadable(WHAT)? {
            Some(key) => Ok(keys::read_outcome(&key).or_unreadable(WHAT)?.2),
            None => Ok(Version::NONE.0),
        }
    }

    /// The message with `sequence` is gone, and with it the need for what retention has passed over. What is to be
    /// remembered of the run for longer becomes a keyed record, in the same commit.
    pub(super) fn end_log(&mut self, round: &mut Round, sequence: u64, end: Option<LogEnd>) {
        let ages = self.outcomes.take_open(sequence);
        for age in &ages {
            self.outcomes.drop_record(round, age);
        }
        if !ages.is_empty() {
            self.outcomes.write_size(round);
        }
        if let Some(LogEnd { log, keep: Some(keep), .. }) = end
            && let Ok(key) = Key::new(&format!("{END}.{}.{}", log.batch, log.run))
            && let Err(error) = self.put_record(round, key, log.message.as_bytes(), Some(keep))
        {
            tracing::error!(batch = %log.batch, error = &error as &dyn std::error::Error, "the end of a run is not remembered");
        }
    }

    /// Drops the oldest records, as far as they are too old or too many and no open run needs them.
    pub(super) fn drop_old_outcomes(&mut self, round: &mut Round) -> StoreResult<()> {
        let outcomes = &mut self.outcomes;
        let mut dropped = 0;
        for _ in 0..LOOKED_AT_AT_ONCE {
            let too_much = outcomes.is_too_much();
            let Some(key) = outcomes.oldest.peek(&*self.store)? else { break };
            let Ok(age) = Age::read(key) else {
                outcomes.oldest.pop();
                continue;
            };
            if !too_much && age.stored_at.saturating_add(outcomes.most_age) >= round.now {
                break;
            }
            outcomes.oldest.pop();
            if is_ours(age.run) && self.core.lanes(|lanes| lanes.may_come_again(age.run.sequence())) {
                outcomes.pass_over(age);
                continue;
            }
            outcomes.drop_record(round, &age);
            dropped += 1;
        }
        if dropped > 0 {
            outcomes.write_size(round);
        }
        Ok(())
    }
}
