//! Which jobs of a run may be why its executors died, as its log tells; and in which order they are run then.
//!
//! A run that keeps coming back is run with care: its executor marks on record which jobs it is about to begin, and a
//! marked job that has no outcome when another executor takes the run up was with one that was lost. That costs its
//! batch its company: at first all of its jobs run together, then a few, then each alone. A job that was lost alone
//! [`DEATHS`] times is not tried again. So what kills its executor is found in a number of deaths that hardly depends
//! on the batch, and everything else in the batch is done before it gets its next chance.

use std::collections::HashMap;

use wf_schema::{Failure, Mark, Record, State};

use crate::intake::Work;
use crate::outcome::Outcome;

/// A run that was delivered more often than this is run with care. Once it may come back for any reason, and twice by
/// chance; each time more, the record that care costs is cheap beside what it may save.
const CARELESS: u64 = 2;
/// Of jobs that were lost together, so many run together the next time.
const FEW: usize = 64;
/// So often an executor may be lost while a job runs alone, before that is taken for the job's doing. One loss may be a
/// power failure and two bad luck; the losses before, in company, come on top.
const DEATHS: u32 = 3;

/// How often executors were lost while a job was with them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Losses {
    /// With others of its run.
    together: u32,
    alone: u32,
}

/// What is known against the jobs of a run. By place; those that nothing is known against are not in it.
#[derive(Debug, Default)]
pub(crate) struct Suspicion(HashMap<usize, Losses>);

/// Jobs to run together.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) places: Vec<usize>,
    /// Whether something is known against them: then nothing else of that sort is to run on the node meanwhile.
    pub(crate) suspect: bool,
}

impl Suspicion {
    /// What `records`, all that can be read of the run's log, say about its jobs. What a writer who `lives` has marked
    /// is no loss: the link to it is, or its lease.
    pub(crate) fn read<'a>(records: impl IntoIterator<Item = &'a Record>, work: &Work, lives: impl Fn(u64) -> bool) -> Self {
        let mut this = Self::default();
        let mut settled = vec![false; work.len()];
        // Who began something, and what.
        let mut begun: Option<(u64, Vec<usize>)> = None;
        for record in records {
            let writer = record.header().writer;
            if let Some((lost, places)) = begun.take_if(|(by, _)| *by != writer) {
                this.lost(&places, &settled, lives(lost));
            }
            for place in record.iter().filter_map(|outcome| work.place_of(outcome.index())) {
                settled[place] = true;
            }
            match record.mark() {
                None | Some(Mark::Scheduled(_)) => {}
                Some(Mark::Nothing) => begun = None,
                Some(Mark::All) => begun = Some((writer, open(work, &settled).collect())),
                Some(Mark::Jobs(indexes)) => {
                    begun = Some((writer, indexes.iter().filter_map(|index| work.place_of(*index)).collect()));
                }
            }
        }
        if let Some((lost, places)) = begun {
            this.lost(&places, &settled, lives(lost));
        }
        this
    }

    fn lost(&mut self, places: &[usize], settled: &[bool], lives: bool) {
        for place in places.iter().filter(|place| !lives && !settled[**place]) {
            let losses = self.0.entry(*place).or_default();
            let count = if places.len() == 1 { &mut losses.alone } else { &mut losses.together };
            *count += 1;
        }
    }

    /// Whether a run of this, delivered so often, is to be run with care.
    pub(crate) fn asks_for_care(&self, delivered: u64) -> bool {
        delivered > CARELESS || !self.0.is_empty()
    }

    /// The end of those jobs that are not to be tried again.
    pub(crate) fn condemned(&self, work: &Work, settled: &[bool]) -> Vec<Outcome> {
        let lost = |place: &usize| self.losses(*place).alone >= DEATHS;
        let failure = || Failure::new("executor_lost", format!("its executor died {DEATHS} times while it ran alone"));
        open(work, settled).filter(lost).map(|place| Outcome::otherwise(place, State::Discarded, Some(failure()), None)).collect()
    }

    /// What to run next of the jobs that have no outcome: first those that nothing is known against, last those that
    /// most is known against.
    pub(crate) fn next(&self, work: &Work, settled: &[bool]) -> Option<Group> {
        let of =
            |losses: &dyn Fn(Losses) -> bool| open(work, settled).filter(|place| losses(self.losses(*place))).collect::<Vec<_>>();
        let fresh = of(&|losses| losses == Losses::default());
        if !fresh.is_empty() {
            return Some(Group { places: fresh, suspect: false });
        }
        let mut once = of(&|losses| losses == Losses { together: 1, alone: 0 });
        if once.len() > FEW {
            once.truncate(FEW);
            return Some(Group { places: once, suspect: true });
        }
        let last = open(work, settled).min_by_key(|place| {
            let Losses { together, alone } = self.losses(*place);
            (alone, together)
        })?;
        Some(Group { places: vec![last], suspect: true })
    }

    fn losses(&self, place: usize) -> Losses {
        self.0.get(&place).copied().unwrap_or_default()
    }
}

/// The places of jobs without an outcome.
pub(crate) fn open<'a>(work: &'a Work, settled: &'a [bool]) -> impl Iterator<Item = usize> + 'a {
    (0..work.batch.len()).filter(|place| !settled[*place])
}

#[cfg(test)]
mod tests;
