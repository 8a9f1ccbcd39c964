//! When a batch leaves: the decision, and nothing else. No clock but what is passed in, no tasks, no network.
//!
//! The batcher is *self-clocking*. While nothing of a place is on its way, what comes leaves at once: waiting would
//! only cost latency. Otherwise jobs gather until the batch is full, until what was on its way has arrived, or until
//! `linger` is over. So a quiet factory is quick, a busy one sends full batches, and nobody has to say which it is.
//! While somebody is giving many jobs in one go, what arrives cuts no batch short: the next jobs are there already.
//!
//! Everything is bounded: jobs that have not left yet take at most the *room*; what does not fit stays with its
//! caller.

mod fill;
#[cfg(test)]
mod laws;

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use wf_schema::{BatchBuilder, BatchId, Format, Header, Job, Lane, Limits, Millis};

use crate::BatchOptions;
use crate::group::ArgsRow;

/// What a job in an open batch takes of the room beside its args, and an open batch beside its jobs. Bytes; roughly
/// what they take in memory.
const JOB_COST: usize = 64;
const BATCH_COST: usize = 2_048;
/// How many full batches of a bulk leave together: sent one by one, each would wake everybody on its way for itself.
const TOGETHER: usize = 4;
/// Places that nobody uses at the moment are remembered up to this many, for how well their jobs compress.
const QUIET_PLACES: usize = 1_024;

/// Jobs that can share a batch: one lane, one format, one time to fall due.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place {
    pub(crate) lane: Lane,
    pub(crate) format: Format,
    pub(crate) due: Option<Millis>,
}

/// Now, by two clocks.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Moment {
    /// Since some start; never goes back.
    pub(crate) clock: Duration,
    /// The time of day.
    pub(crate) wall: Millis,
}

/// Jobs in a row that are alike but for their args, mostly one, with what the batcher must know of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Incoming<'a> {
    /// What they are like; its own args count for nothing.
    pub(crate) job: &'a Job<'a>,
    pub(crate) args: ArgsRow<'a>,
    pub(crate) due: Option<Millis>,
    /// How long each is expected to run; zero if that is not known.
    pub(crate) run_time: Duration,
    /// The trace they belong to. Travels with a job that leaves alone.
    pub(crate) trace: Option<&'a str>,
}

impl Incoming<'_> {
    fn place(&self) -> Place {
        Place { lane: self.job.lane.clone(), format: self.job.format, due: self.due }
    }

    fn is_for(&self, place: &Place) -> bool {
        self.due == place.due && self.job.lane == place.lane && self.job.format == place.format
    }
}

/// A batch that is ready to leave. It counts as on its way from now until [`Batcher::arrived`].
#[derive(Debug)]
pub(crate) struct Closed<R> {
    pub(crate) place: Place,
    pub(crate) batch: BatchBuilder,
    pub(crate) receipt: R,
    /// What it takes of the room until [`Batcher::left`].
    pub(crate) held: usize,
}

/// See the module. `R` is what the callers of a batch share; a new one is made for each batch.
#[derive(Debug)]
pub(crate) struct Batcher<R> {
    options: BatchOptions,
    room: usize,
    new_id: fn() -> BatchId,
    slots: HashMap<Place, Slot<R>>,
    /// What has not left yet takes, in bytes; of that, what is still open.
    held: usize,
    held_open: usize,
    most_held: usize,
    /// The wire size over the raw size, of all that left.
    ratio: f64,
    /// When open batches must leave, the soonest first, for linger is the same for all. Some have left already.
    deadlines: VecDeque<(Duration, Place, BatchId)>,
    /// Places where a batch was opened while nothing was on its way.
    idle: Vec<Place>,
    /// How many callers are giving many jobs in one go.
    bulks: usize,
    ready: Vec<Closed<R>>,
    /// When those must leave that are ready; `None` is at once.
    leave_by: Option<Duration>,
}

#[derive(Debug)]
struct Slot<R> {
    open: Option<Open<R>>,
    in_flight: usize,
    ratio: f64,
}

#[derive(Debug)]
struct Open<R> {
    batch: BatchBuilder,
    receipt: R,
    held: usize,
    run_time: Duration,
    trace: Option<String>,
}

