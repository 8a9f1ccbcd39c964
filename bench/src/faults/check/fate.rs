//! Whether every job came to what its producer was told.

use std::collections::BTreeSet;

use wf_schema::JobId;

use super::Findings;
use crate::faults::evidence::Evidence;
use crate::faults::journal::Told;
use crate::faults::order::DOOMED;

pub(super) fn check(evidence: &Evidence, findings: &mut Findings) {
    let outcomes = evidence.outcomes();
    let begun: BTreeSet<&str> = evidence.runs.iter().map(|run| run.key.as_str()).collect();
    let settled: BTreeSet<JobId> = evidence.settled.iter().map(|settled| settled.id).collect();
    let on_record: BTreeSet<&str> =
        evidence.runs.iter().filter(|run| settled.contains(&run.id)).map(|run| run.key.as_str()).collect();
    findings.jobs = evidence.asked.len() as u64;
    findings.dead = evidence.dead.len() as u64;
    let completed = evidence.runs.iter().filter(|run| run.ended.is_some_and(|(_, well)| well));
    let completed: BTreeSet<&str> = completed.map(|run| run.key.as_str()).collect();
    findings.completed = completed.len() as u64;
    for key in evidence.dead.keys().filter(|key| !key.ends_with(DOOMED)) {
        if completed.contains(key.as_str()) {
            findings.buried_done += 1;
            findings.say(|| format!("buried: {key} was completed, and is a dead letter too"));
        } else {
            findings.condemned += 1;
            findings.say(|| format!("condemned: {key} would have succeeded, and is a dead letter"));
        }
    }
    for (key, asked) in &evidence.asked {
        let key = key.as_str();
        if let Some((at, spool)) = asked.accepted() {
            findings.accepted += 1;
            findings.spooled += u64::from(spool);
            if outcomes.contains_key(key) {
                continue;
            }
            let place = if spool { "the spool" } else { "the broker" };
            if evidence.waiting.contains(key) {
                findings.stuck += 1;
                findings.say(|| format!("stuck: {key}, accepted by {place} at {at}, still waits"));
                continue;
            }
            findings.lost += 1;
            let traceless = !begun.contains(key) && !on_record.contains(key);
            findings.false_accepts += u64::from(traceless);
            let trace = if traceless { "and there is no trace of it" } else { "was begun and has no outcome" };
            findings.say(|| format!("lost: {key}, accepted by {place} at {at}, {trace}"));
        } else if evidence.waiting.contains(key) && !outcomes.contains_key(key) {
            // Nobody was promised anything, but it is there, and should have run by now.
            findings.unknown += 1;
            findings.stuck += 1;
            findings.say(|| format!("stuck: {key}, not known to be accepted ({:?}), waits at the broker", asked.told));
        } else if asked.refused() {
            if begun.contains(key) || outcomes.contains_key(key) {
                findings.false_errors += 1;
                let why = asked.told.iter().find_map(|(_, told)| match told {
                    Told::Refused { why } => Some(why.as_str()),
                    _ => None,
                });
                findings.say(|| format!("false error: {key} was refused ({}) and yet run", why.unwrap_or_default()));
            }
        } else {
            findings.unknown += 1;
        }
    }
}
