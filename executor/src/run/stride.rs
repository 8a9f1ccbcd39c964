//! When to look at the clock: not for every job, for a look costs as much as a quarter of a cheap one.

use std::time::Duration;

use tokio::time::Instant;

/// How many jobs that end at once are begun, at most, between two looks.
const MOST: u32 = 32;
/// A job that takes longer than this before it first waits computes or blocks. Others of its batch get tasks of their
/// own from the start, so that they spread over the cores. Only a job that was looked at alone tells: that several took
/// as long together may be the scheduler's doing, and a task for each of thousands of cheap jobs would cost ten times
/// what they do.
const LONG: Duration = Duration::from_micros(500);

/// The jobs of one kind that ended since the last look.
pub(super) struct Stride {
    since: Instant,
    kind: usize,
    jobs: u32,
    /// With how many it is over.
    most: u32,
}

/// What a look at the clock showed.
pub(super) struct Looked {
    pub(super) kind: usize,
    pub(super) jobs: u32,
    /// How long the jobs of the stride took.
    pub(super) took: Duration,
    /// Whether it was one job, and a long one.
    pub(super) long: bool,
}

impl Stride {
    /// Begins at `now`. The first job is looked at alone.
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, kind: 0, jobs: 0, most: 1 }
    }

    /// Whether a job of `kind` belongs to another stride than those before it.
    pub(super) fn ends_before(&self, kind: usize) -> bool {
        self.jobs > 0 && self.kind != kind
    }

    /// One more job of `kind` has ended: whether it is time to look.
    pub(super) fn add(&mut self, kind: usize) -> bool {
        self.kind = kind;
        self.jobs += 1;
        self.jobs >= self.most
    }

    /// Looks at the clock, if jobs ended since the last time. Strides grow while jobs are cheap.
    pub(super) fn look(&mut self, now: Instant) -> Option<Looked> {
        if self.jobs == 0 {
            return None;
        }
        let took = now - self.since;
        let long = self.most == 1 && took >= LONG;
        self.most = if took < LONG / 8 { (self.most * 2).min(MOST) } else { 1 };
        let jobs = std::mem::take(&mut self.jobs);
        self.since = now;
        Some(Looked { kind: self.kind, jobs, took, long })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn cheap_jobs_are_looked_at_less_and_less_and_dear_ones_each() {
        let mut now = Instant::now();
        let mut stride = Stride::new(now);
        let mut looks = Vec::new();
        for job in 0..144 {
            now += if job < 120 { Duration::from_micros(1) } else { Duration::from_millis(1) };
            if stride.add(0) {
                looks.push((job, stride.look(now).unwrap().long));
            }
        }
        let at: Vec<_> = looks.iter().map(|(job, _)| *job).collect();
        // The stride that the first dear jobs fall into says nothing of any one of them.
        assert_eq!(at, [0, 2, 6, 14, 30, 62, 94].into_iter().chain(126..144).collect::<Vec<_>>());
        assert!(looks.iter().all(|(job, long)| *long == (*job > 126)));
    }

    #[test]
    fn a_stride_is_of_one_kind() {
        let now = Instant::now();
        let mut stride = Stride::new(now);
        assert!(!stride.ends_before(1));
        stride.add(1);
        assert!(stride.ends_before(2) && !stride.ends_before(1));
        assert_eq!(stride.look(now + LONG).unwrap().kind, 1);
        assert!(stride.look(now).is_none() && !stride.ends_before(2));
    }
}
