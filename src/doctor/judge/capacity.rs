//! How full the streams and the lanes are.

use std::time::Duration;

use wf_broker::DeadStats;
use wf_nats::{LayoutFacts, ServerVars, StreamFacts, StreamRole};

use super::super::finding::shown;
use super::super::{Check, Finding, Verdict, units};

/// Fuller than this, somebody should look.
const HIGH: f64 = 0.8;

/// Fuller than this, it is about to refuse.
const FULL: f64 = 0.95;

/// Letters that go by age go a little early or late by this machine's clock.
const AGE_MARGIN: Duration = Duration::from_secs(60);

/// How full the streams are; `lane_messages` is when a lane is.
pub(in crate::doctor) fn capacity(layout: &LayoutFacts, lane_messages: u64) -> Vec<Finding> {
    let there = layout.streams.iter().filter_map(|(role, name, facts)| Some((*role, name.as_str(), facts.as_ref().ok()?)));
    let there: Vec<(StreamRole, &str, &StreamFacts)> = there.collect();
    let mut findings: Vec<Finding> = there.iter().filter_map(|(role, name, facts)| high(*role, name, facts)).collect();
    findings
        .extend(there.iter().filter(|(role, ..)| *role == StreamRole::Dead).filter_map(|(_, name, facts)| dropped(name, facts)));
    let lane = there.iter().filter(|(role, ..)| *role == StreamRole::Jobs).find_map(|(_, _, facts)| facts.fullest.as_ref());
    if let Some((subject, messages)) = lane {
        findings.extend(lane_high(subject, *messages, lane_messages));
    }
    if findings.is_empty() && !there.is_empty() {
        let told = there.iter().map(|(_, name, facts)| match facts.max_bytes {
            Some(most) => format!("{name} {} of {}", units::bytes(facts.bytes), units::bytes(most)),
            None => format!("{name} {}", units::bytes(facts.bytes)),
        });
        findings.push(Finding::ok(Check::Capacity, told.collect::<Vec<_>>().join(", ")));
    }
    findings
}

fn high(role: StreamRole, name: &str, facts: &StreamFacts) -> Option<Finding> {
    let most = facts.max_bytes.filter(|most| *most > 0)?;
    let share = facts.bytes as f64 / most as f64;
    if share < HIGH {
        return None;
    }
    let found = format!("{} of {}, {:.0} %", units::bytes(facts.bytes), units::bytes(most), 100.0 * share);
    let refuses = matches!(role, StreamRole::Jobs | StreamRole::State);
    let verdict = if refuses && share >= FULL { Verdict::Problem } else { Verdict::Warning };
    let finding = match role {
        StreamRole::Jobs => Finding::new(Check::Capacity, verdict, format!("{found}; when it is full, jobs are refused"))
            .advice("add executors, or raise factory.jobs_bytes and run `wf broker setup --update`; never purge first"),
        StreamRole::State => Finding::new(Check::Capacity, verdict, format!("{found}; when it is full, claims are refused"))
            .advice("raise factory.state_bytes and run `wf broker setup --update`"),
        StreamRole::Runs => Finding::problem(Check::Capacity, format!("{found}; when it is full, nothing can be settled"))
            .advice("it is to have no limit: run `wf broker setup --update`"),
        // Made to be full: the oldest go.
        StreamRole::Results | StreamRole::Later => {
            Finding::note(Check::Capacity, format!("{found}; the oldest outcomes go before factory.results_age"))
                .advice("raise factory.results_bytes if they are missed")
        }
        StreamRole::Dead if dropped(name, facts).is_some() => return None,
        StreamRole::Dead => {
            Finding::new(Check::Capacity, verdict, format!("{found}; when it is full, the oldest dead letters make room"))
                .advice("requeue or export them, or raise factory.dead_bytes and run `wf broker setup --update`")
        }
    };
    Some(finding.of(name))
}

/// Dead letters that made room for newer ones. A server counts them nowhere; what tells is that letters are gone, that
/// the oldest which is left is not old enough to go, and that there is not much room.
fn dropped(name: &str, facts: &StreamFacts) -> Option<Finding> {
    let most = facts.max_bytes.filter(|most| *most > 0)?;
    let (oldest, keep) = (facts.oldest?, facts.max_age?);
    // With letters of any size, a stream that has just made room is rarely less than half full.
    let made_room = facts.gone > 0 && oldest + AGE_MARGIN < keep && facts.bytes >= most / 2;
    made_room.then(|| {
        let found = format!(
            "{} of {}; {} letters are gone, and the oldest of {} that are left is {} old, not {}: the oldest make room",
            units::bytes(facts.bytes),
            units::bytes(most),
            facts.gone,
            facts.messages,
            units::age(oldest),
            units::age(keep),
        );
        let advice = "see what fails; requeue or export letters, or raise factory.dead_bytes and run `wf broker setup --update`";
        Finding::warning(Check::Capacity, found).of(name).advice(advice)
    })
}

/// How full the dead letters of the broker inside the process are, and whether any made room.
pub(in crate::doctor) fn dead(stats: &DeadStats) -> Finding {
    let DeadStats { letters, bytes, most_bytes, dropped, .. } = *stats;
    let found = format!("{letters} dead letters take {} of {}", units::bytes(bytes), units::bytes(most_bytes));
    let finding = match (dropped, bytes as f64 / most_bytes.max(1) as f64) {
        (0, share) if share < HIGH => Finding::ok(Check::Capacity, found),
        (0, _) => Finding::warning(Check::Capacity, format!("{found}; when it is full, the oldest make room")),
        (dropped, share) => {
            let found = format!("{found}; {dropped} were dropped so far to make room for newer ones");
            if share < HIGH { Finding::note(Check::Capacity, found) } else { Finding::warning(Check::Capacity, found) }
        }
    };
    let advice = "see what fails; requeue or export letters, or raise factory.dead_bytes";
    if finding.verdict == Verdict::Ok { finding } else { finding.advice(advice) }
}

