//! Whether things went on, and in order.

use std::collections::BTreeMap;

use super::Findings;
use crate::faults::evidence::Evidence;

/// How far jobs out of a spool may change places, in milliseconds, at both ends.
const ROUGHLY: u64 = 3_000;

pub(super) fn check(evidence: &Evidence, findings: &mut Findings) {
    let outcomes = evidence.outcomes();
    stand_stills(evidence, &outcomes, findings);
    recovery(evidence, &outcomes, findings);
    order(evidence, findings);
}

/// Times of more than a lease without a disturbance in which nothing began or ended although a job waited.
fn stand_stills(evidence: &Evidence, outcomes: &BTreeMap<&str, u64>, findings: &mut Findings) {
    let ends = evidence.runs.iter().filter_map(|run| run.ended.map(|(at, _)| at));
    let mut moments: Vec<u64> = evidence.runs.iter().map(|run| run.begun).chain(ends).chain([evidence.end]).collect();
    moments.extend(evidence.disturbances.iter().map(|disturbance| disturbance.until));
    moments.sort_unstable();
    for pair in moments.windows(2).filter(|pair| pair[1] - pair[0] > evidence.lease + evidence.margin) {
        let [from, until] = [pair[0], pair[1]];
        let disturbed = evidence.disturbances.iter().any(|disturbance| disturbance.from < until && disturbance.until > from);
        let runs = |key: &str| {
            // One that ended in between would be a moment; one without an end was killed.
            evidence.runs.iter().any(|run| run.key == key && run.begun <= from && run.ended.is_some_and(|(at, _)| at >= until))
        };
        let waits = |key: &str, accepted: u64| accepted <= from && outcomes.get(key).is_none_or(|at| *at >= until) && !runs(key);
        let waiting = evidence.asked.iter().find(|(key, asked)| asked.accepted().is_some_and(|(at, _)| waits(key, at)));
        if let (false, Some((key, _))) = (disturbed, waiting) {
            findings.stuck += 1;
            findings.say(|| format!("stuck: nothing happened from {from} to {until} while {key} waited"));
        }
    }
}

/// How long it took, after each disturbance, until all that was accepted by its end had an outcome.
fn recovery(evidence: &Evidence, outcomes: &BTreeMap<&str, u64>, findings: &mut Findings) {
    for disturbance in &evidence.disturbances {
        let accepted = evidence.asked.iter().filter(|(_, asked)| asked.accepted().is_some_and(|(at, _)| at <= disturbance.until));
        let last = accepted.filter_map(|(key, _)| outcomes.get(key.as_str())).max().copied().unwrap_or_default();
        findings.recovery_ms = findings.recovery_ms.max(last.saturating_sub(disturbance.until));
    }
}

/// Jobs out of a spool that one began before which was taken much later.
fn order(evidence: &Evidence, findings: &mut Findings) {
    let mut begun: BTreeMap<&str, u64> = BTreeMap::new();
    for run in &evidence.runs {
        begun.entry(&run.key).and_modify(|first| *first = run.begun.min(*first)).or_insert(run.begun);
    }
    let spooled = evidence.asked.iter().filter_map(|(key, asked)| match asked.accepted() {
        Some((at, true)) => Some((at, *begun.get(key.as_str())?, key)),
        _ => None,
    });
    let mut spooled: Vec<(u64, u64, &String)> = spooled.collect();
    spooled.sort_unstable();
    // From the youngest on: the earliest beginning among those taken much later.
    let mut younger = spooled.iter().rev().peekable();
    let mut earliest = u64::MAX;
    for (taken, began, key) in spooled.iter().rev() {
        while let Some((_, begun, _)) = younger.next_if(|(at, _, _)| *at > taken + ROUGHLY) {
            earliest = earliest.min(*begun);
        }
        if earliest.saturating_add(ROUGHLY) < *began {
            findings.reordered += 1;
            findings
                .say(|| format!("reordered: {key}, spooled at {taken}, began at {began}, after one spooled later at {earliest}"));
        }
    }
}
