//! The writer: one thread that makes all changes. It takes whatever waits, commits it as one, and only then answers, so
//! that the slower the disk is, the more share a sync (group commit).

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;
use wf_broker::DiskError;
use wf_schema::now;

use super::entry::{Record, Slot, weight};
use super::store::{Change, Space};
use super::{Shared, SpoolError};
use crate::envelope::Envelope;

/// The most that one commit writes.
const ROUND_BYTES: usize = 8 << 20;
const ROUND_OPS: usize = 4_096;
/// How long to wait before a database that failed is opened anew, and what was shipped is removed again.
const MEND_AFTER: Duration = Duration::from_secs(1);

pub(super) type Answer = oneshot::Sender<Result<(), SpoolError>>;

/// What the writer is told.
pub(super) enum Op {
    /// Put these, all or none. Their room was made.
    Put { envelopes: Vec<Envelope>, sent: bool, answer: Answer },
    /// Mark these as sent.
    Mark { entries: Vec<(Slot, Record)>, answer: Answer },
    /// Remove these: the broker has them. Nobody waits for it; it is tried until it works.
    Remove(Vec<(Slot, Record)>),
    /// Set this aside.
    SetAside { slot: Slot, record: Option<Record> },
    /// End.
    Close(Answer),
}

/// How the writer is told.
#[derive(Clone)]
pub(super) enum Ops {
    /// On its own thread.
    Thread(Sender<Op>),
    /// Where it is told, at once: for the simulator, where everything is on one thread.
    Here(Arc<Mutex<Writer>>),
}

impl Ops {
    pub(super) fn send(&self, op: Op) -> Result<(), SpoolError> {
        match self {
            Self::Thread(ops) => ops.send(op).map_err(|_| SpoolError::Closed),
            Self::Here(writer) => {
                let again = {
                    let mut told = writer.lock();
                    told.do_one(op);
                    !told.removals.is_empty() && !std::mem::replace(&mut told.mending, true)
                };
                if again {
                    tokio::spawn(mend_here(Arc::downgrade(writer)));
                }
                Ok(())
            }
        }
    }
}

/// Tries removals again that failed, as the thread does.
async fn mend_here(writer: Weak<Mutex<Writer>>) {
    loop {
        tokio::time::sleep(MEND_AFTER).await;
        let Some(writer) = writer.upgrade() else { return };
        let mut writer = writer.lock();
        writer.commit(Round::default());
        if writer.removals.is_empty() {
            writer.mending = false;
            return;
        }
    }
}

pub(super) struct Writer {
    shared: Arc<Shared>,
    /// Entries that are to be removed, as soon as the disk lets us.
    removals: Vec<(Slot, Record)>,
    /// Whether somebody tries them again.
    mending: bool,
    /// When and how the database failed, if it did.
    broken: Option<(Instant, SpoolError)>,
}

