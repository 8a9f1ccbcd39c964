//! A run that gives jobs away: the same order, and nothing lost or run twice by it.

use wf_schema::Header;

use super::*;

/// Twelve jobs of 50 ms, three at a time; once three run, all but two of the others go, three together.
const SPLITTING: Splitting = Splitting { after: 3, keep: 2, piece: 3 };

fn slow() -> Vec<Script> {
    vec![Script { deeds: vec![], ms: 50, max_attempts: 2, store_result: true, no_pause: false }; 12]
}

#[test]
fn jobs_that_have_not_started_go_in_pieces_and_keep_their_ids() {
    runtime().block_on(async {
        let mut world = World::split(slow(), SPLITTING).await;
        let session = Session::new(&world.store, []);
        let delivery = session.take().unwrap();
        let before = Batch::decode(&delivery.bytes, &Limits::default()).unwrap().header().clone();
        world.store.lock().calls.clear();
        let (node, _) = world.live(&session, delivery).await;
        let stats = node.tally.read(0);
        assert_eq!((stats.completed, stats.moved, stats.split, stats.acked), (5, 7, 1, 1));
        let calls = std::mem::take(&mut world.store.lock().calls);
        assert_eq!(calls[..4], ["append", "publish", "publish", "publish"], "the record comes first");
        assert_eq!(calls.last(), Some(&"ack"), "and the ack last");
        let mut pieces = Vec::new();
        while let Some(delivery) = session.take() {
            let piece = Batch::decode(&delivery.bytes, &Limits::default()).unwrap();
            assert_eq!(*piece.header(), Header { hops: 1, ..before.clone() });
            assert!(piece.iter().all(|job| job.attempt() == 1 && job.history().is_empty()), "it is not an attempt");
            pieces.push(piece.iter().map(|job| job.index()).collect::<Vec<_>>());
        }
        pieces.sort();
        assert_eq!(pieces, [vec![5, 6, 7], vec![8, 9, 10], vec![11]]);
        world.store.lock().expire();
        world.play(Vec::new()).await;
        world.check();
    });
}

#[test]
fn a_crash_before_or_after_any_step_of_a_split_loses_nothing() {
    quiet_panics();
    for step in 0..24 {
        for fault in [Fault::CrashBefore, Fault::CrashAfter, Fault::Lost, Fault::Unheard] {
            runtime().block_on(async {
                let mut scripts = slow();
                scripts.extend(one_of_each());
                let mut world = World::split(scripts, SPLITTING).await;
                let faults = std::iter::repeat_n(Fault::None, step).chain([fault.clone()]).collect();
                world.play(vec![faults]).await;
                world.check();
            });
        }
    }
}

#[test]
fn whoever_publishes_the_pieces_makes_the_same() {
    // The executor dies once the record stands, with none, one or two of three pieces published; the next one cuts
    // them anew, and those that are there already are not stored again.
    for published in 0..3 {
        runtime().block_on(async {
            let mut world = World::split(slow(), SPLITTING).await;
            let faults = std::iter::repeat_n(Fault::None, published + 1).chain([Fault::CrashBefore]);
            let session = Session::new(&world.store, faults);
            let delivery = session.take().unwrap();
            assert!(world.live(&session, delivery).await.1);
            world.crashes = 1;
            assert_eq!(world.store.lock().ready.len(), published);
            world.store.lock().expire();
            world.splitting = Splitting::default();
            world.play(Vec::new()).await;
            world.check();
            let started = world.started.lock();
            let moved = (5..12).flat_map(|index| started.iter().filter(move |(of, ..)| *of == index));
            assert_eq!(moved.count(), 7, "each that was moved ran once");
        });
    }
}

#[test]
fn two_hops_are_enough() {
    runtime().block_on(async {
        // Whoever has them starts one and gives away all others.
        let mut world = World::split(slow(), Splitting { after: 1, keep: 0, piece: 20 }).await;
        world.play(Vec::new()).await;
        world.check();
        let records = world.store.lock().records(world.batch);
        let moved = records.iter().flat_map(Record::iter).filter(|o| o.state() == State::Moved);
        // Three start at a time: nine go once, six go twice, and the last of those stay where they are.
        assert_eq!(moved.count(), 9 + 6);
    });
}

#[test]
fn what_cannot_be_published_to_the_lane_is_scheduled() {
    // It has filled up meanwhile, or this executor has no right to.
    for fault in [Fault::Full, Fault::Denied] {
        runtime().block_on(async {
            let mut world = World::split(slow(), SPLITTING).await;
            let session = Session::new(&world.store, [Fault::None, fault]);
            let delivery = session.take().unwrap();
            world.store.lock().calls.clear();
            world.live(&session, delivery).await;
            let calls = std::mem::take(&mut world.store.lock().calls);
            assert_eq!(calls.iter().filter(|call| **call == "publish_at").count(), 1, "{calls:?}");
            world.play(Vec::new()).await;
            world.check();
        });
    }
}

#[test]
fn who_is_overtaken_gives_nothing_away() {
    runtime().block_on(async {
        let mut world = World::split(slow(), SPLITTING).await;
        let (here, on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let slow = Session::new(&world.store, [Fault::Held(here.clone(), on.clone())]);
        let delivery = slow.take().unwrap();
        let run = delivery.run;
        let zombie = world.live(&slow, delivery);
        let other = async {
            // The first is about to record what it gives away, and its lease runs out.
            here.notified().await;
            world.store.lock().expire_one(run);
            let session = Session::new(&world.store, []);
            let delivery = session.take().unwrap();
            world.live(&session, delivery).await;
            world.store.lock().calls.clear();
            on.notify_one();
        };
        let ((zombie, _), ()) = tokio::join!(zombie, other);
        assert_eq!(zombie.tally.read(0).fenced, 1);
        assert_eq!(world.store.lock().calls, ["append", "read"], "it found out, and did nothing more");
        world.crashes = 1;
        world.play(Vec::new()).await;
        world.check();
    });
}