impl<R: Default + Clone> Batcher<R> {
    pub(crate) fn new(mut options: BatchOptions, room: usize, new_id: fn() -> BatchId) -> Self {
        // What a reader refuses must not be written. The tables are not counted in the raw size.
        let limits = Limits::default();
        options.jobs = options.jobs.clamp(1, limits.jobs);
        options.raw_bytes = options.raw_bytes.clamp(1, limits.raw_bytes - (1 << 20));
        Self {
            options,
            room,
            new_id,
            slots: HashMap::new(),
            held: 0,
            held_open: 0,
            most_held: 0,
            ratio: 1.0,
            deadlines: VecDeque::new(),
            idle: Vec::new(),
            bulks: 0,
            ready: Vec::new(),
            leave_by: None,
        }
    }

    /// Closes the batch of `place` if there is one, and opens another, for a job of the trace `trace`.
    fn reopen(&mut self, place: &Place, trace: Option<&str>, now: Moment) {
        self.close_full(place, now.clock);
        let Some(slot) = self.slots.get_mut(place) else { return };
        let id = (self.new_id)();
        let header =
            Header { id, enqueued_at: now.wall, due: place.due, format: place.format, hops: 0, trace: None, remember: 0 };
        let trace = trace.map(str::to_owned);
        let (batch, receipt) = (BatchBuilder::new(header), R::default());
        slot.open = Some(Open { batch, receipt, held: BATCH_COST, run_time: Duration::ZERO, trace });
        self.hold(BATCH_COST);
        if slot_is_idle(&self.slots, place) {
            self.idle.push(place.clone());
        } else {
            self.deadlines.push_back((now.clock + self.options.linger, place.clone(), id));
        }
    }

    /// Takes back an open batch that is empty.
    fn discard(&mut self, place: &Place) {
        if let Some(open) = self.slots.get_mut(place).and_then(|slot| slot.open.take_if(|open| open.batch.is_empty())) {
            self.held = self.held.saturating_sub(open.held);
            self.held_open = self.held_open.saturating_sub(open.held);
        }
    }

    /// Says that a group of jobs is complete: what was opened in it while nothing was on its way leaves now.
    pub(crate) fn rest(&mut self) {
        while let Some(place) = self.idle.pop() {
            if slot_is_idle(&self.slots, &place) {
                self.close(&place);
            } else {
                // A batch of the same place filled up and left meanwhile; the one behind it is closed when that
                // arrives, at the latest.
                continue;
            }
        }
    }

    /// Says that a group of jobs is complete and the next is about to come: what was opened in it waits for that.
    pub(crate) fn rest_for_more(&mut self, now: Duration) {
        for place in std::mem::take(&mut self.idle) {
            let open = self.slots.get(&place).and_then(|slot| slot.open.as_ref());
            if let Some(id) = open.map(|open| open.batch.header().id) {
                self.deadlines.push_back((now + self.options.linger, place, id));
            }
        }
    }

    /// The batches that are ready to leave, if they are to leave by now.
    pub(crate) fn take_ready(&mut self) -> Vec<Closed<R>> {
        match self.leave_by {
            Some(_) => Vec::new(),
            None => std::mem::take(&mut self.ready),
        }
    }

    /// Says that a batch is inside the publish window: it takes no room here any more.
    pub(crate) fn left(&mut self, held: usize) {
        self.held = self.held.saturating_sub(held);
    }

    /// Says that a batch was answered, well or not, and how its size changed from `raw` to `wire`; if that is not
    /// known, `None`.
    pub(crate) fn arrived(&mut self, place: &Place, sizes: Option<(usize, usize)>) {
        let Some(slot) = self.slots.get_mut(place) else { return };
        if let Some((raw, wire)) = sizes.filter(|(raw, _)| *raw > 0) {
            let seen = (wire as f64 / raw as f64).clamp(0.01, 1.5);
            slot.ratio += (seen - slot.ratio) / 4.0;
            self.ratio += (seen - self.ratio) / 4.0;
        }
        slot.in_flight = slot.in_flight.saturating_sub(1);
        if slot.in_flight > 0 {
            return;
        }
        if slot.open.is_some() {
            // It has a deadline, so nobody waits longer than they would otherwise.
            if self.bulks == 0 {
                self.close(place);
            }
        } else if place.due.is_some() || self.slots.len() > QUIET_PLACES {
            self.slots.remove(place);
        }
    }

    /// Says that somebody begins to give many jobs in one go.
    pub(crate) fn bulk_begins(&mut self) {
        self.bulks += 1;
    }

