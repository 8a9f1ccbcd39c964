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
}

impl Counts {
    /// Adds a job that ended as `state`.
    pub fn ended(&mut self, state: State) {
        self.jobs += 1;
        if state == State::Completed { self.completed += 1 } else { self.discarded += 1 }
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.jobs += other.jobs;
        self.completed += other.completed;
        self.discarded += other.discarded;
    }
}
