//! When a batch leaves: the decision, and nothing else. No clock but what is passed in, no tasks, no network.
//!
//! The batcher is *self-clocking*. While nothing of a place is on its way, what comes leaves at once: waiting would
//! only cost latency. Otherwise jobs gather until the batch is full, until what was on its way has arrived, or until
//! `linger` is over. So a quiet factory is quick, a busy one sends full batches, and nobody has to say which it is.
//! While somebody is giving many jobs in one go, what arrives cuts no batch short: the next jobs are there already.
//!
//! Everything is bounded: jobs that have not left yet take at most the *room*; what does not fit stays with its
//! caller.

#[cfg(test)]
mod laws;

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use wf_schema::{BatchBuilder, BatchId, Format, Header, Job, JobId, Lane, Limits, Millis};

use crate::BatchOptions;

/// What a job in an open batch takes of the room beside its args, and an open batch beside its jobs. Bytes; roughly
/// what they take in memory.
const JOB_COST: usize = 64;
const BATCH_COST: usize = 2_048;
/// Places that nobody uses at the moment are remembered up to this many, for how well their jobs compress.
const QUIET_PLACES: usize = 1_024;

/// Jobs that can share a batch: one lane, one format, one time to fall due.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
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

/// Jobs in a row that are alike ([`Job::is_like`]), mostly one, with what the batcher must know of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Incoming<'a> {
    pub(crate) jobs: &'a [Job<'a>],
    pub(crate) due: Option<Millis>,
    /// How long each is expected to run; zero if that is not known.
    pub(crate) run_time: Duration,
    /// The trace they belong to. Travels with a job that leaves alone.
    pub(crate) trace: Option<&'a str>,
}

impl Incoming<'_> {
    fn place(&self) -> Option<Place> {
        let job = self.jobs.first()?;
        Some(Place { lane: job.lane.clone(), format: job.format, due: self.due })
    }

    fn is_for(&self, place: &Place) -> bool {
        self.due == place.due && self.jobs.first().is_some_and(|job| job.lane == place.lane && job.format == place.format)
    }
}

