//! The consumers of this node's lanes.

use wf_nats::{CheckupError, ConsumerFacts, LaneFacts};

use super::super::{Check, Finding, Verdict};
use super::difference::told;
use super::untold;

/// Fuller than this, a consumer is about to hold somebody up.
const HIGH: f64 = 0.9;

/// Lanes that are named in one row, at most.
const NAMED: usize = 6;

/// The consumers. Those that are as they should be share a row.
pub(in crate::doctor) fn consumers(lanes: &[LaneFacts]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (mut fine, mut missing, mut untold_) = (0, Vec::new(), None);
    for facts in lanes {
        match &facts.consumer {
            Ok(consumer) => {
                let row = about(consumer);
                fine += usize::from(row.is_none());
                findings.extend(row.map(|row| row.of(&format!("{} in {}", facts.lane, facts.stream))));
            }
            Err(CheckupError::Missing(_)) => missing.push(facts.lane.to_string()),
            Err(error) => untold_ = untold_.or(Some(error)),
        }
    }
    if fine > 0 {
        findings.insert(0, Finding::ok(Check::Consumers, format!("{fine} of this node's queues are as they should be")));
    }
    missing.dedup();
    if !missing.is_empty() {
        let more = missing.len().saturating_sub(NAMED);
        missing.truncate(NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let found = format!("no executor has served {}{more} yet: the first one makes the consumers", missing.join(", "));
        findings.push(Finding::note(Check::Consumers, found));
    }
    if let Some(error) = untold_ {
        findings.push(untold(Check::Consumers, "consumers", error));
    }
    findings
}

/// What there is to say about a consumer, if anything.
fn about(consumer: &ConsumerFacts) -> Option<Finding> {
    let mut said: Vec<(Verdict, String, &'static str)> = Vec::new();
    for difference in &consumer.differences {
        let (verdict, consequence) = match difference.setting.as_str() {
            "ack_policy" | "deliver_policy" => (Verdict::Problem, "jobs are lost when an executor fails, or never delivered"),
            "max_deliver" => (Verdict::Problem, "a batch that was delivered so often is never delivered again"),
            "ack_wait" => (Verdict::Warning, "its lease is not the factory's: batches may run twice"),
            "max_ack_pending" => (Verdict::Warning, "fewer or more may be under way than the factory says"),
            _ => (Verdict::Note, "it is not as the factory makes it"),
        };
        let advice = match difference.setting.as_str() {
            "ack_wait" | "max_ack_pending" => "`wf broker setup --update` puts it right",
            _ => "remove it when no executor runs (`nats consumer rm`); the next one makes it anew, and its messages stay",
        };
        said.push((verdict, format!("{}: {consequence}", told(difference)), advice));
    }
    let share = |used: u64, most: u64| used as f64 / most.max(1) as f64;
    if share(consumer.pulls, consumer.most_pulls) >= HIGH {
        let found = format!("{} pulls of {} wait; more executors are turned away", consumer.pulls, consumer.most_pulls);
        said.push((Verdict::Warning, found, "raise factory.lane_pulls and run `wf broker setup --update`"));
    }
    if share(consumer.in_flight, consumer.most_in_flight) >= HIGH {
        let found = format!("{} batches of {} are under way; no more are delivered", consumer.in_flight, consumer.most_in_flight);
        said.push((Verdict::Warning, found, "raise factory.lane_in_flight and run `wf broker setup --update`"));
    }
    if consumer.paused {
        said.push((Verdict::Note, format!("held; {} batches wait", consumer.pending), "resume the queue when it may go on"));
    } else if consumer.pending > 0 && consumer.pulls == 0 && consumer.in_flight == 0 {
        let found = format!("{} batches wait and nobody asks for them", consumer.pending);
        said.push((Verdict::Warning, found, "start a `wf executor` for this queue (executor.queues)"));
    }
    let verdict = said.iter().map(|(verdict, ..)| *verdict).max()?;
    let found = said.iter().map(|(_, found, _)| found.as_str()).collect::<Vec<_>>().join("; ");
    let mut advice: Vec<&str> = said.iter().map(|(.., advice)| *advice).collect();
    advice.dedup();
    Some(Finding::new(Check::Consumers, verdict, found).advice(advice.join("; ")))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use wf_nats::Difference;

    fn fine() -> ConsumerFacts {
        ConsumerFacts { most_in_flight: 100, most_pulls: 100, ..ConsumerFacts::default() }
    }

    fn with(change: impl FnOnce(&mut ConsumerFacts)) -> ConsumerFacts {
        let mut facts = fine();
        change(&mut facts);
        facts
    }

    fn differing(setting: &str, stands: &str, wanted: &str) -> ConsumerFacts {
        let difference = Difference { of: "x".into(), setting: setting.into(), stands: stands.into(), wanted: wanted.into() };
        with(|f| f.differences.push(difference))
    }

    #[test]
    fn what_holds_a_lane_up_is_told() {
        assert_eq!(about(&fine()), None);
        for (facts, verdict, text) in [
            (with(|f| f.pending = 5), Verdict::Warning, "5 batches wait and nobody asks"),
            (with(|f| (f.pending, f.paused) = (5, true)), Verdict::Note, "held"),
            (with(|f| f.pulls = 95), Verdict::Warning, "95 pulls of 100"),
            (with(|f| f.in_flight = 100), Verdict::Warning, "no more are delivered"),
            (differing("ack_wait", "30000000000", "60000000000"), Verdict::Warning, "ack_wait is 30 s, not 1 min"),
            (differing("max_deliver", "3", "-1"), Verdict::Problem, "max_deliver is 3, not unlimited"),
            (differing("max_waiting", "512", "4096"), Verdict::Note, "max_waiting is 512"),
        ] {
            let finding = about(&facts).unwrap();
            assert!(finding.verdict == verdict && finding.found.contains(text) && finding.advice.is_some(), "{finding:?}");
        }
        // Somebody asks for it, or works on it.
        assert_eq!(about(&with(|f| (f.pending, f.pulls) = (5, 1))), None);
        assert_eq!(about(&with(|f| (f.pending, f.in_flight) = (5, 1))), None);
    }

    #[test]
    fn lanes_without_consumers_share_a_row() {
        let lane = |name: &str, consumer| LaneFacts { lane: name.parse().unwrap(), stream: "WF_JOBS".into(), consumer };
        let missing = || Err(CheckupError::Missing("x".into()));
        let found = consumers(&[
            lane("a.high", missing()),
            lane("a.high", missing()),
            lane("b.low", missing()),
            lane("c.low", Ok(fine())),
        ]);
        let [first, second] = &found[..] else { panic!("{found:?}") };
        assert_eq!((first.verdict, second.verdict), (Verdict::Ok, Verdict::Note));
        assert!(second.found.contains("a.high, b.low yet"), "{second:?}");
    }
}
