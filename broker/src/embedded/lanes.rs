//! The lanes as they stand in memory: which messages wait, who holds which, and until when.
//!
//! A waiting message is an [`Entry`] of 24 bytes; its body is in the store. What is here follows the store: messages
//! arrive when they are durable, and one that was acknowledged leaves at once, before the store has removed it. Leases
//! and delays are nowhere else: after a restart everything waits.

mod lane_state;
mod served;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::task::Waker;
use std::time::{Duration, Instant};

use bytes::Bytes;
use wf_schema::{Lane, Millis, Queue};

use super::EmbeddedOptions;
use super::bodies::Bodies;
use super::ended::Ended;
use super::pauses::Pauses;
use crate::{LaneStats, LogEnd};
use lane_state::{LaneState, Seat};

/// Messages that were released for longer than this come again after it: a clock does not reach for ever.
const LONGEST_DELAY: Duration = Duration::from_secs(10 * 366 * 24 * 3600);

/// How many messages, of how many bytes in all, are read ahead at most.
const READ_AHEAD: usize = 32;
const READ_AHEAD_BYTES: usize = 512 << 10;

/// What there is to know of a message without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) sequence: u64,
    pub(super) stored_at: Millis,
    /// The body's size in bytes.
    pub(super) size: u32,
    /// How often it was delivered. Also tells the holders of a message apart: each delivery has a number of its own.
    pub(super) delivered: u32,
}

impl Entry {
    /// What it counts against the limits.
    fn weight(&self) -> u64 {
        weight(self.size)
    }
}

/// What a message of `size` bytes counts against the limits.
pub(super) fn weight(size: u32) -> u64 {
    u64::from(size) + EmbeddedOptions::MESSAGE_OVERHEAD
}

/// A message given to a source.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) entry: Entry,
    /// Its value in the store, if that is at hand.
    pub(super) value: Option<Bytes>,
}

/// A message that was acknowledged, and how the log of its run ends.
pub(super) struct Removed {
    pub(super) lane: Lane,
    pub(super) entry: Entry,
    pub(super) end: Option<LogEnd>,
}

/// A message that was delivered before, by this process.
struct Held {
    lane: Lane,
    entry: Entry,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Its owner's, until then.
    Owned(Instant),
    /// To be delivered again, but not before then.
    Delayed(Instant),
    /// To be delivered again.
    Ready,
}

impl State {
    fn deadline(self) -> Option<Instant> {
        match self {
            Self::Owned(at) | Self::Delayed(at) => Some(at),
            Self::Ready => None,
        }
    }
}

/// All lanes.
pub(super) struct Lanes {
    lane_limit: u64,
    total_limit: u64,
    lanes: HashMap<Lane, LaneState>,
    /// How many sources each lane has, whether they have credit or not.
    sources: HashMap<Lane, usize>,
    held: HashMap<u64, Held>,
    deadlines: BTreeSet<(Instant, u64)>,
    pub(super) pauses: Pauses,
    bodies: Bodies,
    weight: u64,
    /// What the store has still to remove.
    removed: Vec<Removed>,
    /// Until when the writer sleeps, if it does.
    asleep: Option<Instant>,
    ended: Option<Ended>,
}

impl Lanes {
    /// Empty lanes.
    pub(super) fn new(options: &EmbeddedOptions) -> Self {
        Self {
            lane_limit: options.lane_bytes,
            total_limit: options.total_bytes,
            lanes: HashMap::new(),
            sources: HashMap::new(),
            held: HashMap::new(),
            deadlines: BTreeSet::new(),
            pauses: Pauses::default(),
            bodies: Bodies::default(),
            weight: 0,
            removed: Vec::new(),
            asleep: None,
            ended: None,
        }
    }

    // Room.

