//! What waits where nobody asks for it.

use std::time::Duration;

use wf_broker::Unserved;
use wf_nats::CheckupError;
use wf_schema::{Millis, Queue};

use super::super::finding::shown;
use super::super::{Check, Finding, units};
use super::untold;

/// What waits for less may be about to be asked for.
const A_MINUTE: Duration = Duration::from_secs(60);

/// Lanes that are named in one row, at most.
const NAMED: usize = 6;

/// Lanes that no executor serves, and names that none can serve, at `now`.
pub(in crate::doctor) fn lanes(unserved: &Result<Vec<Unserved>, CheckupError>, now: Millis) -> Vec<Finding> {
    let unserved = match unserved {
        Ok(unserved) => unserved,
        Err(error) => return vec![untold(Check::Lanes, "lanes without executors", error)],
    };
    let (lanes, names): (Vec<&Unserved>, Vec<&Unserved>) = unserved.iter().partition(|unserved| unserved.lane.is_some());
    let waits_long = |unserved: &&Unserved| unserved.oldest.is_none_or(|oldest| age(oldest, now) >= A_MINUTE);
    let (long, short): (Vec<&Unserved>, Vec<&Unserved>) = lanes.into_iter().partition(waits_long);
    let mut findings = Vec::new();
    if !names.is_empty() {
        let found = format!("no executor can serve {}: these names are no lanes", listed(&names, now));
        findings.push(Finding::warning(Check::Lanes, found).advice(
            "executors make dead letters of them (`invalid_queue`) within some leases, if they may; publish to \
             wf.jobs.<queue>[.high|.low], the queue 1 to 64 of A-Z a-z 0-9 _ -",
        ));
    }
    if !long.is_empty() {
        let found = format!("nobody asks for what waits in {}", listed(&long, now));
        let advice = "start a `wf executor` with these queues (executor.queues), or correct the names where they are enqueued";
        findings.push(Finding::warning(Check::Lanes, found).advice(advice));
    }
    if !short.is_empty() {
        let found = format!("nobody asks yet for what waits in {}", listed(&short, now));
        findings.push(Finding::note(Check::Lanes, found).advice("ask again in a minute"));
    }
    if findings.is_empty() {
        findings.push(Finding::ok(Check::Lanes, "every lane in which jobs wait is served, or held on purpose"));
    }
    findings
}

/// Lanes of a broker inside a process, which only that process can serve: those of no queue in `queues`.
pub(in crate::doctor) fn lanes_inside(unserved: &[Unserved], queues: &[Queue], now: Millis) -> Vec<Finding> {
    let served = |unserved: &&Unserved| unserved.lane.as_ref().is_some_and(|lane| queues.contains(&lane.queue));
    let others: Vec<&Unserved> = unserved.iter().filter(|unserved| !served(unserved)).collect();
    if others.is_empty() {
        return vec![Finding::ok(Check::Lanes, "every lane in which jobs wait is of a queue that is served here")];
    }
    let found = format!("executor.queues leaves out what waits in {}", listed(&others, now));
    let advice = "add these queues to executor.queues, or correct the names where they are enqueued";
    vec![Finding::warning(Check::Lanes, found).advice(advice)]
}

fn age(oldest: Millis, now: Millis) -> Duration {
    Duration::from_millis(now.saturating_sub(oldest))
}

fn listed(unserved: &[&Unserved], now: Millis) -> String {
    let told = unserved.iter().take(NAMED).map(|Unserved { name, messages, oldest, .. }| match oldest {
        Some(oldest) => format!("{} ({messages} batches, the oldest {} old)", shown(name), units::age(age(*oldest, now))),
        None => format!("{} ({messages} batches)", shown(name)),
    });
    let mut told: Vec<String> = told.collect();
    if unserved.len() > NAMED {
        told.push(format!("and {} more", unserved.len() - NAMED));
    }
    told.join(", ")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::super::Verdict;
    use super::*;

    const NOW: Millis = 10_000_000;

    fn unserved(name: &str, seconds: u64) -> Unserved {
        Unserved { name: name.into(), lane: name.parse().ok(), messages: 3, oldest: Some(NOW - seconds * 1_000) }
    }

    #[test]
    fn names_and_lanes_are_told_apart_and_given_a_minute() {
        let found = lanes(&Ok(vec![unserved("wf.jobs.mail:out", 1), unserved("mail.normal", 300), unserved("new.low", 5)]), NOW);
        let told: Vec<_> = found.iter().map(|finding| (finding.verdict, finding.found.as_str())).collect();
        assert_eq!(
            told,
            [
                (
                    Verdict::Warning,
                    "no executor can serve wf.jobs.mail:out (3 batches, the oldest 1 s old): these names are no lanes"
                ),
                (Verdict::Warning, "nobody asks for what waits in mail.normal (3 batches, the oldest 5 min old)"),
                (Verdict::Note, "nobody asks yet for what waits in new.low (3 batches, the oldest 5 s old)"),
            ]
        );
        assert!(found.iter().all(|finding| finding.advice.is_some()));
        assert_eq!(lanes(&Ok(Vec::new()), NOW)[0].verdict, Verdict::Ok);
        let denied = Err(CheckupError::Denied { right: "publish to x".into() });
        assert_eq!(lanes(&denied, NOW)[0].verdict, Verdict::Note);
    }

    #[test]
    fn inside_a_process_only_its_own_queues_are_served() {
        let waiting = [unserved("default.normal", 300), unserved("mail.low", 300)];
        let found = lanes_inside(&waiting, &["default".parse().unwrap()], NOW);
        assert!(
            found[0].verdict == Verdict::Warning && found[0].found.ends_with("in mail.low (3 batches, the oldest 5 min old)")
        );
        assert_eq!(lanes_inside(&waiting[..1], &["default".parse().unwrap()], NOW)[0].verdict, Verdict::Ok);
    }
}
