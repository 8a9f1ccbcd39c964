//! Shrinking a history that breaks a promise, to the shortest that still breaks it.

use super::breaks::Breaks;
use super::history::{Fault, History, Mishap, Spec, Step, What};
use super::play::play;
use super::truth::Violation;

/// How many histories are played for it, at most.
const TRIES: u32 = 3_000;

struct Shrinking<'a> {
    breaks: &'a Breaks,
    best: History,
    violation: Violation,
    tries: u32,
}

/// The shortest history found that breaks what `history` breaks, and how it does.
pub(crate) fn shrink(history: &History, breaks: &Breaks, violation: &Violation) -> (History, Violation) {
    let mut this = Shrinking { breaks, best: history.clone(), violation: violation.clone(), tries: 0 };
    loop {
        let before = this.best.clone();
        this.drop_steps();
        this.simplify_steps();
        this.simplify_setting();
        if this.best == before || this.tries >= TRIES {
            return (this.best, this.violation);
        }
    }
}

impl Shrinking<'_> {
    /// Takes `other` if it breaks the same promise: whether it does.
    fn try_on(&mut self, other: History) -> bool {
        if other == self.best || self.tries >= TRIES {
            return false;
        }
        self.tries += 1;
        let Ok(outcome) = play(&other, self.breaks, false) else { return false };
        let Some(same) = outcome.violations.into_iter().find(|violation| violation.what == self.violation.what) else {
            return false;
        };
        (self.best, self.violation) = (other, same);
        true
    }

    fn drop_steps(&mut self) {
        let mut size = self.best.steps.len().div_ceil(2).max(1);
        loop {
            let mut at = 0;
            while at < self.best.steps.len() {
                let mut other = self.best.clone();
                other.steps.drain(at..(at + size).min(other.steps.len()));
                if !self.try_on(other) {
                    at += size;
                }
            }
            if size == 1 {
                return;
            }
            size /= 2;
        }
    }

    fn simplify_steps(&mut self) {
        let mut at = 0;
        while at < self.best.steps.len() {
            while let Some(simpler) = simpler(&self.best.steps[at]).into_iter().find_map(|step| self.with(at, step).then_some(()))
            {
                let () = simpler;
            }
            at += 1;
        }
    }

    fn with(&mut self, at: usize, step: Step) -> bool {
        let mut other = self.best.clone();
        other.steps[at] = step;
        other.steps.sort_by_key(|step| step.at);
        self.try_on(other)
    }

    fn simplify_setting(&mut self) {
        if self.best.setting.quick_ms.is_some() {
            // With other settings other things would hold quick jobs up.
            return;
        }
        let changes: [fn(&mut History); 10] = [
            |h| h.setting.executors = 1,
            |h| h.setting.ingests = 1,
            |h| h.setting.spool = false,
            |h| h.setting.latency_ms = 1,
            |h| h.setting.slots = 1,
            |h| h.setting.turns = 1,
            |h| h.setting.message_bytes = 1 << 20,
            |h| h.setting.lane_messages = 1_000,
            |h| h.setting.copies = 100_000,
            |h| h.setting.dedup_ms = 120_000,
        ];
        for change in changes {
            let mut other = self.best.clone();
            change(&mut other);
            self.try_on(other);
        }
    }
}

/// Simpler forms of a step, the simplest first.
fn simpler(step: &Step) -> Vec<Step> {
    let mut forms = Vec::new();
    let mut add = |what: What| forms.push(Step { what, ..step.clone() });
    match &step.what {
        What::Post { ingest, key, jobs, again } => {
            fewer(jobs).into_iter().for_each(|jobs| add(What::Post { ingest: *ingest, key: *key, jobs, again: again.clone() }));
            if !again.is_empty() {
                for at in 0..again.len() {
                    let mut again = again.clone();
                    again.remove(at);
                    add(What::Post { ingest: *ingest, key: *key, jobs: jobs.clone(), again });
                }
            }
            if *key {
                add(What::Post { ingest: *ingest, key: false, jobs: jobs.clone(), again: Vec::new() });
            }
        }
        What::Raw { place, jobs } => fewer(jobs).into_iter().for_each(|jobs| add(What::Raw { place: *place, jobs })),
        What::Run { jobs, kills } => {
            fewer(jobs).into_iter().for_each(|jobs| add(What::Run { jobs, kills: kills.clone() }));
            for at in 0..kills.len() {
                let mut kills = kills.clone();
                kills.remove(at);
                add(What::Run { jobs: jobs.clone(), kills });
            }
        }
        What::Fault(Fault::Restart { down_ms, acks_ms, ids, counts, leases }) => {
            let forms = [(50, *acks_ms, *ids, *counts, *leases), (*down_ms, 0, *ids, *counts, *leases)];
            let more = [(*down_ms, *acks_ms, false, *counts, *leases), (*down_ms, *acks_ms, *ids, false, *leases)];
            for (down_ms, acks_ms, ids, counts, leases) in forms.into_iter().chain(more) {
                add(What::Fault(Fault::Restart { down_ms, acks_ms, ids, counts, leases }));
            }
        }
        What::Fault(Fault::Op { role, op, nth, what: Mishap::Slow(_) }) => {
            add(What::Fault(Fault::Op { role: *role, op: *op, nth: *nth, what: Mishap::Slow(500) }));
        }
        What::Fault(_) => {}
    }
    forms.retain(|form| form != step);
    forms
}

fn fewer(jobs: &[Spec]) -> Vec<Vec<Spec>> {
    let mut forms = Vec::new();
    if jobs.len() > 1 {
        forms.push(jobs[..jobs.len() / 2].to_vec());
        forms.push(jobs[jobs.len() / 2..].to_vec());
        for at in 0..jobs.len() {
            let mut jobs = jobs.to_vec();
            jobs.remove(at);
            forms.push(jobs);
        }
    }
    let changes: [fn(&mut Spec); 7] = [
        |job| job.ms = 0,
        |job| job.fails = 0,
        |job| job.permanent = false,
        |job| job.delay_s = 0,
        |job| job.size = 0,
        |job| job.store = false,
        |job| job.kills = 0,
    ];
    for change in changes {
        let mut jobs = jobs.to_vec();
        jobs.iter_mut().for_each(change);
        forms.push(jobs);
    }
    for at in 0..jobs.len() {
        for change in changes {
            let mut jobs = jobs.to_vec();
            change(&mut jobs[at]);
            forms.push(jobs);
        }
    }
    forms
}
