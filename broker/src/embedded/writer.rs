//! The writer: one thread that makes all changes.
//!
//! It takes whatever waits, works on it, commits it all as one batch, and only then answers: a *round*. While a round
//! is on its way to the disk the next one gathers, so the slower the disk, the larger the rounds (group commit).
//! Whatever is due (leases, schedules, crons, retention) is part of the next round, and wakes the writer if there is
//! none.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::oneshot;
use wf_schema::{BatchId, Lane, Millis, now};

use super::core::Core;
use super::crons::Crons;
use super::dead::Dead;
use super::ended::Ended;
use super::keys;
use super::lanes::{Entry, Lanes, Removed};
use super::later::Later;
use super::outcomes::Outcomes;
use super::recent::Recent;
use super::records::Records;
use super::sequence::Sequence;
use super::stall::Stall;
use super::store::{DiskError, Durability, Room, Space, Store, Write};
use super::{OpenCause, publish};
use crate::{BrokerError, Key, Result};

/// The most that one round writes: about what a fast disk takes in 50 ms.
const ROUND_BYTES: usize = 16 << 20;
const ROUND_OPS: usize = 8192;
/// The longest that a round waits for company.
const LONGEST_GATHERING: Duration = Duration::from_millis(2);
/// How long acknowledgements gather before they are committed, if nothing else is asked meanwhile.
const NUDGE_GATHERING: Duration = Duration::from_millis(1);
/// The longest sleep, so that a clock that was set forward is noticed.
const LONGEST_SLEEP: Duration = Duration::from_secs(10);

/// Work on the writer's thread.
pub(super) type Work = Box<dyn FnOnce(&mut Writer, &mut Round) + Send>;
/// What is done once a round is committed, or not.
pub(super) type Answer = Box<dyn FnOnce(Result<(), DiskError>) + Send>;

/// What the writer is told.
pub(super) enum Op {
    /// Do this, as part of the next round.
    Ask(Work),
    /// The lanes have something for you.
    Nudge,
    /// Commit what is there, and end.
    Close(Option<oneshot::Sender<Result<()>>>),
}

/// What is gathered for one commit.
pub(super) struct Round {
    /// When it began.
    pub(super) now: Millis,
    writes: Vec<Write>,
    bytes: usize,
    /// Whether somebody is told that it is durable.
    sync: bool,
    arrivals: Vec<(Lane, Entry, Bytes)>,
    outcomes: Vec<BatchId>,
    records: Vec<Key>,
    answers: Vec<Answer>,
    /// Whether the disk has room for more, once it was looked at.
    room: Option<bool>,
}

impl Round {
    pub(super) fn new() -> Self {
        Self {
            now: now(),
            writes: Vec::new(),
            bytes: 0,
            sync: false,
            arrivals: Vec::new(),
            outcomes: Vec::new(),
            records: Vec::new(),
            answers: Vec::new(),
            room: None,
        }
    }

    pub(super) fn put(&mut self, space: Space, key: Vec<u8>, value: Bytes) {
        self.bytes += key.len() + value.len();
        self.writes.push(Write { space, key, value: Some(value) });
    }

    pub(super) fn remove(&mut self, space: Space, key: Vec<u8>) {
        self.bytes += key.len();
        self.writes.push(Write { space, key, value: None });
    }

    /// A message whose weight is reserved: stored with the round, delivered after it.
    pub(super) fn store_message(&mut self, lane: Lane, entry: Entry, value: Bytes) {
        self.put(Space::Messages, keys::message(&lane, &entry), value.clone());
        self.arrivals.push((lane, entry, value));
    }

    /// The log of `batch` has changed with the round.
    pub(super) fn outcome_changed(&mut self, batch: BatchId) {
        self.outcomes.push(batch);
    }

    /// The record of `key` has changed with the round.
    pub(super) fn record_changed(&mut self, key: Key) {
        self.records.push(key);
    }

    /// Does `work`, after which the round is durable if anything was written.
    pub(super) fn synced<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.writes.len();
        let done = work(self);
        self.sync |= self.writes.len() > before;
        done
    }

    pub(super) fn answer(&mut self, answer: Answer) {
        self.answers.push(answer);
    }

    /// Tells all who wait for it.
    pub(super) fn answer_all(&mut self, committed: &Result<(), DiskError>) {
        self.answers.drain(..).for_each(|answer| answer(committed.clone()));
    }

    /// What it changes in the store.
    pub(super) fn writes(&self) -> &[Write] {
        &self.writes
    }

    /// Whether it has taken so much that the rest should wait for the next.
    pub(super) fn is_large(&self) -> bool {
        self.bytes >= ROUND_BYTES || self.writes.len() >= ROUND_OPS
    }

    fn is_full(&self) -> bool {
        self.is_large() || self.answers.len() >= ROUND_OPS
    }
}