/// What is gathered for one commit.
#[derive(Default)]
struct Round {
    changes: Vec<Change>,
    bytes: usize,
    put: Vec<(Slot, Record)>,
    marked: usize,
    removed: usize,
    aside: Vec<(Slot, Option<Record>)>,
    answers: Vec<Answer>,
    /// Whether the disk has room for more, once it was looked at.
    room: Option<bool>,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, removals: Vec::new(), mending: false, broken: None }
    }

    /// Runs until it is closed, or nobody can tell it anything any more.
    pub(super) fn run(mut self, ops: &Receiver<Op>) {
        let closed = self.serve(ops);
        self.close(closed);
    }

    fn close(&mut self, closed: Option<Answer>) {
        self.shared.let_go();
        if let Some(answer) = closed {
            let _ = answer.send(Ok(()));
        }
    }

    fn do_one(&mut self, op: Op) {
        if let Op::Close(answer) = op {
            return self.close(Some(answer));
        }
        let mut round = Round::default();
        self.add(op, &mut round);
        self.commit(round);
    }

    fn serve(&mut self, ops: &Receiver<Op>) -> Option<Answer> {
        loop {
            let first = if self.removals.is_empty() {
                ops.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                ops.recv_timeout(MEND_AFTER)
            };
            let mut next = match first {
                Ok(op) => Some(op),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return None,
            };
            let mut round = Round::default();
            let mut closing = None;
            while let Some(op) = next {
                if let Op::Close(answer) = op {
                    closing = Some(answer);
                    break;
                }
                self.add(op, &mut round);
                next = if round.is_full() { None } else { ops.try_recv().ok() };
            }
            self.commit(round);
            if closing.is_some() {
                return closing;
            }
        }
    }

    fn add(&mut self, op: Op, round: &mut Round) {
        match op {
            Op::Put { envelopes, sent, answer } => {
                // Only these are refused: what was shipped can be marked and removed with what is left.
                if !*round.room.get_or_insert_with(|| self.shared.has_room()) {
                    let weight = envelopes.iter().map(|envelope| weight(envelope.size())).sum();
                    self.shared.ledger.lock().release(weight);
                    let _ = answer.send(Err(SpoolError::NoSpace));
                    return;
                }
                let at = now();
                for envelope in envelopes {
                    let record = Record::of(&envelope, sent, at);
                    let slot = Slot { lane: envelope.lane, number: self.shared.ledger.lock().number() };
                    round.bytes += envelope.bytes.len();
                    round.changes.push(Change::put(Space::Messages, slot.message_key(), envelope.bytes));
                    round.changes.push(Change::put(Space::Records, slot.key(), record.write()));
                    round.put.push((slot, record));
                }
                round.answers.push(answer);
            }
            Op::Mark { entries, answer } => {
                for (slot, record) in entries {
                    let record = record.marked(now());
                    round.changes.push(Change::put(Space::Records, slot.key(), record.write()));
                    round.marked += 1;
                }
                round.answers.push(answer);
            }
            Op::Remove(entries) => self.removals.extend(entries),
            Op::SetAside { slot, record } => {
                let store = self.shared.store();
                // As it is, whatever it is.
                if let Ok(Some(raw)) = store.and_then(|store| Ok(store.get(Space::Records, &slot.key())?)) {
                    round.changes.push(Change::put(Space::Aside, slot.key(), raw));
                }
                round.changes.push(Change::remove(Space::Records, slot.key()));
                round.aside.push((slot, record));
            }
            // Seen to by the caller.
            Op::Close(_) => {}
        }
    }

    fn commit(&mut self, mut round: Round) {
        for (slot, _) in &self.removals {
            round.changes.push(Change::remove(Space::Records, slot.key()));
            round.changes.push(Change::remove(Space::Messages, slot.message_key()));
        }
        round.removed = self.removals.len();
        let committed = self.write(&mut round);
        let mut ledger = self.shared.ledger.lock();
        match &committed {
            Ok(()) => {
                round.put.iter().for_each(|(slot, record)| ledger.stored(slot, record));
                (0..round.marked).for_each(|_| ledger.marked());
                self.removals.drain(..round.removed).for_each(|(slot, record)| ledger.shipped(&slot, &record));
                round.aside.iter().for_each(|(slot, record)| ledger.set_aside(slot, record.as_ref()));
            }
            Err(_) => {
                round.put.iter().for_each(|(_, record)| ledger.release(record.weight()));
                round.aside.iter().for_each(|(slot, _)| ledger.give_back(slot));
            }
        }
        drop(ledger);
        self.shared.work.notify_one();
        for answer in round.answers {
            // Who asked may have stopped waiting.
            let _ = answer.send(committed.clone());
        }
    }

    fn write(&mut self, round: &mut Round) -> Result<(), SpoolError> {
        if round.changes.is_empty() {
            return Ok(());
        }
        self.mend()?;
        let store = self.shared.store()?;
        store.commit(std::mem::take(&mut round.changes)).map_err(|error| self.failed(error))
    }

    fn failed(&mut self, error: DiskError) -> SpoolError {
        tracing::error!(error = &error as &dyn std::error::Error, "the spool cannot write");
        let error = SpoolError::from(error);
        self.broken = Some((Instant::now(), error.clone()));
        error
    }

    /// After a write that failed nothing is certain but what the disk says when it is asked anew.
    fn mend(&mut self) -> Result<(), SpoolError> {
        let Some((failed, error)) = &mut self.broken else { return Ok(()) };
        if failed.elapsed() < MEND_AFTER {
            return Err(error.clone());
        }
        *failed = Instant::now();
        self.shared.reopen()?;
        self.broken = None;
        tracing::info!("the spool can write again");
        Ok(())
    }
}

impl Round {
    fn is_full(&self) -> bool {
        self.bytes >= ROUND_BYTES || self.answers.len() >= ROUND_OPS
    }
}
