//! The order of settling, tried out with a crash between any two of its steps.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod evidence;
mod obligations;
mod poison;
mod split;
mod world;
mod zombie;

use std::collections::BTreeMap;

use proptest::prelude::*;
use tokio::sync::Notify;
use wf_schema::{Batch, Limits, Remains};

use self::world::{Deed, Script, Splitting, World, quiet_panics, runtime};
use super::*;
use crate::model::{Fault, Session};

fn deeds() -> impl Strategy<Value = Deed> {
    prop_oneof![
        6 => Just(Deed::Complete),
        6 => Just(Deed::Fail),
        2 => Just(Deed::FailForGood),
        2 => Just(Deed::Panic),
        1 => Just(Deed::Kill),
    ]
}

fn scripts() -> impl Strategy<Value = Script> {
    (prop::collection::vec(deeds(), 1..4), prop_oneof![Just(0u64), 0u64..80], 1u32..4, any::<bool>(), any::<bool>())
        .prop_map(|(deeds, ms, max_attempts, store_result, no_pause)| Script { deeds, ms, max_attempts, store_result, no_pause })
}

fn faults() -> impl Strategy<Value = Fault> {
    prop_oneof![
        6 => Just(Fault::None),
        2 => Just(Fault::Lost),
        2 => Just(Fault::Unheard),
        2 => Just(Fault::CrashBefore),
        2 => Just(Fault::CrashAfter),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn every_job_ends_exactly_once_whatever_breaks(
        scripts in prop::collection::vec(scripts(), 1..12),
        lives in prop::collection::vec(prop::collection::vec(faults(), 0..8), 0..8),
        (after, keep, piece) in (0usize..6, 0usize..4, 1usize..5),
    ) {
        quiet_panics();
        runtime().block_on(async {
            let mut world = World::split(scripts, Splitting { after, keep, piece }).await;
            world.play(lives).await;
            world.check();
        });
    }
}

/// One script of each sort, so that a run has everything to settle: results, retries at once and later, a dead letter.
fn one_of_each() -> Vec<Script> {
    let script = |deed, ms, no_pause| Script { deeds: vec![deed], ms, max_attempts: 3, store_result: true, no_pause };
    vec![
        script(Deed::Complete, 0, false),
        script(Deed::Fail, 0, false),
        script(Deed::Fail, 5, true),
        script(Deed::FailForGood, 0, false),
        script(Deed::Panic, 50, false),
    ]
}

#[test]
fn a_crash_before_or_after_any_step_loses_nothing() {
    quiet_panics();
    for step in 0..40 {
        for fault in [Fault::CrashBefore, Fault::CrashAfter, Fault::Lost, Fault::Unheard] {
            runtime().block_on(async {
                let mut world = World::new(one_of_each()).await;
                let faults = std::iter::repeat_n(Fault::None, step).chain([fault.clone()]).collect();
                world.play(vec![faults]).await;
                world.check();
            });
        }
    }
}

#[test]
fn the_record_comes_first_and_the_ack_last() {
    quiet_panics();
    runtime().block_on(async {
        let world = World::new(one_of_each()).await;
        let session = Session::new(&world.store, []);
        world.store.lock().calls.clear();
        let delivery = session.take().unwrap();
        world.live(&session, delivery).await;
        let calls = std::mem::take(&mut world.store.lock().calls);
        assert_eq!(calls[0], "append");
        assert_eq!(calls.iter().filter(|call| **call == "ack").count(), 1);
        assert_eq!(calls.last(), Some(&"ack"));
        for published in ["publish", "publish_at", "bury"] {
            assert!(calls.contains(&published), "no {published} in {calls:?}");
        }
    });
}

#[test]
fn plain_completions_need_only_the_ack() {
    let script = Script { deeds: vec![], ms: 0, max_attempts: 1, store_result: false, no_pause: false };
    runtime().block_on(async {
        let world = World::new(vec![script; 100]).await;
        let session = Session::new(&world.store, []);
        world.store.lock().calls.clear();
        let delivery = session.take().unwrap();
        let (node, _) = world.live(&session, delivery).await;
        assert_eq!(world.store.lock().calls, ["ack"]);
        assert_eq!(node.tally.read(0).completed, 100);
    });
}

#[test]
fn a_long_run_records_as_it_goes() {
    let script = Script { deeds: vec![], ms: 15, max_attempts: 1, store_result: false, no_pause: false };
    runtime().block_on(async {
        // Three at a time, 15 ms each, a checkpoint every 20 ms.
        let mut world = World::new(vec![script; 30]).await;
        let session = Session::new(&world.store, []);
        let delivery = session.take().unwrap();
        let (node, _) = world.live(&session, delivery).await;
        let appends = node.tally.read(0).appends;
        assert!((4..=10).contains(&appends), "{appends} records");
        world.play(Vec::new()).await;
        world.check();
    });
}

#[test]
fn who_is_overtaken_settles_nothing() {
    quiet_panics();
    runtime().block_on(async {
        let mut world = World::new(one_of_each()).await;
        let (here, on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let slow = Session::new(&world.store, [Fault::Held(here.clone(), on.clone())]);
        let delivery = slow.take().unwrap();
        let run = delivery.run;
        world.store.lock().calls.clear();
        let zombie = world.live(&slow, delivery);
        let other = async {
            // The first is about to append, and its lease runs out.
            here.notified().await;
            world.store.lock().expire_one(run);
            let session = Session::new(&world.store, []);
            let delivery = session.take().unwrap();
            assert_eq!((delivery.run, delivery.delivered), (run, 2));
            world.live(&session, delivery).await;
            let calls = world.store.lock().calls.len();
            on.notify_one();
            calls
        };
        let ((zombie, died), calls) = tokio::join!(zombie, other);
        assert!(!died);
        assert_eq!(zombie.tally.read(0).fenced, 1);
        assert_eq!(world.store.lock().calls[calls..], ["append", "read"], "it found out, and did nothing more");
        world.crashes = 1;
        world.play(Vec::new()).await;
        world.check();
    });
}

#[test]
fn a_lost_answer_is_not_taken_for_a_fence() {
    quiet_panics();
    runtime().block_on(async {
        let mut world = World::new(one_of_each()).await;
        let session = Session::new(&world.store, [Fault::Unheard]);
        let delivery = session.take().unwrap();
        let (node, _) = world.live(&session, delivery).await;
        let stats = node.tally.read(0);
        assert_eq!((stats.fenced, stats.acked), (0, 1));
        world.play(Vec::new()).await;
        world.check();
    });
}

#[test]
fn a_full_lane_does_not_hold_a_retry_back() {
    let script = Script { deeds: vec![Deed::Fail], ms: 0, max_attempts: 2, store_result: false, no_pause: true };
    runtime().block_on(async {
        let mut world = World::new(vec![script]).await;
        // The copy for readers and the retry are published at once, in whatever order; full is only the lane.
        let session = Session::new(&world.store, [Fault::None, Fault::Full, Fault::Full]);
        let delivery = session.take().unwrap();
        world.store.lock().calls.clear();
        world.live(&session, delivery).await;
        assert_eq!(world.store.lock().calls, ["append", "show", "append", "publish_at", "ack"]);
        world.play(Vec::new()).await;
        world.check();
    });
}

#[test]
fn what_is_too_large_for_a_message_goes_in_several() {
    let script = Script { deeds: vec![Deed::Fail], ms: 0, max_attempts: 2, store_result: true, no_pause: true };
    runtime().block_on(async {
        let mut world = World::new(vec![script; 300]).await;
        // The broker takes less than it said it would.
        let session = Session::narrow(&world.store, [], 2_048);
        let delivery = session.take().unwrap();
        world.store.lock().calls.clear();
        world.live(&session, delivery).await;
        let calls = std::mem::take(&mut world.store.lock().calls);
        let count = |what| calls.iter().filter(|call| **call == what).count();
        assert!(count("append") > 2 && count("publish") > 2 && count("ack") == 1, "{calls:?}");
        world.play(Vec::new()).await;
        world.check();
    });
}

#[test]
fn what_cannot_be_read_is_buried_as_it_came() {
    runtime().block_on(async {
        let world = World::new(Vec::new()).await;
        let garbage = Bytes::from_static(b"WF\x02\x00garbage");
        world.store.lock().ready.clear();
        world.publish(garbage.clone()).await;
        world.publish(Bytes::from_static(br#"[{"kind":"noop","args":1},{"kind":"noop"},{"kind":"nobody","args":1}]"#)).await;
        let mut world = world;
        world.play(Vec::new()).await;
        let store = world.store.lock();
        let mut letters = store.letters().into_iter().map(|letter| match letter.remains {
            Remains::Raw { failure, bytes } => (failure.to_string(), bytes),
            Remains::Jobs(bytes) => {
                let jobs = Batch::decode(&bytes, &Limits::default()).unwrap();
                (jobs.get(0).unwrap().history()[0].failure.to_string(), Bytes::new())
            }
        });
        let (why, bytes) = letters.next().unwrap();
        assert!(why.starts_with("undecodable: ") && bytes == garbage, "{why}");
        let mut others: Vec<_> = letters.collect();
        others.sort();
        assert!(others[0].0.starts_with("no_handler: no handler for `nobody`; registered: "), "{others:?}");
        assert!(others[1].0.contains("missing field `args`") && &*others[1].1 == br#"{"kind":"noop"}"#);
        let outcomes: Vec<_> =
            store.log.values().flatten().map(|logged| Record::decode(&logged.bytes, &Limits::default())).collect();
        let record = outcomes[0].as_ref().unwrap();
        let states: BTreeMap<_, _> = record.iter().map(|o| (o.index(), (o.kind().to_string(), o.state()))).collect();
        assert_eq!(states[&0], ("noop".into(), State::Completed));
        assert_eq!(states[&1], ("undecodable".into(), State::Discarded));
        assert_eq!(states[&2], ("nobody".into(), State::Discarded));
    });
}
