//! The outcome log.

use std::collections::HashMap;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::sync::broadcast::{self, error::RecvError};
use wf_schema::{BatchId, Millis, RunId};

use super::core::OrUnreadable;
use super::ended::Ended;
use super::keys::{self, Age};
use super::oldest::Oldest;
use super::publish::check_size;
use super::store::{KeyRange, Space, Store, StoreResult};
use super::watchers::Watch;
use super::writer::{Round, Writer};
use super::{Embedded, EmbeddedOptions, OpenCause};
use crate::{BoxFuture, BrokerError, Hint, LoggedRecord, OutcomeLog, Result, Version};

/// What a record counts beyond its own bytes.
const RECORD_OVERHEAD: u64 = 128;
/// Records that are dropped in one round, so that a burst of them delays nobody.
const DROPPED_AT_ONCE: usize = 2048;

pub(super) struct Outcomes {
    most_records: u64,
    most_bytes: u64,
    most_age: Millis,
    records: u64,
    bytes: u64,
    oldest: Oldest,
    /// Where runs stand after this round's appends, which the store does not have yet.
    heads: HashMap<(BatchId, RunId), u64>,
}

impl Outcomes {
    pub(super) fn open(store: &dyn Store, options: &EmbeddedOptions) -> Result<Self, OpenCause> {
        let [records, bytes] = match store.get(Space::Meta, keys::OUTCOME_SIZE)? {
            Some(value) => keys::read_numbers(&value)?,
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
        self.records > self.most_records || self.bytes > self.most_bytes
    }

    fn write_size(&self, round: &mut Round) {
        let mut size = BytesMut::with_capacity(16);
        size.put_u64(self.records);
        size.put_u64(self.bytes);
        round.put(Space::Meta, keys::OUTCOME_SIZE.to_vec(), size.freeze());
    }
}

impl OutcomeLog for Embedded {
    fn append(&self, batch: BatchId, run: RunId, expected: Version, bytes: Bytes) -> BoxFuture<'_, Version> {
        Box::pin(async move {
            check_size(bytes.len(), self.core.options.max_message)?;
            let cost = bytes.len();
            let append = move |writer: &mut Writer, round: &mut Round| writer.append(round, batch, run, expected, bytes);
            self.core.ask("append the outcome", cost, append).await
        })
    }

    fn read(&self, batch: BatchId) -> BoxFuture<'_, Vec<LoggedRecord>> {
        const WHAT: &str = "read the outcomes";
        Box::pin(self.core.read(WHAT, move |store| {
            let records = store.pairs(Space::Outcomes, &KeyRange::prefix(&keys::outcomes_of(batch)), usize::MAX);
            let read = |(key, bytes): (Bytes, Bytes)| {
                let (_, run, version) = keys::read_outcome(&key).or_unreadable(WHAT)?;
                Ok(LoggedRecord { run, version: Version(version), bytes })
            };
            records.or_unreadable(WHAT)?.into_iter().map(read).collect()
        }))
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
    fn append(&mut self, round: &mut Round, batch: BatchId, run: RunId, expected: Version, bytes: Bytes) -> Result<Version> {
        let head = match self.outcomes.heads.get(&(batch, run)) {
            Some(head) => *head,
            None => self.head(batch, run)?,
        };
        if head != expected.0 {
            return Err(BrokerError::Fenced);
        }
        // A number of the sequence rather than a count: one that was dropped for its age never comes again.
        let version = self.sequence.next(round);
        let size = bytes.len() as u32;
        round.put(Space::Ages, Age { version, stored_at: round.now, size, batch, run }.key(), Bytes::new());
        round.put(Space::Outcomes, keys::outcome(batch, run, version), bytes);
        round.outcome_changed(batch);
        let outcomes = &mut self.outcomes;
        outcomes.heads.insert((batch, run), version);
        outcomes.records += 1;
        outcomes.bytes += u64::from(size) + RECORD_OVERHEAD;
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

    /// Drops the oldest records, as far as they are too old or too many.
    pub(super) fn drop_old_outcomes(&mut self, round: &mut Round) -> StoreResult<()> {
        let outcomes = &mut self.outcomes;
        let mut dropped = 0;
        while outcomes.records > 0 && dropped < DROPPED_AT_ONCE {
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
            round.remove(Space::Outcomes, keys::outcome(age.batch, age.run, age.version));
            round.remove(Space::Ages, age.key());
            outcomes.records -= 1;
            outcomes.bytes = outcomes.bytes.saturating_sub(u64::from(age.size) + RECORD_OVERHEAD);
            dropped += 1;
        }
        if dropped > 0 {
            outcomes.write_size(round);
        }
        Ok(())
    }
}
