//! How many copies there are of what was accepted, and whether those who keep them are there.

use std::time::Duration;

use wf_nats::{LayoutFacts, Replica, StreamFacts, StreamRole};

use super::super::finding::shown;
use super::super::{Check, Finding, Verdict};

/// A server that was silent for so long has missed several of its beats.
const SILENT: Duration = Duration::from_secs(5);

/// The copies of each stream; streams of which the same is to be said share a row. `clustered` is whether the server
/// is one of several.
pub(in crate::doctor) fn replicas(layout: &LayoutFacts, clustered: bool) -> Vec<Finding> {
    let mut rows: Vec<(Finding, Vec<&str>)> = Vec::new();
    for (role, name, facts) in &layout.streams {
        let Ok(facts) = facts else { continue };
        let finding = match followers(facts) {
            Some(finding) => finding,
            // What is said of the jobs would be said of all.
            None if *role == StreamRole::Jobs => copies(facts, clustered),
            None => continue,
        };
        match rows.iter_mut().find(|(row, _)| *row == finding) {
            Some((_, names)) => names.push(name),
            None => rows.push((finding, vec![name])),
        }
    }
    rows.into_iter().map(|(finding, names)| finding.of(&names.join(", "))).collect()
}

/// What there is to say about who keeps the copies, if anything.
fn followers(facts: &StreamFacts) -> Option<Finding> {
    let away = |follower: &&Replica| follower.offline || follower.silent >= SILENT;
    let names = |followers: Vec<&Replica>| followers.iter().map(|follower| shown(&follower.name)).collect::<Vec<_>>().join(", ");
    let (gone, there): (Vec<&Replica>, Vec<&Replica>) = facts.followers.iter().partition(away);
    let late: Vec<&Replica> = there.into_iter().filter(|follower| !follower.current).collect();
    let back = "bring those servers back; nothing is lost while most of the copies are there";
    if facts.replicas > 1 && facts.leader.is_none() {
        let found = "no server leads it, for too few of those that keep it are there: nothing can be stored";
        return Some(Finding::problem(Check::Replicas, found).advice(back));
    }
    if !gone.is_empty() {
        let too_many = 2 * gone.len() as u64 >= facts.replicas;
        let verdict = if too_many { Verdict::Problem } else { Verdict::Warning };
        let found = format!("{} of {} copies cannot be reached: {}", gone.len(), facts.replicas, names(gone));
        return Some(Finding::new(Check::Replicas, verdict, found).advice(back));
    }
    (!late.is_empty()).then(|| Finding::note(Check::Replicas, format!("{} has not caught up", names(late))))
}

/// How many copies there are.
fn copies(facts: &StreamFacts, clustered: bool) -> Finding {
    if facts.replicas > 1 {
        return Finding::ok(Check::Replicas, format!("{} copies", facts.replicas));
    }
    let advice = if clustered {
        "set factory.replicas = 3 and run `wf broker setup --update`"
    } else {
        "back the disk up, or run three servers with factory.replicas = 3"
    };
    Finding::warning(Check::Replicas, "one copy: who loses that server's disk loses the jobs that wait").advice(advice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use wf_nats::FactorySettings;

    fn layout(facts: &StreamFacts) -> LayoutFacts {
        let streams = [(StreamRole::Jobs, "WF_JOBS"), (StreamRole::Later, "WF_LATER")];
        let streams = streams.map(|(role, name)| (role, name.to_owned(), Ok(facts.clone())));
        LayoutFacts { settings: Ok(FactorySettings::default()), differences: Vec::new(), streams: streams.into() }
    }

    fn follower(name: &str, silent: u64, current: bool) -> Replica {
        Replica { name: name.into(), offline: false, current, silent: Duration::from_secs(silent) }
    }

    #[test]
    fn copies_that_are_away_are_told_and_one_copy_is_a_risk() {
        let both = "WF_JOBS, WF_LATER";
        for (replicas_, leader, followers, verdict, of, text) in [
            (1, None, vec![], Verdict::Warning, "WF_JOBS", "one copy"),
            (1, Some("a"), vec![], Verdict::Warning, "WF_JOBS", "one copy"),
            (3, Some("a"), vec![follower("b", 0, true), follower("c", 1, true)], Verdict::Ok, "WF_JOBS", "3 copies"),
            (3, Some("a"), vec![follower("b", 0, true), follower("c", 1, false)], Verdict::Note, both, "c has not caught up"),
            (3, Some("a"), vec![follower("b", 0, true), follower("c", 6, true)], Verdict::Warning, both, "1 of 3 copies"),
            (3, Some("a"), vec![follower("b", 6, false), follower("c", 60, false)], Verdict::Problem, both, "reached: b, c"),
            (3, None, vec![follower("b", 0, false), follower("c", 0, false)], Verdict::Problem, both, "no server leads it"),
        ] {
            let facts =
                StreamFacts { replicas: replicas_, leader: leader.map(str::to_owned), followers, ..StreamFacts::default() };
            let found = replicas(&layout(&facts), true);
            assert_eq!((found.len(), found[0].verdict, found[0].of.as_deref()), (1, verdict, Some(of)), "{found:?}");
            assert!(found[0].found.contains(text), "{found:?}");
        }
    }
}
