//! What was asked and is not answered yet.

mod doubt;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use async_nats::{Message, StatusCode};
#[cfg(test)]
use tokio::sync::oneshot;

pub(crate) use self::doubt::Doubt;
use super::pending::{About, Answer, Pending};
use super::{ACK, Answered, NobodyThere, Part, Unanswered};
use crate::api::{ApiError, accepted};
#[cfg(test)]
use crate::consume::Origin;
use crate::link::Refusal;

/// So often is one repeated that is only sent in case the server has forgotten.
const MAX_PRECAUTIONS: u32 = 3;

/// How long an acknowledgement that was confirmed may be missing on the server's disk; generous.
const UNSAFE_FOR: Duration = Duration::from_secs(1);

/// Confirmed acknowledgements that are kept for that.
const MAX_CONFIRMED: usize = 16_384;

/// How long a settlement that was sent again after a lost connection may stay unanswered at first.
const FIRST_REPETITION: Duration = Duration::from_millis(250);

/// How long an acknowledgement waits for others, and how many go at once in any case: nobody waits for them, and sent one
/// by one each would cost both sides a system call or two on the way there and back.
const GATHERING: Duration = Duration::from_millis(2);
const GATHERED: usize = 16;

/// What is to be sent next.
pub(super) struct Next {
    pub(super) id: u64,
    pub(super) ahead: Vec<Part>,
    pub(super) last: Part,
    pub(super) answer_wanted: bool,
    pub(super) again: bool,
}

/// The questions under way. Bounded by those who ask: publishers by their window, settlements by what the pulls let
/// in, others by waiting for their answers.
pub(super) struct Table {
    next: u64,
    pending: BTreeMap<u64, Pending>,
    queue: VecDeque<u64>,
    /// When what is queued is to go; acknowledgements wait for others.
    leaves_at: Option<Instant>,
    settles: BTreeSet<u64>,
    /// Those that are to be sent again at a certain time.
    timed: BTreeSet<(Instant, u64)>,
    /// Acknowledgements that were confirmed lately, oldest first.
    confirmed: VecDeque<(Instant, Part, Option<About>)>,
    generation: u64,
    /// What is not sent before its message was looked up, and whether that one alone counts.
    doubted: BTreeMap<u64, bool>,
    /// Up to which sequence both streams, of jobs and for later, are known to have what they had in earlier generations.
    same_up_to: [u64; 2],
    /// Settlements that ended without being confirmed.
    lost: u64,
    resend_after: Duration,
    closed: bool,
}

impl Table {
    pub(super) fn new(resend_after: Duration) -> Self {
        Self {
            next: 0,
            pending: BTreeMap::new(),
            queue: VecDeque::new(),
            leaves_at: None,
            settles: BTreeSet::new(),
            timed: BTreeSet::new(),
            confirmed: VecDeque::new(),
            generation: 0,
            doubted: BTreeMap::new(),
            same_up_to: [0; 2],
            lost: 0,
            resend_after,
            closed: false,
        }
    }

    /// Adds a question, to be sent when its turn comes.
    pub(super) fn add(&mut self, pending: Pending) -> Result<u64, Unanswered> {
        if self.closed {
            return Err(Unanswered::Closed);
        }
        let id = self.next;
        self.next += 1;
        let settles = matches!(pending.answer, Answer::Settle);
        if settles {
            self.settles.insert(id);
        }
        // An acknowledgement may wait, and does not keep waiting what is on its way out already.
        if !settles || pending.last.payload != ACK || self.queue.len() >= GATHERED {
            self.leaves_at = None;
        } else if self.queue.is_empty() {
            self.leaves_at = Some(Instant::now() + GATHERING);
        }
        self.pending.insert(id, pending);
        self.queue.push_back(id);
        Ok(id)
    }

    /// Until when what is queued waits for more, if it does.
    pub(super) fn gathers_until(&self, now: Instant) -> Option<Instant> {
        self.leaves_at.filter(|at| *at > now && !self.queue.is_empty())
    }

    /// Takes out question `id`; nobody waits for it any more.
    pub(super) fn forget(&mut self, id: u64) {
        self.remove(id);
    }

    fn remove(&mut self, id: u64) -> Option<Pending> {
        let pending = self.pending.remove(&id)?;
        self.settles.remove(&id);
        self.doubted.remove(&id);
        if let Some(at) = pending.again_at {
            self.timed.remove(&(at, id));
        }
        Some(pending)
    }

    fn again_at(&mut self, id: u64, at: Option<Instant>) {
        if let Some(pending) = self.pending.get_mut(&id) {
            if let Some(before) = pending.again_at.take() {
                self.timed.remove(&(before, id));
            }
            pending.again_at = at;
            self.timed.extend(at.map(|at| (at, id)));
        }
    }

