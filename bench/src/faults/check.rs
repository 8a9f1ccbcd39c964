//! The verdict on a round. Pure: evidence in, findings out.
//!
//! Each promise of DESIGN.md's *Guarantees* has its check: `fate` (1, 5: nothing accepted is lost, nobody is told what
//! is not so), `again` (2, 3, 4: what ran more than once, and whether it may have), `flow` (nothing stands still once
//! a fault is over; what a spool held back goes on in order).

mod again;
mod fate;
mod flow;
#[cfg(test)]
mod tests;

use std::ops::AddAssign;

use serde::Serialize;

use super::evidence::Evidence;

/// How many findings are told in words.
const WORDS: usize = 40;

/// What was found.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Findings {
    /// Jobs that producers tried to enqueue.
    pub(crate) jobs: u64,
    /// Those they were told are stored.
    pub(crate) accepted: u64,
    /// Of these, those that a spool took first.
    pub(crate) spooled: u64,
    /// Those of which nobody could tell them.
    pub(crate) unknown: u64,
    /// Jobs that a handler brought to their end.
    pub(crate) completed: u64,
    /// Jobs that became dead letters.
    pub(crate) dead: u64,
    /// Dead letters of jobs that were completed: nothing is lost, but somebody has to look. A broker that could write
    /// that a message was acknowledged, and not that it is gone, leaves such.
    pub(crate) buried_done: u64,
    /// Dead letters of jobs that would have succeeded, and were not completed.
    pub(crate) condemned: u64,
    /// Accepted, and without an outcome or a trace that it waits.
    pub(crate) lost: u64,
    /// Runs that no guarantee excuses.
    pub(crate) duplicated: u64,
    /// Runs that guarantee 3 names: of a run that was cut off before its record, or by a zombie before its fence.
    pub(crate) repeated: u64,
    /// Calls that were enqueued twice.
    pub(crate) doubled: u64,
    /// Of these, those that guarantee 4 does not excuse. Counted among the duplicated too.
    pub(crate) doubled_beyond: u64,
    /// Jobs out of a spool that were overtaken by far younger ones.
    pub(crate) reordered: u64,
    /// Jobs that waited to the end, and times of more than a lease in which nothing happened although something could.
    pub(crate) stuck: u64,
    /// Lost, and never stored at all as far as anybody knows.
    pub(crate) false_accepts: u64,
    /// Refused, and yet run.
    pub(crate) false_errors: u64,
    /// What only some scenarios look at, and found broken.
    pub(crate) broken: u64,
    /// The longest time from the end of a disturbance until all jobs accepted by then had their outcomes, in
    /// milliseconds.
    pub(crate) recovery_ms: u64,
    /// The first findings, in words.
    pub(crate) words: Vec<String>,
}

impl Findings {
    /// Whether a promise was broken.
    pub(crate) fn is_bad(&self) -> bool {
        self.lost + self.condemned + self.duplicated + self.stuck + self.false_accepts + self.broken > 0
    }

    fn say(&mut self, words: impl FnOnce() -> String) {
        if self.words.len() < WORDS {
            self.words.push(words());
        }
    }
}

impl AddAssign for Findings {
    fn add_assign(&mut self, other: Self) {
        self.jobs += other.jobs;
        self.accepted += other.accepted;
        self.spooled += other.spooled;
        self.unknown += other.unknown;
        self.completed += other.completed;
        self.dead += other.dead;
        self.buried_done += other.buried_done;
        self.condemned += other.condemned;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.repeated += other.repeated;
        self.doubled += other.doubled;
        self.doubled_beyond += other.doubled_beyond;
        self.reordered += other.reordered;
        self.stuck += other.stuck;
        self.false_accepts += other.false_accepts;
        self.false_errors += other.false_errors;
        self.broken += other.broken;
        self.recovery_ms = self.recovery_ms.max(other.recovery_ms);
        self.words.extend(other.words);
        self.words.truncate(WORDS);
    }
}

/// Judges `evidence`.
pub(crate) fn check(evidence: &Evidence) -> Findings {
    let mut findings = Findings::default();
    fate::check(evidence, &mut findings);
    again::check(evidence, &mut findings);
    flow::check(evidence, &mut findings);
    findings
}