/// All that only the writer changes. Each part is in a file of its own, with the writer's work on it.
pub(super) struct Writer {
    pub(super) core: Arc<Core>,
    pub(super) store: Arc<dyn Store>,
    pub(super) ops: Receiver<Op>,
    ended: Option<Ended>,
    /// A round that has to be made before anything else.
    pub(super) stall: Option<Stall>,
    /// Whether the disk had no room when that was last looked up.
    cramped: bool,
    pace: Pace,
    pub(super) sequence: Sequence,
    pub(super) recent: Recent,
    pub(super) later: Later,
    pub(super) crons: Crons,
    pub(super) outcomes: Outcomes,
    pub(super) records: Records,
    pub(super) dead: Dead,
}

impl Writer {
    /// Reads what the store holds.
    pub(super) fn open(core: Arc<Core>, store: Arc<dyn Store>, ops: Receiver<Op>) -> Result<Self, OpenCause> {
        core.lanes(|lanes| {
            publish::restore(&*store, lanes)?;
            super::control::restore(&*store, lanes)
        })?;
        let options = &core.options;
        Ok(Self {
            ended: None,
            stall: None,
            cramped: false,
            pace: Pace::default(),
            sequence: Sequence::open(&*store)?,
            recent: Recent::open(&*store, options)?,
            later: core.lanes(|lanes| Later::open(&*store, lanes))?,
            crons: Crons::open(&*store)?,
            outcomes: Outcomes::open(&*store, options)?,
            records: Records::open(&*store)?,
            dead: Dead::open(&*store, options)?,
            core,
            store,
            ops,
        })
    }

    /// The error for who asks `what`, if nothing is done any more.
    pub(super) fn ended(&self, what: &'static str) -> Option<BrokerError> {
        self.ended.as_ref().map(|ended| ended.refuse(what))
    }

    /// The same, also if nothing is done for now.
    pub(super) fn refusal(&self, what: &'static str) -> Option<BrokerError> {
        self.ended(what).or_else(|| Some(self.stall.as_ref()?.refuse(what)))
    }

    /// Whether the disk has room for what comes with `round`. What is there can leave with what is left.
    pub(super) fn has_room(&mut self, round: &mut Round) -> bool {
        let has_room = *round.room.get_or_insert_with(|| self.store.room() == Room::Enough);
        match (has_room, std::mem::replace(&mut self.cramped, !has_room)) {
            (false, false) => tracing::error!("the embedded broker's disk has no room: no more jobs are taken until it has"),
            (true, true) => tracing::info!("the embedded broker's disk has room again"),
            _ => {}
        }
        has_room
    }

    /// Runs until it is closed.
    pub(super) fn run(mut self) {
        // Also if a part of it panics: nobody may be left waiting.
        let last = EndOnDrop(Arc::clone(&self.core));
        let reply = self.serve();
        self.refuse_the_rest();
        let closed = match self.ended.take() {
            Some(Ended::Broken(error)) => Err(BrokerError::fatal("confirm what was settled", error)),
            _ => Ok(()),
        };
        // The store is let go before anybody hears of the end, so that its path can be opened again.
        drop(self);
        drop(last);
        if let Some(reply) = reply {
            let _ = reply.send(closed);
        }
    }

    fn serve(&mut self) -> Option<oneshot::Sender<Result<()>>> {
        loop {
            let mut first = self.sit_out().or_else(|| self.sleep());
            if let Some(Op::Nudge) = first {
                // Nobody waits for an acknowledgement to be committed: more of them may come along.
                first = self.ops.recv_timeout(NUDGE_GATHERING).ok();
            }
            let mut round = Round::new();
            self.begin(&mut round);
            let begun = Instant::now();
            let mut closing = None;
            let mut next = first;
            while let Some(op) = next {
                match op {
                    Op::Ask(work) => work(self, &mut round),
                    Op::Nudge => {}
                    Op::Close(reply) => {
                        closing = Some(reply);
                        self.settle(&mut round);
                        break;
                    }
                }
                next = if round.is_full() { None } else { self.gather(&round, begun) };
            }
            self.commit(round);
            if let Some(reply) = closing {
                return reply;
            }
        }
    }

    /// Waits for the next thing to do: an op, or something that is due.
    fn sleep(&mut self) -> Option<Op> {
        if let Ok(op) = self.ops.try_recv() {
            return Some(op);
        }
        let (wall, now) = (now(), Instant::now());
        let due = [self.later.next(), self.crons.next(), self.records.next(), self.outcomes.next(), self.dead.next()];
        let until = self.core.lanes(|lanes| {
            let due = due.into_iter().flatten().chain(lanes.pauses.next()).min().filter(|_| self.ended.is_none());
            let wait = due.map_or(LONGEST_SLEEP, |due| Duration::from_millis(due.saturating_sub(wall)).min(LONGEST_SLEEP));
            lanes.sleep(now, now + wait)
        });
        let op = self.ops.recv_timeout(until.saturating_duration_since(now));
        self.core.lanes(Lanes::awake);
        match op {
            Ok(op) => Some(op),
            Err(RecvTimeoutError::Timeout) => None,
            // The core has a sender, and this has the core.
            Err(RecvTimeoutError::Disconnected) => Some(Op::Close(None)),
        }
    }