    /// Says that somebody has given the last of them: what was held for more leaves now where nothing is on its way.
    pub(crate) fn bulk_ends(&mut self) {
        self.bulks = self.bulks.saturating_sub(1);
        if self.bulks == 0 {
            self.leave_by = None;
            let waits = |slot: &Slot<R>| slot.open.is_some() && slot.in_flight == 0;
            for place in self.places(waits) {
                self.close(&place);
            }
        }
    }

    /// Closes what has lingered long enough.
    pub(crate) fn tick(&mut self, now: Duration) {
        while let Some((deadline, _, _)) = self.deadlines.front()
            && *deadline <= now
            && let Some((_, place, id)) = self.deadlines.pop_front()
        {
            if self.is_open(&place, id) {
                self.close(&place);
            }
        }
        self.leave_by.take_if(|at| *at <= now);
    }

    /// When [`Batcher::tick`] is next needed.
    pub(crate) fn deadline(&mut self) -> Option<Duration> {
        while let Some((_, place, id)) = self.deadlines.front()
            && !self.is_open(place, *id)
        {
            self.deadlines.pop_front();
        }
        let opened = self.deadlines.front().map(|(deadline, _, _)| *deadline);
        opened.into_iter().chain(self.leave_by).min()
    }

    /// Closes everything that is open.
    pub(crate) fn close_all(&mut self) {
        self.leave_by = None;
        for place in self.places(|slot| slot.open.is_some()) {
            self.close(&place);
        }
    }

    /// The places whose slot is such, in their own order: in the map's order, batches would leave in another at each start.
    fn places(&self, such: impl Fn(&Slot<R>) -> bool) -> Vec<Place> {
        let mut places: Vec<_> = self.slots.iter().filter(|(_, slot)| such(slot)).map(|(place, _)| place.clone()).collect();
        places.sort_unstable();
        places
    }

    /// Changes how long jobs wait for others, how large a batch is on the wire and how much room there is, in bytes.
    /// Batches that are open already wait no longer than new ones.
    pub(crate) fn set_pace(&mut self, linger: Duration, wire_bytes: usize, room: usize, now: Duration) {
        self.options.linger = linger;
        self.options.wire_bytes = wire_bytes;
        self.room = room;
        // They stay in order: none is due later than one that is opened now.
        self.deadlines.iter_mut().for_each(|(deadline, ..)| *deadline = (*deadline).min(now + linger));
        self.leave_by = self.leave_by.map(|at| at.min(now + linger));
    }

    /// The most that was ever held at once, in bytes.
    pub(crate) fn most_held(&self) -> usize {
        self.most_held
    }

    /// Closes the batch of `place` because it is full. In the middle of a bulk it may wait for a few others, which will be
    /// full soon.
    fn close_full(&mut self, place: &Place, now: Duration) {
        let leave_by = match self.ready.len() + 1 {
            1 if self.bulks > 0 && !slot_is_idle(&self.slots, place) => Some(now + self.options.linger),
            2..TOGETHER => self.leave_by,
            _ => None,
        };
        if self.close(place) {
            self.leave_by = leave_by;
        }
    }

    /// Closes the batch of `place`, if there is one: it leaves at once, and those that are ready with it.
    fn close(&mut self, place: &Place) -> bool {
        let Some(slot) = self.slots.get_mut(place) else { return false };
        let Some(mut open) = slot.open.take() else { return false };
        slot.in_flight += 1;
        self.held_open = self.held_open.saturating_sub(open.held);
        if open.batch.len() == 1 {
            // Jobs of several traces share a batch; only one that travels alone can bring its own.
            open.batch.set_trace(open.trace.take());
        }
        self.ready.push(Closed { place: place.clone(), batch: open.batch, receipt: open.receipt, held: open.held });
        self.leave_by = None;
        true
    }

    /// When the room is taken by batches that are open still, waiting would help nobody. Otherwise batches are
    /// leaving, and closing the open ones early would only make them smaller.
    fn make_room(&mut self, now: Moment) {
        self.tick(now.clock);
        self.leave_by = None;
        if self.held_open > self.room / 2 {
            self.close_all();
        }
    }

    fn hold(&mut self, bytes: usize) {
        self.held += bytes;
        self.held_open += bytes;
        self.most_held = self.most_held.max(self.held);
    }

    fn is_open(&self, place: &Place, id: BatchId) -> bool {
        self.slots.get(place).and_then(|slot| slot.open.as_ref()).is_some_and(|open| open.batch.header().id == id)
    }
}

fn slot_is_idle<R>(slots: &HashMap<Place, Slot<R>>, place: &Place) -> bool {
    slots.get(place).is_some_and(|slot| slot.in_flight == 0)
}
