//! Hand-made journals, and what must be found in them.
#![allow(clippy::unwrap_used, clippy::panic)]

use wf_schema::{BatchId, JobId, RunId, State};

use super::{Findings, check};
use crate::faults::evidence::{Asked, Disturbance, Evidence, Run, Settled, Whom};
use crate::faults::journal::Told;

/// A round that is told in short: keys are letters, and each is a job of its own unless said otherwise.
struct Story(Evidence);

fn story() -> Story {
    Story(Evidence { lease: 3_000, margin: 4_000, end: 60_000, longest_job: 100, ..Evidence::default() })
}

fn id(key: &str) -> JobId {
    JobId { batch: BatchId::from(u128::from(key.as_bytes()[0])), index: 0 }
}

impl Story {
    fn told(mut self, key: &str, at: u64, told: Told) -> Self {
        let asked = self.0.asked.entry(key.to_owned()).or_default();
        asked.sent.push(at);
        asked.told.push((at + 1, told));
        self
    }

    fn accepted(self, key: &str, at: u64) -> Self {
        self.told(key, at, Told::Accepted { spool: false })
    }

    fn ran(mut self, key: &str, node: &str, begun: u64, ended: Option<u64>) -> Self {
        let (key, node) = (key.to_owned(), node.to_owned());
        let ended = ended.map(|at| (at, true));
        self.0.runs.push(Run { id: id(&key), key, attempt: 1, node, process: 1, begun, ended });
        self
    }

    fn settled(mut self, key: &str, run: u64, at: u64) -> Self {
        let run = RunId::new('j', run);
        self.0.settled.push(Settled { id: id(key), attempt: 1, run, state: State::Completed, at });
        self
    }

    fn disturbed(mut self, whom: Whom, from: u64, until: u64) -> Self {
        self.0.disturbances.push(Disturbance { what: "test".into(), whom, from, until });
        self
    }

    fn end(mut self, at: u64) -> Findings {
        self.0.end = at;
        check(&self.0)
    }
}

fn node(name: &str) -> Whom {
    Whom::Node(name.to_owned())
}

#[test]
fn a_quiet_round_has_no_findings() {
    let found = story().accepted("a", 10).ran("a", "x", 20, Some(30)).settled("a", 1, 35).end(1_000);
    assert!(!found.is_bad() && found.words.is_empty(), "{found:?}");
    assert_eq!((found.jobs, found.accepted, found.completed, found.dead), (1, 1, 1, 0));
}

#[test]
fn accepted_without_an_outcome_is_lost_and_without_a_trace_a_false_accept() {
    let found = story().accepted("a", 10).ran("a", "x", 20, None).accepted("b", 10).end(100);
    assert_eq!((found.lost, found.false_accepts, found.stuck), (2, 1, 0), "{found:?}");
    assert!(found.is_bad());
}

#[test]
fn a_dead_letter_is_an_outcome_and_what_waits_is_stuck_not_lost() {
    let mut story = story().accepted("a!", 10).accepted("b", 10);
    story.0.dead.insert("a!".into(), 50);
    story.0.waiting.insert("b".into());
    let found = story.end(100);
    assert_eq!((found.lost, found.dead, found.stuck), (0, 1, 1), "{found:?}");
}

#[test]
fn a_dead_letter_of_a_job_that_would_have_succeeded_is_a_broken_promise() {
    let mut story = story().accepted("a", 10);
    story.0.dead.insert("a".into(), 50);
    let found = story.end(100);
    assert_eq!((found.condemned, found.lost, found.is_bad()), (1, 0, true), "{found:?}");
    let mut story = self::story().accepted("a", 10).ran("a", "x", 20, Some(30));
    story.0.dead.insert("a".into(), 50);
    let found = story.end(100);
    assert_eq!((found.condemned, found.buried_done, found.completed, found.is_bad()), (0, 1, 1, false), "{found:?}");
}

#[test]
fn refused_and_run_is_a_false_error_but_not_if_nobody_could_tell() {
    let found = story()
        .told("a", 10, Told::Refused { why: "full".into() })
        .ran("a", "x", 20, Some(30))
        .told("b", 10, Told::Unknown { why: "timeout".into() })
        .ran("b", "x", 20, Some(30))
        .told("c", 10, Told::Refused { why: "full".into() })
        .end(100);
    assert_eq!((found.false_errors, found.unknown, found.lost), (1, 1, 0), "{found:?}");
}

#[test]
fn a_run_that_was_cut_off_may_be_repeated() {
    let cut = |whom: Whom| {
        let story = story().accepted("a", 10).ran("a", "x", 1_000, None).disturbed(whom, 1_050, 1_100);
        story.ran("a", "y", 4_100, Some(4_200)).end(5_000)
    };
    for whom in [node("x"), Whom::Broker, Whom::Executors] {
        let found = cut(whom.clone());
        assert_eq!((found.repeated, found.duplicated), (1, 0), "{whom:?}: {found:?}");
    }
    for whom in [node("z"), Whom::Producers] {
        assert_eq!(cut(whom).duplicated, 1);
    }
}