    /// The next op of a round, if there is one or it is worth waiting for.
    ///
    /// Those who were answered by the last round are about to ask again. A round that leaves without them costs a
    /// whole write of its own, so it waits for about as many as there were, for a fraction of what a write takes. One
    /// who asks alone is never kept waiting.
    fn gather(&self, round: &Round, begun: Instant) -> Option<Op> {
        let op = self.ops.try_recv().ok();
        if op.is_some() || !round.sync || round.answers.len() >= self.pace.answers {
            return op;
        }
        let left = self.pace.patience().saturating_sub(begun.elapsed());
        if left.is_zero() { None } else { self.ops.recv_timeout(left).ok() }
    }

    /// Puts into the round what is due.
    fn begin(&mut self, round: &mut Round) {
        if self.ended.is_some() {
            return;
        }
        self.core.lanes(|lanes| lanes.expire(Instant::now()));
        self.remove_acknowledged(round);
        let due = self.end_pauses(round).and_then(|()| {
            self.recent.forget(round);
            self.fire_later(round)?;
            self.fire_crons(round)?;
            self.expire_records(round)?;
            self.drop_old_outcomes(round)?;
            self.drop_old_letters(round)
        });
        if let Err(error) = due {
            self.break_off(error);
        }
    }

    /// Removes what was acknowledged until now.
    fn remove_acknowledged(&mut self, round: &mut Round) {
        for Removed { lane, entry, end } in self.core.lanes(Lanes::take_removed) {
            round.remove(Space::Messages, keys::message(&lane, &entry));
            self.end_log(round, entry.sequence, end);
        }
    }

    /// Makes durable all that was acknowledged until now, also what was since the round began.
    pub(super) fn settle(&mut self, round: &mut Round) {
        self.remove_acknowledged(round);
        round.sync = true;
    }

    fn commit(&mut self, mut round: Round) {
        let durability = if round.sync { Durability::Synced } else { Durability::Buffered };
        let mut committed = Ok(());
        if let Some(Ended::Broken(error)) = &self.ended {
            committed = Err(error.clone());
        } else if round.sync || !round.writes.is_empty() {
            let begun = Instant::now();
            committed = self.store.commit(&round.writes, durability);
            if round.sync {
                self.pace = Pace { answers: round.answers.len(), commit: begun.elapsed() };
            }
        }
        match committed {
            Ok(()) => self.made(round),
            Err(error) => {
                round.answer_all(&Err(error.clone()));
                if self.ended.is_none() && error.is_mendable() {
                    self.stall = Some(Stall::new(round, error, &*self.store));
                } else {
                    self.break_off(error);
                }
            }
        }
    }

    /// The round is committed: all may know.
    pub(super) fn made(&mut self, mut round: Round) {
        self.outcomes.committed();
        self.records.committed();
        self.dead.committed();
        self.core.lanes(|lanes| {
            for (lane, entry, value) in round.arrivals.drain(..) {
                lanes.arrive(&lane, entry, Some(value));
            }
        });
        round.outcomes.iter().for_each(|batch| self.core.outcomes.changed(batch));
        round.records.iter().for_each(|key| self.core.records.changed(key));
        round.answer_all(&Ok(()));
    }

    /// After a write that failed nothing is certain but what the store says when it is opened anew.
    pub(super) fn break_off(&mut self, error: DiskError) {
        if self.ended.is_none() {
            tracing::error!(error = &error as &dyn std::error::Error, "the embedded broker cannot write and stops");
            self.ended = Some(Ended::Broken(error.clone()));
            self.core.end(Ended::Broken(error));
        }
    }

    fn refuse_the_rest(&mut self) {
        let ended = self.ended.get_or_insert(Ended::Closed).clone();
        self.core.end(ended);
        while let Ok(op) = self.ops.try_recv() {
            match op {
                Op::Ask(work) => self.decline(work),
                Op::Close(Some(reply)) => {
                    let _ = reply.send(Ok(()));
                }
                Op::Close(None) | Op::Nudge => {}
            }
        }
    }
}

/// What the last round that had to be durable was like.
#[derive(Default)]
struct Pace {
    answers: usize,
    commit: Duration,
}

impl Pace {
    fn patience(&self) -> Duration {
        // Alone before, likely alone again.
        if self.answers > 1 { (self.commit / 4).min(LONGEST_GATHERING) } else { Duration::ZERO }
    }
}

/// Ends the broker with the writer's thread.
struct EndOnDrop(Arc<Core>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.end(Ended::Closed);
        self.0.release_store();
    }
}
