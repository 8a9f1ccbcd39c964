//! What an executor has done.

use std::sync::atomic::{AtomicU64, Ordering};

use wf_schema::State;

/// What an executor has done since it started. Cheap to take; the numbers are of about the same moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExecutorStats {
    /// Attempts settled as completed.
    pub completed: u64,
    /// Attempts that failed and will be made again.
    pub retryable: u64,
    /// Jobs discarded: out of attempts, failed for good, or no jobs at all.
    pub discarded: u64,
    /// Jobs that were not started in time.
    pub expired: u64,
    /// Jobs that went on elsewhere: to another executor, unstarted, or to a later time.
    pub moved: u64,
    /// Running batches that gave unstarted jobs away, to executors that had nothing to do.
    pub split: u64,
    /// Jobs that hold one of the node's slots now.
    pub running: u64,
    /// Batches delivered.
    pub deliveries: u64,
    /// Those of them that had been delivered before, here or elsewhere.
    pub redeliveries: u64,
    /// Jobs of redelivered batches that were found settled and not run again.
    pub skipped: u64,
    /// Records appended.
    pub appends: u64,
    /// Batches given up because another executor had taken them over.
    pub fenced: u64,
    /// Batches given back.
    pub released: u64,
    /// Those of them that others were to have, who had nothing to do.
    pub handed_on: u64,
    /// Batches done and acknowledged.
    pub acked: u64,
    /// How often a lane brought nothing although messages waited in it and there was credit for them, so that its flow
    /// was begun anew.
    pub quiet: u64,
}

macro_rules! tally {
    ($($field:ident),*) => {
        /// The counters behind [`ExecutorStats`]. Counted a batch at a time, so that jobs do not meet at them.
        #[derive(Default)]
        pub(crate) struct Tally {
            $(pub(crate) $field: AtomicU64),*
        }

        impl Tally {
            pub(crate) fn read(&self, running: u64) -> ExecutorStats {
                ExecutorStats { running, $($field: self.$field.load(Ordering::Relaxed)),* }
            }
        }
    };
}

tally!(
    completed,
    retryable,
    discarded,
    expired,
    moved,
    split,
    deliveries,
    redeliveries,
    skipped,
    appends,
    fenced,
    released,
    handed_on,
    acked,
    quiet
);

impl Tally {
    pub(crate) fn settled(&self, states: impl Iterator<Item = State>) {
        let mut counts = [0u64; 5];
        for state in states {
            let at = match state {
                State::Completed => 0,
                State::Retryable => 1,
                State::Discarded | State::Cancelled => 2,
                State::Expired => 3,
                State::Moved => 4,
            };
            counts[at] += 1;
        }
        let counters = [&self.completed, &self.retryable, &self.discarded, &self.expired, &self.moved];
        for (counter, count) in counters.into_iter().zip(counts) {
            count_up(counter, count);
        }
    }
}

/// Adds `by` to `counter`. Nothing is ordered by these counters, hence relaxed.
pub(crate) fn count_up(counter: &AtomicU64, by: u64) {
    if by > 0 {
        counter.fetch_add(by, Ordering::Relaxed);
    }
}
