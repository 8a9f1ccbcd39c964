//! Filling open batches, until something is in the way.

use wf_schema::JobId;

use super::{BATCH_COST, Batcher, Incoming, JOB_COST, Moment, Open, Place, Slot};
use crate::BatchOptions;

/// How far rows were taken.
#[derive(Clone, Copy, Debug, Default)]
struct Cursor {
    row: usize,
    /// Within the row.
    job: usize,
    /// In all.
    taken: usize,
}

impl<R: Default + Clone> Batcher<R> {
    /// Puts the jobs of `rows` into the open batches of their places, in order, as far as there is room: how many. `put`
    /// is told, of neighbours that went into one batch, the number of the first among all, how many they are, the id of
    /// the first, and the batch's receipt.
    ///
    /// After a group of jobs, [`Batcher::rest`] must be called.
    pub(crate) fn take(&mut self, rows: &[Incoming<'_>], now: Moment, mut put: impl FnMut(usize, u32, JobId, &R)) -> usize {
        let mut at = Cursor::default();
        while let Some(place) = rows.get(at.row).map(Incoming::place) {
            // Neighbours mostly go to the same place: what is known of it is looked up once for all of them.
            let there = at.row + rows[at.row..].iter().take_while(|row| row.is_for(&place)).count();
            match self.fill(&place, &rows[..there], &mut at, &mut put) {
                Filled::AllTaken => {}
                Filled::ToTheBrim => self.close_full(&place, now.clock),
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
                let Some(args) = row.args.get(at.job) else { break None };
                let cost = args.len() + JOB_COST;
                // A batch that was opened for this job has passed already.
                let others = self.held - slot.open.as_ref().filter(|open| open.batch.is_empty()).map_or(0, |open| open.held);
                // With nothing held there is room for anything, or a large job could never pass.
                if others > 0 && others + cost + BATCH_COST > self.room {
                    break Some(Filled::WithoutRoom);
                }
                let Some(open) = slot.open.as_mut().filter(|open| open.batch.is_empty() || !limits.crowded(open, args.len()))
                else {
                    break Some(Filled::NeedsAnother);
                };
                let pushed = if alike { open.batch.push_alike(args) } else { open.batch.push_like(row.job, args) };
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
            if at.job >= row.args.len() {
                (at.row, at.job) = (at.row + 1, 0);
            }
            if let Some(stopped) = stopped {
                return stopped;
            }
        }
        Filled::AllTaken
    }
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