    /// The first of the lanes that has no room for the weight wanted of it.
    pub(super) fn full<'a>(&self, wanted: impl Iterator<Item = (&'a Lane, u64)> + Clone) -> Option<&'a Lane> {
        let all: u64 = wanted.clone().map(|(_, weight)| weight).sum();
        let no_room = |used: u64, more: u64, limit: u64| used != 0 && used.saturating_add(more) > limit;
        if no_room(self.weight, all, self.total_limit) {
            return wanted.clone().next().map(|(lane, _)| lane);
        }
        wanted
            .into_iter()
            .find(|(lane, more)| no_room(self.lanes.get(*lane).map_or(0, |state| state.weight), *more, self.lane_limit))
            .map(|(lane, _)| lane)
    }

    /// Counts a message's weight, before it arrives.
    pub(super) fn reserve(&mut self, lane: &Lane, weight: u64) {
        self.weight += weight;
        self.state(lane).weight += weight;
    }

    /// Counts it no more.
    pub(super) fn unreserve(&mut self, lane: &Lane, weight: u64) {
        self.weight = self.weight.saturating_sub(weight);
        if let Some(state) = self.lanes.get_mut(lane) {
            state.weight = state.weight.saturating_sub(weight);
            // Queues are named from outside: those that came to nothing are forgotten.
            if state.idle() {
                self.lanes.remove(lane);
            }
        }
    }

    fn state(&mut self, lane: &Lane) -> &mut LaneState {
        self.lanes.entry(lane.clone()).or_default()
    }

    // The way of a message.

    /// A message whose weight is counted is durable, and can be delivered.
    pub(super) fn arrive(&mut self, lane: &Lane, entry: Entry, value: Option<Bytes>) {
        if let Some(value) = value {
            self.bodies.keep(entry.sequence, value);
        }
        let state = self.state(lane);
        state.fresh.push_back(entry);
        state.wake();
    }

    /// The next message of `lane` for `source`, if it is its turn; otherwise the source takes a seat.
    pub(super) fn take(
        &mut self,
        lane: &Lane,
        source: u64,
        waker: &Waker,
        until: Instant,
        now: Millis,
    ) -> Option<Result<Taken, Ended>> {
        if let Some(ended) = &self.ended {
            return Some(Err(ended.clone()));
        }
        let paused = self.pauses.until(&lane.queue, now).is_some();
        let state = self.lanes.entry(lane.clone()).or_default();
        let place = state.seats.iter().position(|seat| seat.source == source);
        if paused || place.unwrap_or(state.seats.len()) >= state.ready() {
            match place.and_then(|place| state.seats.get_mut(place)) {
                Some(seat) => seat.waker.clone_from(waker),
                None => state.seats.push_back(Seat { source, waker: waker.clone() }),
            }
            return None;
        }
        // Those behind move up by one while one message less is ready: nobody else's turn has come or gone.
        place.and_then(|place| state.seats.remove(place));
        // What comes again goes first: it has waited longest.
        let again = state.again.pop_first().and_then(|sequence| self.held.remove(&sequence)).map(|held| held.entry);
        let mut entry = again.or_else(|| state.fresh.pop_front())?;
        if state.fresh.is_empty() && state.fresh.capacity() > 4096 {
            // A backlog that is over gives its memory back.
            state.fresh = VecDeque::new();
        }
        entry.delivered = entry.delivered.saturating_add(1);
        state.owned += 1;
        self.held.insert(entry.sequence, Held { lane: lane.clone(), entry, state: State::Owned(until) });
        self.deadlines.insert((until, entry.sequence));
        let value = self.bodies.take(entry.sequence);
        Some(Ok(Taken { entry, value }))
    }

    /// The next messages of `lane`, as far as it is worth reading their bodies together with the one before them: a
    /// backlog is then read a few at a time, rather than each with a wait of its own.
    pub(super) fn upcoming(&self, lane: &Lane) -> Vec<Entry> {
        let mut bytes = self.bodies.room().min(READ_AHEAD_BYTES);
        let worth = |entry: &&Entry| {
            let left = bytes.checked_sub(entry.size as usize + EmbeddedOptions::MESSAGE_OVERHEAD as usize);
            bytes = left.unwrap_or(0);
            left.is_some() && !self.bodies.has(entry.sequence)
        };
        self.lanes.get(lane).into_iter().flat_map(|state| &state.fresh).take(READ_AHEAD).take_while(worth).copied().collect()
    }

    /// Keeps bodies that were read ahead, of those messages that still wait.
    pub(super) fn keep(&mut self, lane: &Lane, values: Vec<(u64, Bytes)>) {
        // They wait in the order of their sequences.
        let first = self.lanes.get(lane).and_then(|state| state.fresh.front()).map_or(u64::MAX, |entry| entry.sequence);
        values.into_iter().filter(|(sequence, _)| *sequence >= first).for_each(|(sequence, value)| {
            self.bodies.keep(sequence, value);
        });
    }

    /// `source` waits no more.
    pub(super) fn leave(&mut self, lane: &Lane, source: u64) {
        let Some(state) = self.lanes.get_mut(lane) else { return };
        let Some(place) = state.seats.iter().position(|seat| seat.source == source) else { return };
        state.seats.remove(place);
        // The turn of the one behind may have come.
        state.wake();
        if state.idle() {
            self.lanes.remove(lane);
        }
    }

    /// Changes the state of what the holder numbered `delivered` still owns; whether it does.
    fn settle(&mut self, sequence: u64, delivered: u32, next: State) -> bool {
        if self.ended.is_some() {
            return false;
        }
        let Some(held) = self.held.get_mut(&sequence) else { return false };
        let State::Owned(deadline) = held.state else { return false };
        if held.entry.delivered != delivered {
            return false;
        }
        held.state = next;
        self.deadlines.remove(&(deadline, sequence));
        if let Some(deadline) = next.deadline() {
            self.deadlines.insert((deadline, sequence));
        }
        if let Some(state) = self.lanes.get_mut(&held.lane) {
            match next {
                State::Owned(_) => {}
                State::Delayed(_) => {
                    state.owned -= 1;
                    state.delayed += 1;
                }
                State::Ready => {
                    state.owned -= 1;
                    state.again.insert(sequence);
                    state.wake();
                }
            }
        }
        true
    }

    /// Prolongs the lease of its owner; whether it still is the owner.
    pub(super) fn renew(&mut self, sequence: u64, delivered: u32, until: Instant) -> bool {
        self.settle(sequence, delivered, State::Owned(until))
    }

    /// Its owner gives it back, to be delivered again after `delay`.
    pub(super) fn release(&mut self, sequence: u64, delivered: u32, delay: Duration, now: Instant) {
        let next = if delay.is_zero() { State::Ready } else { State::Delayed(now + delay.min(LONGEST_DELAY)) };
        self.settle(sequence, delivered, next);
    }

    /// A source gives back what it took and never handed on: that was no delivery.
    pub(super) fn put_back(&mut self, sequence: u64, delivered: u32) {
        if self.settle(sequence, delivered, State::Ready)
            && let Some(held) = self.held.get_mut(&sequence)
        {
            held.entry.delivered -= 1;
        }
    }

    /// The message is done, whoever says so and however late: it leaves, and the store has it to remove. Whether it
    /// was there.
    pub(super) fn ack(&mut self, sequence: u64, end: Option<LogEnd>) -> bool {
        if self.ended.is_some() {
            return false;
        }
        let Some(held) = self.held.remove(&sequence) else { return false };
        if let Some(deadline) = held.state.deadline() {
            self.deadlines.remove(&(deadline, sequence));
        }
        if let Some(state) = self.lanes.get_mut(&held.lane) {
            match held.state {
                State::Owned(_) => state.owned -= 1,
                State::Delayed(_) => state.delayed -= 1,
                State::Ready => {
                    state.again.remove(&sequence);
                }
            }
        }
        self.unreserve(&held.lane, held.entry.weight());
        self.removed.push(Removed { lane: held.lane, entry: held.entry, end });
        true
    }

    /// What was acknowledged since the last time this was asked.
    pub(super) fn take_removed(&mut self) -> Vec<Removed> {
        std::mem::take(&mut self.removed)
    }

    /// Whether the message waits or is somebody's.
    pub(super) fn has(&self, sequence: u64) -> bool {
        // What waits in a lane lies in the order of its sequences.
        let fresh = |state: &LaneState| state.fresh.binary_search_by_key(&sequence, |entry| entry.sequence).is_ok();
        self.held.contains_key(&sequence) || self.lanes.values().any(fresh)
    }

    /// Whether the store may still have the message: one that was acknowledged is there until its removal is written.
    pub(super) fn may_come_again(&self, sequence: u64) -> bool {
        self.has(sequence) || self.removed.iter().any(|removed| removed.entry.sequence == sequence)
    }

    // Time.

    /// Makes ready what has outlived its lease or its delay.
    pub(super) fn expire(&mut self, now: Instant) {
        while let Some((deadline, sequence)) = self.deadlines.first().copied()
            && deadline <= now
        {
            self.deadlines.pop_first();
            let Some(held) = self.held.get_mut(&sequence) else { continue };
            let was = std::mem::replace(&mut held.state, State::Ready);
            if let Some(state) = self.lanes.get_mut(&held.lane) {
                match was {
                    State::Owned(_) => state.owned -= 1,
                    State::Delayed(_) => state.delayed -= 1,
                    State::Ready => {}
                }
                state.again.insert(sequence);
                state.wake();
            }
        }
    }

    /// The writer sleeps until `at`, or until an earlier deadline, which this gives: at once if it has work.
    pub(super) fn sleep(&mut self, now: Instant, at: Instant) -> Instant {
        if !self.removed.is_empty() {
            return now;
        }
        let until = self.deadlines.first().map_or(at, |(deadline, _)| at.min(*deadline));
        self.asleep = Some(until);
        until
    }

    /// The writer is awake.
    pub(super) fn awake(&mut self) {
        self.asleep = None;
    }

    /// Whether the writer has to be woken: it sleeps, and has work or a deadline before it wakes by itself. Says so
    /// once.
    pub(super) fn must_wake(&mut self) -> bool {
        let early = |until: &Instant| self.deadlines.first().is_some_and(|(deadline, _)| deadline < until);
        let must = self.asleep.is_some_and(|until| !self.removed.is_empty() || early(&until));
        if must {
            self.asleep = None;
        }
        must
    }

    // Holding queues, looking at lanes, ending.

    /// Lets `queue` go on.
    pub(super) fn resume(&mut self, queue: &Queue) {
        if self.pauses.end(queue) {
            for lane in Lane::of(queue) {
                if let Some(state) = self.lanes.get(&lane) {
                    state.wake();
                }
            }
        }
    }

    pub(super) fn stats(&self, lane: &Lane, now: Millis) -> LaneStats {
        let Some(state) = self.lanes.get(lane) else { return LaneStats::default() };
        let held = self.pauses.until(&lane.queue, now).is_some();
        let again = state.again.first().and_then(|sequence| self.held.get(sequence)).map(|held| held.entry.stored_at);
        let fresh = state.fresh.front().map(|entry| entry.stored_at);
        LaneStats {
            pending: state.ready() as u64 + state.delayed,
            in_flight: state.owned,
            oldest: again.into_iter().chain(fresh).min(),
            waiting: if held { 0 } else { state.in_vain() as u64 },
        }
    }

    /// Nothing is delivered or settled any more, and whoever waits is told why.
    pub(super) fn end(&mut self, ended: Ended) {
        self.ended.get_or_insert(ended);
        // The writer has nothing to do with either any more.
        self.removed.clear();
        self.deadlines.clear();
        for state in self.lanes.values() {
            for seat in &state.seats {
                seat.waker.wake_by_ref();
            }
        }
    }

    pub(super) fn ended(&self) -> Option<&Ended> {
        self.ended.as_ref()
    }
}

#[cfg(test)]
mod tests;
