//! What ran more than once, and whether it may have.
//!
//! Guarantee 3 excuses a run that repeats another of the same (id, attempt) in two cases. The first was cut off: its
//! node, or the way to the broker, was disturbed before all of its batch could be settled. Or the second is a
//! zombie's: its node was disturbed, and it had no chance yet to append and be fenced. Guarantee 4 excuses a batch that
//! was stored twice under one id when the broker had been disturbed, and a call that was made twice.

use std::collections::BTreeMap;

use wf_schema::{BatchId, JobId, RunId, State};

use super::Findings;
use crate::faults::evidence::{Disturbance, Evidence, Run, Whom};

/// How long after the last of its jobs a batch may need to be settled and acknowledged, in milliseconds: two round
/// trips to a busy broker on a busy machine.
const SETTLING: u64 = 3_000;
/// How long a zombie may go on beside the time of its longest job: until its next checkpoint, and a round trip.
const UNFENCED: u64 = 1_000 + SETTLING;

pub(super) fn check(evidence: &Evidence, findings: &mut Findings) {
    let judge = Judge::new(evidence);
    calls(evidence, findings);
    if evidence.begins_once {
        begun_again(evidence, findings);
    }
    let mut runs: BTreeMap<(JobId, u32), Vec<&Run>> = BTreeMap::new();
    for run in &evidence.runs {
        runs.entry((run.id, run.attempt)).or_default().push(run);
    }
    for ((id, attempt), mut again) in runs.into_iter().filter(|(_, runs)| runs.len() > 1) {
        again.sort_by_key(|run| run.begun);
        let mut excess = again.len() as u64 - 1;
        let records = judge.records.get(&(id, attempt)).map_or(&[][..], Vec::as_slice);
        // Each lineage of the message has settled it: it was stored more than once.
        let stored = records.len().saturating_sub(1) as u64;
        if stored > 0 {
            findings.doubled += stored;
            excess = excess.saturating_sub(stored);
            if !judge.broker_disturbed_before(records[records.len() - 1].1) {
                findings.doubled_beyond += stored;
                findings.duplicated += stored;
                findings.say(|| format!("duplicated: {} ({id}) was stored twice with nothing done to the broker", again[0].key));
            }
            findings.repeated += excess;
            continue;
        }
        let settled = records.first().map(|(_, at)| *at);
        for pair in again.windows(2) {
            let excuse = match settled {
                Some(at) if at < pair[1].begun => judge.zombie(pair[0], pair[1], at),
                _ => judge.cut_off(pair[0], pair[1]) || judge.zombie(pair[0], pair[1], pair[0].begun),
            };
            if excuse {
                findings.repeated += 1;
            } else {
                findings.duplicated += 1;
                let [first, second] = [pair[0], pair[1]].map(|run| format!("{} at {} to {:?}", run.node, run.begun, run.ended));
                let settled = settled.map_or("not on record".to_owned(), |at| format!("settled at {at}"));
                findings.say(|| format!("duplicated: {} ({id}, attempt {attempt}): {first}, {settled}, {second}", again[0].key));
            }
        }
    }
}

/// The share of runs that a process may begin a second time although it has ended them before: a message that its producer
/// sent again to a broker that had forgotten it is stored a second time, and runs a second time.
const FORGOTTEN: f64 = 0.02;

/// Runs that a process began although it had begun them before. None may be while it still holds the first: that message is
/// the one it has.
fn begun_again(evidence: &Evidence, findings: &mut Findings) {
    let mut begun: BTreeMap<(JobId, u32, &str, u32), Vec<&Run>> = BTreeMap::new();
    for run in &evidence.runs {
        begun.entry((run.id, run.attempt, run.node.as_str(), run.process)).or_default().push(run);
    }
    let mut after = 0;
    for ((id, attempt, node, _), mut runs) in begun {
        runs.sort_by_key(|run| run.begun);
        for pair in runs.windows(2) {
            if pair[0].ended.is_none_or(|(at, _)| at > pair[1].begun) {
                findings.broken += 1;
                findings
                    .say(|| format!("broken: {} ({id}, attempt {attempt}) was begun on {node} while it ran there", pair[0].key));
            } else {
                after += 1;
            }
        }
    }
    if after as f64 > FORGOTTEN * evidence.runs.len() as f64 {
        findings.broken += after;
        findings
            .say(|| format!("broken: {after} of {} runs were begun again on the node that had ended them", evidence.runs.len()));
    }
}

