//! What became of a run's jobs, in numbers.

use std::ops::AddAssign;

use serde::{Deserialize, Serialize};
use wf_schema::State;

/// Jobs by how they ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// All jobs, lines that are no jobs included.
    pub jobs: u64,
    /// Those that completed.
    pub completed: u64,
    /// Those that did not: discarded, cancelled or expired, and lines that are no jobs.
    pub discarded: u64,
    /// Those of which it is not known how they ended, or whether they were run.
    pub unknown: Unknown,
}

/// Jobs whose outcome is not known, by why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unknown {
    /// The broker dropped their outcomes before they were read.
    pub dropped: u64,
    /// They were published so long ago that the broker does not remember whether they were.
    pub forgotten: u64,
    /// The broker could not tell what it has of them.
    pub untold: u64,
}

/// Why an outcome is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Why {
    /// [`Unknown::dropped`].
    Dropped,
    /// [`Unknown::forgotten`].
    Forgotten,
    /// [`Unknown::untold`].
    Untold,
}

impl Counts {
    /// Adds a job that ended as `state`.
    pub fn ended(&mut self, state: State) {
        self.jobs += 1;
        if state == State::Completed { self.completed += 1 } else { self.discarded += 1 }
    }

    /// Adds a job of which it is not known.
    pub(super) fn lost(&mut self, why: Why) {
        self.jobs += 1;
        *match why {
            Why::Dropped => &mut self.unknown.dropped,
            Why::Forgotten => &mut self.unknown.forgotten,
            Why::Untold => &mut self.unknown.untold,
        } += 1;
    }
}

impl Unknown {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.dropped + self.forgotten + self.untold
    }

    /// Says why, and what to do about it, a sentence for each reason.
    pub fn reasons(&self) -> Vec<String> {
        let told = [(self.dropped, Why::Dropped), (self.forgotten, Why::Forgotten), (self.untold, Why::Untold)];
        let told = told.into_iter().filter(|(count, _)| *count > 0);
        told.map(|(count, why)| format!("the outcome of {count} jobs is unknown: {}", why.text())).collect()
    }
}

impl Why {
    /// The type of the error that a line of the results has.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Dropped => "outcome_dropped",
            Self::Forgotten => "outcome_forgotten",
            Self::Untold => "outcome_untold",
        }
    }

    /// What happened, and what to do about it.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Dropped => {
                "the broker dropped it before it was read; raise factory.results_bytes, results_messages or results_age"
            }
            Self::Forgotten => {
                "the job was published more than a day before the run was resumed, and the broker no longer remembers whether it \
                 was run; resume within a day"
            }
            Self::Untold => {
                "the broker could not tell whether the job is still waiting; look at the lane, and at the rights of this program to \
                 read the streams"
            }
        }
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.jobs += other.jobs;
        self.completed += other.completed;
        self.discarded += other.discarded;
        self.unknown.dropped += other.unknown.dropped;
        self.unknown.forgotten += other.unknown.forgotten;
        self.unknown.untold += other.unknown.untold;
    }
}