/// How far rows were taken.
#[derive(Clone, Copy, Debug, Default)]
struct Cursor {
    row: usize,
    /// Within the row.
    job: usize,
    /// In all.
    taken: usize,
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
        }
    }

    /// Puts the jobs of `rows` into the open batches of their places, in order, as far as there is room: how many. `put`
    /// is told, of neighbours that went into one batch, the number of the first among all, how many they are, the id of
    /// the first, and the batch's receipt.
    ///
    /// After a group of jobs, [`Batcher::rest`] must be called.
    pub(crate) fn take(&mut self, rows: &[Incoming<'_>], now: Moment, mut put: impl FnMut(usize, u32, JobId, &R)) -> usize {
        let mut at = Cursor::default();
        while let Some(place) = rows.get(at.row).and_then(Incoming::place) {
            // Neighbours mostly go to the same place: what is known of it is looked up once for all of them.
            let there = at.row + rows[at.row..].iter().take_while(|row| row.is_for(&place)).count();
            match self.fill(&place, &rows[..there], &mut at, &mut put) {
                Filled::AllTaken => {}
                Filled::ToTheBrim => self.close(&place),
                Filled::WithoutRoom => {
                    self.make_room(now);
                    break;
                }
                Filled::NeedsAnother => {
                    let trace = rows.get(at.row).and_then(|row| row.trace);
                    self.reopen(&place, trace, now);
                }
                // It stays with its caller.
                Filled::FitsNowhere => {
                    self.discard(&place);
                    break;
                }
            }
        }
        at.taken
    }

    /// Puts the jobs of `rows` from `at` on into the open batch of `place`, until something is in the way.
    fn fill(
        &mut self,
        place: &Place,
        rows: &[Incoming<'_>],
        at: &mut Cursor,
        put: &mut impl FnMut(usize, u32, JobId, &R),
    ) -> Filled {
        let ratio = self.ratio;
        if !self.slots.contains_key(place) {
            self.slots.insert(place.clone(), Slot { open: None, in_flight: 0, ratio });
        }
        let Some(slot) = self.slots.get_mut(place) else { return Filled::WithoutRoom };
        let limits = Thresholds::new(&self.options, slot.ratio);
        while let Some(row) = rows.get(at.row) {
            let (first, mut alike) = (at.taken, false);
            let stopped = loop {
                let Some(job) = row.jobs.get(at.job) else { break None };
                let cost = job.args.len() + JOB_COST;
                // A batch that was opened for this job has passed already.
                let others = self.held - slot.open.as_ref().filter(|open| open.batch.is_empty()).map_or(0, |open| open.held);
                // With nothing held there is room for anything, or a large job could never pass.
                if others > 0 && others + cost + BATCH_COST > self.room {
                    break Some(Filled::WithoutRoom);
                }
                let Some(open) = slot.open.as_mut().filter(|open| open.batch.is_empty() || !limits.crowded(open, job.args.len()))
                else {
                    break Some(Filled::NeedsAnother);
                };
                let pushed = if alike { open.batch.push_alike(&job.args) } else { open.batch.push(job) };
                if pushed.is_err() {
                    break Some(if open.batch.is_empty() { Filled::FitsNowhere } else { Filled::NeedsAnother });
                }
                alike = true;
                open.held += cost;
                open.run_time += row.run_time;
                self.held += cost;
                self.held_open += cost;
                self.most_held = self.most_held.max(self.held);
                at.job += 1;
                at.taken += 1;
                if limits.full(open) {
                    break Some(Filled::ToTheBrim);
                }
            };
            if let Some(open) = slot.open.as_ref().filter(|_| at.taken > first) {
                let count = at.taken - first;
                let id = JobId { batch: open.batch.header().id, index: (open.batch.len() - count) as u32 };
                put(first, count as u32, id, &open.receipt);
            }
            if at.job >= row.jobs.len() {
                (at.row, at.job) = (at.row + 1, 0);
            }
            if let Some(stopped) = stopped {
                return stopped;
            }
        }
        Filled::AllTaken
    }

    /// Closes the batch of `place` if there is one, and opens another, for a job of the trace `trace`.
    fn reopen(&mut self, place: &Place, trace: Option<&str>, now: Moment) {
        self.close(place);
        let Some(slot) = self.slots.get_mut(place) else { return };
        let id = (self.new_id)();
        let header = Header { id, enqueued_at: now.wall, due: place.due, format: place.format, hops: 0, trace: None };
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

    /// The batches that are ready to leave.
    pub(crate) fn take_ready(&mut self) -> Vec<Closed<R>> {
        std::mem::take(&mut self.ready)
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
            let waits = |slot: &Slot<R>| slot.open.is_some() && slot.in_flight == 0;
            let waiting: Vec<Place> = self.slots.iter().filter(|(_, slot)| waits(slot)).map(|(place, _)| place.clone()).collect();
            waiting.iter().for_each(|place| self.close(place));
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
    }

    /// When [`Batcher::tick`] is next needed.
    pub(crate) fn deadline(&mut self) -> Option<Duration> {
        while let Some((_, place, id)) = self.deadlines.front()
            && !self.is_open(place, *id)
        {
            self.deadlines.pop_front();
        }
        self.deadlines.front().map(|(deadline, _, _)| *deadline)
    }

    /// Closes everything that is open.
    pub(crate) fn close_all(&mut self) {
        let open: Vec<Place> = self.slots.iter().filter(|(_, slot)| slot.open.is_some()).map(|(p, _)| p.clone()).collect();
        open.iter().for_each(|place| self.close(place));
    }

    /// Changes how long jobs wait for others, how large a batch is on the wire and how much room there is, in bytes.
    /// Batches that are open already wait no longer than new ones.
    pub(crate) fn set_pace(&mut self, linger: Duration, wire_bytes: usize, room: usize, now: Duration) {
        self.options.linger = linger;
        self.options.wire_bytes = wire_bytes;
        self.room = room;
        // They stay in order: none is due later than one that is opened now.
        self.deadlines.iter_mut().for_each(|(deadline, ..)| *deadline = (*deadline).min(now + linger));
    }

    /// The most that was ever held at once, in bytes.
    pub(crate) fn most_held(&self) -> usize {
        self.most_held
    }

    fn close(&mut self, place: &Place) {
        let Some(slot) = self.slots.get_mut(place) else { return };
        let Some(mut open) = slot.open.take() else { return };
        slot.in_flight += 1;
        self.held_open = self.held_open.saturating_sub(open.held);
        if open.batch.len() == 1 {
            // Jobs of several traces share a batch; only one that travels alone can bring its own.
            open.batch.set_trace(open.trace.take());
        }
        self.ready.push(Closed { place: place.clone(), batch: open.batch, receipt: open.receipt, held: open.held });
    }

    /// When the room is taken by batches that are open still, waiting would help nobody. Otherwise batches are
    /// leaving, and closing the open ones early would only make them smaller.
    fn make_room(&mut self, now: Moment) {
        self.tick(now.clock);
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

/// Why no more jobs were put into an open batch.
enum Filled {
    /// There are none left.
    AllTaken,
    /// It is full.
    ToTheBrim,
    /// The room is taken.
    WithoutRoom,
    /// There is no open batch, or the next job does not fit into it.
    NeedsAnother,
    /// The next job does not even fit into a batch of its own.
    FitsNowhere,
}

/// When a batch is full. The sizes are before compression, whatever they limit.
struct Thresholds<'a> {
    options: &'a BatchOptions,
    /// At which a batch is full.
    full: usize,
    /// Above which it is better not filled.
    crowded: usize,
}

impl<'a> Thresholds<'a> {
    /// For a place whose batches are by `ratio` of their size on the wire.
    fn new(options: &'a BatchOptions, ratio: f64) -> Self {
        let raw = |wire: usize| (wire as f64 / ratio) as usize;
        // A batch may exceed its wire size by half before a large job is sent to the next: two batches of half the
        // size would cost more than one that is somewhat too large.
        let crowded = raw(options.wire_bytes + options.wire_bytes / 2);
        Self { options, full: raw(options.wire_bytes).min(options.raw_bytes), crowded: crowded.min(options.raw_bytes) }
    }

    /// Whether a job of so many bytes should rather open the next batch.
    fn crowded<R>(&self, open: &Open<R>, arriving: usize) -> bool {
        open.batch.raw_len() + arriving > self.crowded
    }

    fn full<R>(&self, open: &Open<R>) -> bool {
        open.batch.len() >= self.options.jobs
            || open.batch.raw_len() >= self.full
            || (!open.run_time.is_zero() && open.run_time >= self.options.run_time)
    }
}