/// A server whose streams take nearly all that they may.
pub(in crate::doctor) fn server(vars: &ServerVars) -> Option<Finding> {
    let most = vars.max_storage.filter(|most| *most > 0)?;
    let share = vars.used_storage as f64 / most as f64;
    let verdict = match share {
        share if share >= FULL => Verdict::Problem,
        share if share >= HIGH => Verdict::Warning,
        _ => return None,
    };
    let found =
        format!("streams take {} of {} on its disk, {:.0} %", units::bytes(vars.used_storage), units::bytes(most), 100.0 * share);
    let advice = "raise `max_file_store` in the jetstream block of its configuration; make room on its disk first";
    Some(Finding::new(Check::Capacity, verdict, found).of(&vars.server).advice(advice))
}

fn lane_high(subject: &str, messages: u64, most: u64) -> Option<Finding> {
    let share = messages as f64 / most.max(1) as f64;
    let verdict = match share {
        share if share >= FULL => Verdict::Problem,
        share if share >= HIGH => Verdict::Warning,
        _ => return None,
    };
    let found = format!("{messages} batches of {most} wait; when it is full, the jobs of this lane are refused");
    let advice = "see whether executors serve this queue; factory.lane_messages is its limit";
    Some(Finding::new(Check::Capacity, verdict, found).of(&shown(subject)).advice(advice))
}

#[cfg(test)]
mod tests {
    use super::*;
    use wf_nats::FactorySettings;

    #[test]
    fn a_server_may_be_full_before_the_factory() {
        let vars = |used_storage, max_storage| ServerVars { used_storage, max_storage, ..ServerVars::default() };
        let verdict = |used, most| server(&vars(used, most)).map(|finding| finding.verdict);
        assert_eq!([verdict(1, Some(100)), verdict(1, None), verdict(1, Some(0))], [None; 3]);
        assert_eq!((verdict(85, Some(100)), verdict(99, Some(100))), (Some(Verdict::Warning), Some(Verdict::Problem)));
    }

    #[test]
    fn dead_letters_that_made_room_are_told_from_those_that_grew_old() {
        let day = Duration::from_secs(86_400);
        let facts = |bytes, gone, days| StreamFacts {
            bytes,
            max_bytes: Some(100),
            gone,
            messages: 7,
            oldest: Some(day * days),
            max_age: Some(14 * day),
            ..StreamFacts::default()
        };
        let finding = dropped("WF_DEAD", &facts(99, 12, 2)).map(|finding| (finding.verdict, finding.found));
        let told =
            "99 B of 100 B; 12 letters are gone, and the oldest of 7 that are left is 2 d old, not 14 d: the oldest make room";
        assert_eq!(finding, Some((Verdict::Warning, told.to_owned())));
        for facts in [facts(99, 0, 2), facts(99, 12, 14), facts(10, 12, 2)] {
            assert_eq!(dropped("WF_DEAD", &facts), None, "{facts:?}");
        }
        let stats = |bytes, dropped| DeadStats { letters: 3, bytes, most_bytes: 100, oldest: None, dropped };
        let verdict = |bytes, dropped| dead(&stats(bytes, dropped)).verdict;
        assert_eq!(
            [verdict(10, 0), verdict(10, 4), verdict(90, 0), verdict(90, 4)],
            [Verdict::Ok, Verdict::Note, Verdict::Warning, Verdict::Warning]
        );
    }

    #[test]
    fn what_is_nearly_full_is_told_by_what_happens_then() {
        let table = [
            (StreamRole::Jobs, 10, Some(100), 0, &[(Verdict::Ok, "10 B of 100 B")][..]),
            (StreamRole::Jobs, 10, None, 0, &[(Verdict::Ok, "10 B")]),
            (StreamRole::Jobs, 81, Some(100), 0, &[(Verdict::Warning, "81 %")]),
            (StreamRole::Jobs, 97, Some(100), 0, &[(Verdict::Problem, "jobs are refused")]),
            (StreamRole::State, 97, Some(100), 0, &[(Verdict::Problem, "claims are refused")]),
            (StreamRole::Results, 100, Some(100), 0, &[(Verdict::Note, "oldest outcomes")]),
            (StreamRole::Dead, 100, Some(100), 0, &[(Verdict::Warning, "the oldest dead letters make room")]),
            (StreamRole::Jobs, 1, Some(100), 850, &[(Verdict::Warning, "850 batches of 1000")]),
            (StreamRole::Jobs, 1, Some(100), 1_000, &[(Verdict::Problem, "this lane are refused")]),
            (StreamRole::Jobs, 1, Some(0), 1, &[(Verdict::Ok, "")]),
        ];
        for (role, bytes, max_bytes, waiting, expected) in table {
            let facts =
                StreamFacts { bytes, max_bytes, fullest: Some(("wf.jobs.mail".into(), waiting)), ..StreamFacts::default() };
            let streams = vec![(role, "WF".to_owned(), Ok(facts))];
            let layout = LayoutFacts { settings: Ok(FactorySettings::default()), differences: Vec::new(), streams };
            let found = capacity(&layout, 1_000);
            assert_eq!(found.len(), expected.len(), "{found:?}");
            for (finding, (verdict, text)) in found.iter().zip(expected) {
                assert!(finding.verdict == *verdict && finding.found.contains(text), "{finding:?}");
            }
        }
    }
}