#[test]
fn a_run_that_was_settled_long_ago_may_not_be_repeated() {
    // The node is killed, but long after all of the batch was done.
    let story = story().accepted("a", 10).ran("a", "x", 1_000, Some(1_010)).disturbed(node("x"), 20_000, 20_100);
    let found = story.ran("a", "y", 24_000, Some(24_010)).end(25_000);
    assert_eq!((found.repeated, found.duplicated), (0, 1), "{found:?}");
}

#[test]
fn another_job_of_the_batch_that_still_ran_holds_the_settling_up() {
    let mut story = story().accepted("a", 10).ran("a", "x", 1_000, Some(1_010)).disturbed(node("x"), 20_000, 20_100);
    let neighbour = JobId { index: 1, ..id("a") };
    let (key, node) = ("a-neighbour".to_owned(), "x".to_owned());
    story.0.runs.push(Run { key, id: neighbour, attempt: 1, node, process: 1, begun: 1_000, ended: None });
    let found = story.ran("a", "y", 24_000, Some(24_010)).end(25_000);
    assert_eq!((found.repeated, found.duplicated), (1, 0), "{found:?}");
}

#[test]
fn a_zombie_may_begin_until_it_can_be_fenced_and_no_longer() {
    let zombie = |begun: u64| {
        let story = story().accepted("a", 10).ran("a", "y", 5_000, Some(5_010)).settled("a", 1, 5_020);
        story.disturbed(node("x"), 1_000, 8_000).ran("a", "x", begun, Some(begun + 10)).end(begun + 20)
    };
    assert_eq!((zombie(8_500).repeated, zombie(8_500).duplicated), (1, 0));
    assert_eq!((zombie(14_000).repeated, zombie(14_000).duplicated), (0, 1));
}

#[test]
fn a_settled_job_that_runs_again_somewhere_else_is_duplicated() {
    let story = story().accepted("a", 10).ran("a", "x", 1_000, Some(1_010)).settled("a", 1, 1_020);
    let found = story.disturbed(node("x"), 1_030, 1_100).ran("a", "y", 9_000, Some(9_010)).end(10_000);
    assert_eq!((found.repeated, found.duplicated), (0, 1), "{found:?}");
}

#[test]
fn a_batch_stored_twice_is_doubled_and_excused_by_a_broker_that_was_killed() {
    let twice = |whom: Whom| {
        let story = story().accepted("a", 10).ran("a", "x", 100, Some(110)).settled("a", 1, 120);
        story.disturbed(whom, 130, 500).ran("a", "y", 600, Some(610)).settled("a", 2, 620).end(1_000)
    };
    let excused = twice(Whom::Broker);
    assert_eq!((excused.doubled, excused.doubled_beyond, excused.duplicated, excused.repeated), (1, 0, 0, 0), "{excused:?}");
    let found = twice(Whom::Producers);
    assert_eq!((found.doubled, found.doubled_beyond, found.duplicated), (1, 1, 1), "{found:?}");
}

#[test]
fn a_call_that_came_to_two_jobs_is_excused_only_if_it_was_made_twice_without_a_key() {
    let twice = |calls: usize, once: bool| {
        let mut story = story().ran("a", "x", 100, Some(110)).ran("b", "x", 200, Some(210));
        // Two ids for one key.
        story.0.runs[1].key = "a".into();
        let told = vec![(50, Told::Accepted { spool: false })];
        story.0.asked.insert("a".into(), Asked { once, sent: vec![10; calls], told });
        story.end(1_000)
    };
    assert_eq!((twice(2, false).doubled, twice(2, false).duplicated), (1, 0));
    assert_eq!((twice(2, true).doubled, twice(2, true).duplicated), (1, 1));
    assert_eq!(twice(1, false).duplicated, 1);
}

#[test]
fn standing_still_longer_than_a_lease_is_found_unless_a_disturbance_or_a_long_job_explains_it() {
    let still = |from: u64, until: u64| {
        let story = story().accepted("a", 10).ran("a", "x", 20, Some(30)).accepted("b", 25);
        story.disturbed(Whom::Broker, from, until).ran("b", "x", 20_000, Some(20_010)).end(20_020)
    };
    assert_eq!(still(100, 1_000).stuck, 1);
    assert_eq!(still(100, 19_000).stuck, 0);
    let long = story().accepted("a", 10).ran("a", "x", 20, Some(20_000)).end(20_010);
    assert_eq!(long.stuck, 0, "{long:?}");
}

#[test]
fn recovery_lasts_until_all_that_was_accepted_has_its_outcome() {
    let story = story().accepted("a", 10).disturbed(Whom::Broker, 100, 1_000).ran("a", "x", 3_000, Some(3_500));
    assert_eq!(story.accepted("b", 2_000).ran("b", "x", 6_000, Some(6_010)).end(6_100).recovery_ms, 2_500);
}

#[test]
fn jobs_out_of_a_spool_may_change_places_with_neighbours_only() {
    let spooled = |second: u64| {
        let spool = || Told::Accepted { spool: true };
        let story = story().told("a", 1_000, spool()).told("b", second, spool());
        story.ran("b", "x", 20_000, Some(20_010)).ran("a", "x", 24_000, Some(24_010)).end(25_000)
    };
    assert_eq!(spooled(2_000).reordered, 0);
    assert_eq!(spooled(9_000).reordered, 1);
}