/// Calls that came to more than one job.
fn calls(evidence: &Evidence, findings: &mut Findings) {
    let mut ids: BTreeMap<&str, Vec<JobId>> = BTreeMap::new();
    for run in &evidence.runs {
        let of = ids.entry(&run.key).or_default();
        if !of.contains(&run.id) {
            of.push(run.id);
        }
    }
    for (key, ids) in ids.into_iter().filter(|(_, ids)| ids.len() > 1) {
        let extra = ids.len() as u64 - 1;
        findings.doubled += extra;
        let asked = evidence.asked.get(key);
        let again = asked.is_some_and(|asked| asked.sent.len() > 1 && !asked.once);
        let verdict = if again { "doubled" } else { "duplicated" };
        findings.say(|| format!("{verdict}: {key} was enqueued as {ids:?}"));
        if !again {
            findings.doubled_beyond += extra;
            findings.duplicated += extra;
        }
    }
}

/// What the excuses rest on.
struct Judge<'a> {
    evidence: &'a Evidence,
    /// Who settled it, and when; a move settles nothing.
    records: BTreeMap<(JobId, u32), Vec<(RunId, u64)>>,
    /// When the last job of a batch ended in a process.
    last_end: BTreeMap<(BatchId, &'a str, u32), u64>,
}

impl<'a> Judge<'a> {
    fn new(evidence: &'a Evidence) -> Self {
        let mut records: BTreeMap<(JobId, u32), Vec<(RunId, u64)>> = BTreeMap::new();
        for settled in evidence.settled.iter().filter(|settled| settled.state != State::Moved) {
            let of = records.entry((settled.id, settled.attempt)).or_default();
            if !of.iter().any(|(run, _)| *run == settled.run) {
                of.push((settled.run, settled.at));
            }
        }
        records.values_mut().for_each(|of| of.sort_by_key(|(_, at)| *at));
        let mut last_end = BTreeMap::new();
        for run in &evidence.runs {
            let end = run.ended.map_or(u64::MAX, |(at, _)| at);
            let last = last_end.entry((run.id.batch, run.node.as_str(), run.process)).or_insert(end);
            *last = end.max(*last);
        }
        Self { evidence, records, last_end }
    }

    /// Whether `run` may not have come to its settling before `again` began, through no fault of the factory's: its own
    /// node was disturbed, or that of `again`, which may have taken the batch back before the node of `run` had anything
    /// on record.
    fn cut_off(&self, run: &Run, again: &Run) -> bool {
        let last = self.last_end.get(&(run.id.batch, run.node.as_str(), run.process)).copied();
        let settling = last.unwrap_or(u64::MAX).saturating_add(SETTLING).min(again.begun);
        let reaches = |disturbance: &&Disturbance| disturbance.reaches(&run.node) || disturbance.reaches(&again.node);
        let disturbances = self.evidence.disturbances.iter().filter(reaches);
        let mut disturbances = disturbances.filter(|disturbance| disturbance.until + SETTLING >= run.begun);
        disturbances.any(|disturbance| disturbance.from <= settling)
    }

    /// Whether `again` may have begun although `run` had begun, or was settled, at `since`: its node was disturbed, and
    /// had no time to be fenced afterwards; or it took the batch over just then, from a node that was.
    fn zombie(&self, run: &Run, again: &Run, since: u64) -> bool {
        let unfenced = self.evidence.longest_job + UNFENCED;
        // One that was over long before has nothing to do with it.
        let recent = |d: &&Disturbance| d.from <= again.begun && d.until.saturating_add(unfenced) >= since;
        self.evidence.disturbances.iter().filter(recent).any(|disturbance| {
            let own = disturbance.reaches(&again.node) && again.begun <= disturbance.until.max(since).saturating_add(unfenced);
            let taken_over = disturbance.reaches(&run.node) && again.begun <= since + unfenced;
            own || taken_over
        })
    }

    fn broker_disturbed_before(&self, at: u64) -> bool {
        self.evidence.disturbances.iter().any(|disturbance| disturbance.whom == Whom::Broker && disturbance.from <= at)
    }
}
