//! What is in the spool, by lane, and what of it is on its way. In memory, and of a size that does not grow with the
//! spool: numbers for each lane, and the entries that are on their way.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;
use wf_schema::Lane;

use super::SpoolError;
use super::entry::{Record, Slot};

/// See the module.
#[derive(Debug)]
pub(super) struct Ledger {
    /// The most that entries may weigh, in bytes.
    limit: u64,
    /// What they weigh, those included that are about to be written.
    bytes: u64,
    batches: u64,
    jobs: u64,
    /// Batches that the broker was given and has not confirmed.
    unconfirmed: u64,
    /// Entries that cannot be used.
    aside: u64,
    /// Jobs shipped since the start.
    shipped: u64,
    next: u64,
    lanes: HashMap<Lane, LaneLedger>,
    /// The lanes, the one whose turn it is in front.
    turns: VecDeque<Lane>,
}

#[derive(Debug, Default)]
struct LaneLedger {
    entries: u64,
    on_their_way: BTreeSet<u64>,
    /// No entry below it waits.
    cursor: u64,
    held: Option<Held>,
    /// How often in a row the broker did not answer.
    failures: u32,
}

/// Why nothing of a lane is shipped for now.
#[derive(Clone, Copy, Debug)]
struct Held {
    until: Instant,
    full: bool,
}

/// What a spool holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) bytes: u64,
    pub(super) limit: u64,
    pub(super) batches: u64,
    pub(super) jobs: u64,
    pub(super) unconfirmed: u64,
    pub(super) aside: u64,
    pub(super) shipped: u64,
}

impl LaneLedger {
    fn waiting(&self) -> u64 {
        self.entries.saturating_sub(self.on_their_way.len() as u64)
    }
}

impl Ledger {
    pub(super) fn new(limit: u64) -> Self {
        Self {
            limit,
            bytes: 0,
            batches: 0,
            jobs: 0,
            unconfirmed: 0,
            aside: 0,
            shipped: 0,
            next: 1,
            lanes: HashMap::new(),
            turns: VecDeque::new(),
        }
    }

    /// One for the same spool, of which nothing is known yet but what is on its way.
    pub(super) fn anew(&self) -> Self {
        let mut anew = Self { next: self.next, shipped: self.shipped, ..Self::new(self.limit) };
        for (name, lane) in &self.lanes {
            let on_their_way = lane.on_their_way.clone();
            anew.lanes.insert(name.clone(), LaneLedger { on_their_way, cursor: u64::MAX, ..LaneLedger::default() });
            anew.turns.push_back(name.clone());
        }
        anew
    }

    /// Counts an entry that was found, with what it weighs.
    pub(super) fn found(&mut self, slot: &Slot, record: &Record) {
        self.bytes = self.bytes.saturating_add(record.weight());
        self.stored(slot, record);
    }

    pub(super) fn totals(&self) -> Totals {
        let Self { bytes, limit, batches, jobs, unconfirmed, aside, shipped, .. } = *self;
        Totals { bytes, limit, batches, jobs, unconfirmed, aside, shipped }
    }

    /// The lanes of which something is there.
    pub(super) fn lanes(&self) -> Vec<Lane> {
        self.turns.iter().cloned().collect()
    }

    /// Makes room for `weight` bytes, if there is.
    pub(super) fn reserve(&mut self, weight: u64) -> Result<(), SpoolError> {
        let bytes = self.bytes.saturating_add(weight);
        if bytes > self.limit {
            return Err(SpoolError::Full { limit: self.limit });
        }
        self.bytes = bytes;
        Ok(())
    }

    /// Gives room back.
    pub(super) fn release(&mut self, weight: u64) {
        self.bytes = self.bytes.saturating_sub(weight);
    }

    /// The number of the next entry.
    pub(super) fn number(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        number
    }

    /// The number `number` was given to an entry before.
    pub(super) fn skip(&mut self, number: u64) {
        self.next = self.next.max(number + 1);
    }

    /// An entry is there, for which room was made.
    pub(super) fn stored(&mut self, slot: &Slot, record: &Record) {
        let lane = self.lanes.entry(slot.lane.clone()).or_insert_with(|| {
            self.turns.push_back(slot.lane.clone());
            LaneLedger { cursor: slot.number, ..LaneLedger::default() }
        });
        lane.entries += 1;
        lane.cursor = lane.cursor.min(slot.number);
        self.next = self.next.max(slot.number + 1);
        self.batches += 1;
        self.jobs += u64::from(record.jobs);
        self.unconfirmed += u64::from(record.sent);
    }