    /// Notes that the link is in its generation `generation`. In a new one, what was sent in an earlier one and is
    /// not answered is to be sent again, before what was not sent yet.
    pub(super) fn at_generation(&mut self, generation: u64) {
        if generation != self.generation {
            self.generation = generation;
            self.same_up_to = [0; 2];
            for (_, part, about) in std::mem::take(&mut self.confirmed) {
                let again = Pending { about, ..Pending::new(Vec::new(), part, NobodyThere::Fail, Answer::Again) };
                // Only a closed table takes nothing, and that has none.
                self.add(again).ok();
            }
            self.doubted.clear();
            self.queue = self.pending.keys().copied().collect();
            self.leaves_at = None;
            self.timed.clear();
            self.pending.values_mut().for_each(|pending| pending.again_at = None);
        }
    }

    /// In which generation of the link it is.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Queues what is to be sent again by now.
    pub(super) fn send_due(&mut self, now: Instant) {
        while let Some(&(at, id)) = self.timed.first().filter(|(at, _)| *at <= now) {
            self.timed.remove(&(at, id));
            if let Some(pending) = self.pending.get_mut(&id) {
                pending.again_at = None;
                self.queue.push_back(id);
                self.leaves_at = None;
            }
        }
    }

    pub(super) fn has_timed(&self) -> bool {
        !self.timed.is_empty()
    }

    /// The next to send.
    pub(super) fn next(&mut self, now: Instant) -> Option<Next> {
        while let Some(id) = self.queue.pop_front() {
            if let Some(alone) = self.is_doubtful(id) {
                self.doubted.insert(id, alone);
                continue;
            }
            let Some(pending) = self.pending.get_mut(&id) else { continue };
            if let Answer::None = pending.answer {
                let Pending { ahead, last, .. } = self.remove(id)?;
                return Some(Next { id, ahead, last, answer_wanted: false, again: false });
            }
            if pending.sent.replace(self.generation) == Some(self.generation) {
                pending.repetitions += 1;
            }
            pending.tries += 1;
            if let Answer::Many { so_far, .. } = &mut pending.answer {
                // What came of an earlier attempt will come again.
                so_far.clear();
            }
            let again = pending.tries > 1;
            let next = Next { id, ahead: pending.ahead.clone(), last: pending.last.clone(), answer_wanted: true, again };
            let repetitions = pending.repetitions;
            let (settling, precaution) = (matches!(pending.answer, Answer::Settle), matches!(pending.answer, Answer::Again));
            if settling || precaution {
                if precaution && repetitions > MAX_PRECAUTIONS {
                    self.remove(id);
                    continue;
                }
                // On a link that stayed up every settlement is answered, sooner or later: a consumer may be without a
                // leader for a while, and after a restart the server may ignore one, for it has forgotten the delivery that
                // it is about; once it has delivered it anew, it will answer.
                let may_be_ignored = again || precaution || pending.about.is_some_and(|about| about.generation < self.generation);
                let after = if may_be_ignored { FIRST_REPETITION * 2_u32.pow(repetitions.min(10)) } else { self.resend_after };
                self.again_at(id, Some(now + jittered(after.min(self.resend_after))));
            }
            return Some(next);
        }
        None
    }

    /// Passes the answer to `id` on. Whether a settlement was confirmed by it.
    pub(super) fn answered(&mut self, id: u64, message: Message) -> bool {
        let Some(pending) = self.pending.get_mut(&id) else { return false };
        if pending.stores && !is_final(&message.payload) && message.status.is_none() {
            // A late answer to the settlement before it, or one that may be another the next time: it is sent again when
            // its time comes.
            return false;
        }
        if message.status == Some(StatusCode::NO_RESPONDERS) && pending.nobody == NobodyThere::AskAgain {
            pending.bounced += 1;
            let wait = Duration::from_millis(100) * 2_u32.pow(pending.bounced.min(6));
            self.again_at(id, Some(Instant::now() + jittered(wait)));
            return false;
        }
        if let Answer::Many { so_far, .. } = &mut pending.answer
            && message.status.is_none()
        {
            so_far.push(message);
            return false;
        }
        let Some(pending) = self.remove(id) else { return false };
        let resent = pending.tries > 1;
        match pending.answer {
            // Whoever asked may have stopped waiting.
            Answer::One(_) | Answer::Many { .. } if message.status == Some(StatusCode::NO_RESPONDERS) => {
                pending.answer.give(Err(Unanswered::NobodyThere));
            }
            Answer::One(waiting) => drop(waiting.send(Ok(Answered { message, before: Vec::new(), resent }))),
            Answer::Many { so_far, done } => drop(done.send(Ok(Answered { message, before: so_far, resent }))),
            Answer::Settle if pending.stores => return true,
            Answer::Settle => {
                self.confirm(pending.last, pending.about);
                match pending.then {
                    Some(then) => self.store_then(id, then),
                    None => return true,
                }
            }
            Answer::Again | Answer::None => {}
        }
        false
    }

