//! How long the jobs of a run took.

use std::time::Duration;

use crate::intake::Work;
use crate::run_times::RunTimes;

/// What was measured of a run. Added up a job at a time, told a batch at a time.
pub(super) struct Measured {
    /// How many jobs ended, and how long they took in all.
    pub(super) ran: u32,
    pub(super) busy: Duration,
    /// The same, by the kind's place in the batch, as far as it was not told yet.
    by_kind: Vec<(u32, Duration)>,
}

impl Measured {
    pub(super) fn new(work: &Work) -> Self {
        Self { ran: 0, busy: Duration::ZERO, by_kind: vec![(0, Duration::ZERO); work.batch.kinds().len()] }
    }

    /// So many jobs of the kind at this place ended, which took `took` in all.
    pub(super) fn took(&mut self, kind: usize, jobs: u32, took: Duration) {
        self.ran += jobs;
        self.busy += took;
        if let Some((ran, busy)) = self.by_kind.get_mut(kind) {
            *ran += jobs;
            *busy += took;
        }
    }

    /// Tells what is new of it.
    pub(super) fn tell(&mut self, work: &Work, times: &RunTimes) {
        for (kind, measured) in work.batch.kinds().iter().zip(&mut self.by_kind) {
            let (ran, busy) = std::mem::take(measured);
            times.observe(kind, ran, busy);
        }
    }

    /// How long all jobs of `work` would take, going by those that ran.
    pub(super) fn whole(&self, work: &Work) -> Option<Duration> {
        (self.ran > 0).then(|| self.busy.mul_f64(work.batch.len() as f64 / f64::from(self.ran)))
    }
}