    /// An entry is marked as sent.
    pub(super) fn marked(&mut self) {
        self.unconfirmed += 1;
    }

    /// An entry is gone: the broker has it.
    pub(super) fn shipped(&mut self, slot: &Slot, record: &Record) {
        self.shipped += u64::from(record.jobs);
        self.unconfirmed = self.unconfirmed.saturating_sub(u64::from(record.sent));
        self.release(record.weight());
        self.gone(slot, record.jobs);
    }

    /// An entry that cannot be used is aside. It takes its room still.
    pub(super) fn set_aside(&mut self, slot: &Slot, record: Option<&Record>) {
        self.aside += 1;
        self.unconfirmed = self.unconfirmed.saturating_sub(record.map_or(0, |record| u64::from(record.sent)));
        self.gone(slot, record.map_or(0, |record| record.jobs));
    }

    /// Entries that were set aside before.
    pub(super) fn aside(&mut self, count: u64) {
        self.aside += count;
    }

    fn gone(&mut self, slot: &Slot, jobs: u32) {
        self.batches = self.batches.saturating_sub(1);
        self.jobs = self.jobs.saturating_sub(u64::from(jobs));
        let Some(lane) = self.lanes.get_mut(&slot.lane) else { return };
        lane.on_their_way.remove(&slot.number);
        lane.entries = lane.entries.saturating_sub(1);
        lane.failures = 0;
        if lane.entries == 0 {
            self.lanes.remove(&slot.lane);
            self.turns.retain(|lane| *lane != slot.lane);
        }
    }

    /// The lane whose turn it is to be shipped, and the first number that may wait there; or, if there is none, when
    /// there will be, as far as that is known.
    pub(super) fn turn(&mut self, now: Instant) -> Result<(Lane, u64), Option<Instant>> {
        let mut soonest: Option<Instant> = None;
        for _ in 0..self.turns.len() {
            let Some(name) = self.turns.pop_front() else { break };
            self.turns.push_back(name.clone());
            let Some(lane) = self.lanes.get_mut(&name) else { continue };
            if lane.held.is_some_and(|held| held.until <= now) {
                lane.held = None;
            }
            match lane.held {
                _ if lane.waiting() == 0 => {}
                None => return Ok((name, lane.cursor)),
                Some(held) => soonest = Some(soonest.map_or(held.until, |soonest| soonest.min(held.until))),
            }
        }
        Err(soonest)
    }

    /// Takes an entry to be shipped, unless it is on its way already.
    pub(super) fn take(&mut self, slot: &Slot) -> bool {
        let Some(lane) = self.lanes.get_mut(&slot.lane) else { return false };
        lane.cursor = lane.cursor.max(slot.number + 1);
        lane.on_their_way.insert(slot.number)
    }

    /// Gives an entry back that was taken and could not be shipped.
    pub(super) fn give_back(&mut self, slot: &Slot) {
        if let Some(lane) = self.lanes.get_mut(&slot.lane)
            && lane.on_their_way.remove(&slot.number)
        {
            lane.cursor = lane.cursor.min(slot.number);
        }
    }

    /// Nothing of `lane` is shipped for `pause`; `full` if that is because the lane is full at the broker.
    pub(super) fn hold(&mut self, lane: &Lane, now: Instant, pause: Duration, full: bool) {
        if let Some(lane) = self.lanes.get_mut(lane) {
            let until = lane.held.map_or(now, |held| held.until).max(now + pause);
            lane.held = Some(Held { until, full });
        }
    }

    /// Counts that the broker did not answer for `lane`: how often in a row.
    pub(super) fn failed(&mut self, lane: &Lane) -> u32 {
        self.lanes.get_mut(lane).map_or(0, |lane| {
            lane.failures += 1;
            lane.failures
        })
    }

    /// Whether something of `lane` waits here, so that what comes now must not overtake it.
    pub(super) fn waits(&self, lane: &Lane) -> bool {
        self.lanes.get(lane).is_some_and(|lane| lane.waiting() > 0)
    }

    /// How long until `lane` may have room at the broker again, if it is full there.
    pub(super) fn full(&self, lane: &Lane, now: Instant) -> Option<Duration> {
        let held = self.lanes.get(lane)?.held.filter(|held| held.full && held.until > now)?;
        Some(held.until.duration_since(now))
    }
}