    /// Settlement `id` is confirmed, and `then` is to be stored. It keeps its number: whoever waits for the settlement
    /// waits for this too.
    fn store_then(&mut self, id: u64, then: Part) {
        let mut pending = Pending::new(Vec::new(), then, NobodyThere::AskAgain, Answer::Settle);
        pending.stores = true;
        self.settles.insert(id);
        if self.queue.is_empty() {
            self.leaves_at = Some(Instant::now() + GATHERING);
        }
        self.pending.insert(id, pending);
        self.queue.push_back(id);
    }

    /// Whether something waits to be sent.
    pub(super) fn has_more_to_send(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Keeps a confirmed acknowledgement for as long as the server may still forget it.
    fn confirm(&mut self, part: Part, about: Option<About>) {
        if part.payload == ACK {
            let now = Instant::now();
            self.forget_confirmed(now);
            self.confirmed.push_back((now, part, about));
        }
    }

    fn forget_confirmed(&mut self, now: Instant) {
        let old = |(at, ..): &(Instant, Part, Option<About>)| now.duration_since(*at) > UNSAFE_FOR;
        while self.confirmed.front().is_some_and(old) || self.confirmed.len() >= MAX_CONFIRMED {
            self.confirmed.pop_front();
        }
    }

    /// Notes that the connection was lost.
    pub(super) fn lost(&mut self) {
        self.forget_confirmed(Instant::now());
    }

    /// Ends `id` with `error`. Whether it was a settlement.
    pub(super) fn failed(&mut self, id: u64, error: Unanswered) -> bool {
        let settled = self.remove(id).is_some_and(|pending| pending.answer.give(Err(error)));
        self.lost += u64::from(settled);
        settled
    }

    /// Ends what the server refused, or everything. Whether a settlement was among it.
    pub(super) fn refused(&mut self, refusal: &Refusal, all: bool) -> bool {
        let about = |part: &Part| part.subject.as_str() == refusal.subject;
        let concerned = |pending: &Pending| pending.sent.is_some() && (about(&pending.last) || pending.ahead.iter().any(about));
        let ids: Vec<u64> = self.pending.iter().filter(|(_, p)| all || concerned(p)).map(|(id, _)| *id).collect();
        let mut settled = false;
        for id in ids {
            settled |= self.failed(id, Unanswered::Denied(refusal.said.clone()));
        }
        settled
    }

    /// Whether the last that was heard of `id` is that nobody was there to answer.
    pub(super) fn nobody_was_there(&self, id: u64) -> bool {
        self.pending.get(&id).is_some_and(|pending| pending.bounced > 0)
    }

    /// How many settlements, sent to a subject that has `part` in it, have stayed unanswered on a link that is up.
    /// They are sent again soon.
    pub(super) fn ignored(&mut self, part: &str) -> usize {
        let ignored = |pending: &Pending| pending.repetitions >= 2 && pending.last.subject.contains(part);
        let ids = self.settles.iter().copied().filter(|id| self.pending.get(id).is_some_and(ignored));
        let ids: Vec<u64> = ids.collect();
        let soon = Instant::now() + FIRST_REPETITION;
        for &id in &ids {
            if self.pending.get(&id).and_then(|pending| pending.again_at).is_some_and(|at| at > soon) {
                self.again_at(id, Some(soon));
            }
        }
        ids.len()
    }

    pub(super) fn unsettled(&self) -> usize {
        self.settles.len()
    }

    /// How many settlements ended without being confirmed since this was last asked.
    pub(super) fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }

    /// A mark between what was asked so far and what will be.
    pub(super) fn mark(&self) -> u64 {
        self.next
    }

    /// Whether all that was settled before `mark` is confirmed.
    pub(super) fn settled_before(&self, mark: u64) -> bool {
        self.settles.first().is_none_or(|&id| id >= mark)
    }

    /// Ends everything, now and from now on.
    pub(super) fn close(&mut self) {
        self.closed = true;
        self.lost += self.settles.len() as u64;
        self.doubted.clear();
        self.queue.clear();
        self.settles.clear();
        self.timed.clear();
        for (_, pending) in std::mem::take(&mut self.pending) {
            pending.answer.give(Err(Unanswered::Closed));
        }
    }
}

/// Whether the answer to what was to be stored is its last: it is stored, or will not be.
fn is_final(answer: &[u8]) -> bool {
    match accepted(answer) {
        Ok(_) => true,
        Err(ApiError::Unreadable(_)) => false,
        Err(error) => !error.is_retryable(),
    }
}

/// `duration`, give or take a quarter.
fn jittered(duration: Duration) -> Duration {
    duration.mul_f64(fastrand::f64().mul_add(0.5, 0.75))
}

#[cfg(test)]
mod tests;
