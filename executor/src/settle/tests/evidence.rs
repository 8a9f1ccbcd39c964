//! What a run leaves behind: an end of its log, as long as asked for; and who comes after that finds out.

use wf_schema::{Format, Lane};

use super::*;

fn plain(ms: u64, store_result: bool) -> Script {
    Script { deeds: vec![], ms, max_attempts: 1, store_result, no_pause: false }
}

/// The ends that are remembered, and for how long.
fn ends(world: &World) -> Vec<Option<Duration>> {
    world.store.lock().ended.values().map(|(_, keep)| *keep).collect()
}

#[test]
fn the_ack_ends_the_log_if_there_is_one() {
    runtime().block_on(async {
        for store_result in [false, true] {
            let mut world = World::new(vec![plain(0, store_result)]).await;
            world.play(Vec::new()).await;
            assert_eq!(ends(&world), if store_result { vec![None] } else { vec![] });
            assert_eq!(world.store.lock().shown.len(), usize::from(store_result));
        }
    });
}

#[test]
fn a_batch_that_is_to_be_remembered_leaves_a_record_and_an_end() {
    runtime().block_on(async {
        let mut world = World::remembered(vec![plain(0, false); 3], 3_600).await;
        world.play(Vec::new()).await;
        world.check();
        assert_eq!(ends(&world), [Some(Duration::from_secs(3_600))]);
        assert_eq!(world.store.lock().records(world.batch).len(), 1);
    });
}

#[test]
fn retries_are_not_remembered() {
    quiet_panics();
    runtime().block_on(async {
        let fails = Script { deeds: vec![Deed::Fail], ms: 0, max_attempts: 2, store_result: false, no_pause: true };
        let mut world = World::remembered(vec![fails], 3_600).await;
        world.play(Vec::new()).await;
        world.check();
        // The retry completes with nothing to say, and leaves nothing.
        assert_eq!(ends(&world), [Some(Duration::from_secs(3_600))]);
    });
}

#[test]
fn who_is_delivered_a_run_that_has_ended_acknowledges_it_again() {
    runtime().block_on(async {
        let world = World::new(vec![plain(0, true), plain(0, false)]).await;
        let session = Session::new(&world.store, []);
        let delivery = session.take().unwrap();
        let forgotten = world.store.lock().owned[&delivery.run].clone();
        world.live(&session, delivery).await;
        // The broker has forgotten the ack.
        world.store.lock().ready.push_back(forgotten);
        world.store.lock().calls.clear();
        let delivery = session.take().unwrap();
        assert_eq!(delivery.delivered, 2);
        world.live(&session, delivery).await;
        assert_eq!(world.store.lock().calls, ["read", "ack"]);
        assert_eq!(world.started.lock().len(), 2, "each ran once");
        assert!(world.store.lock().is_idle());
        world.check();
    });
}

#[test]
fn who_was_stopped_until_all_was_forgotten_settles_nothing() {
    quiet_panics();
    runtime().block_on(async {
        let mut world = World::new(one_of_each()).await;
        let (here, on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let slow = Session::new(&world.store, [Fault::Held(here.clone(), on.clone())]);
        let delivery = slow.take().unwrap();
        let run = delivery.run;
        let zombie = world.live(&slow, delivery);
        let other = async {
            here.notified().await;
            world.store.lock().expire_one(run);
            let session = Session::new(&world.store, []);
            let delivery = session.take().unwrap();
            world.live(&session, delivery).await;
            // Longer than the lease, and than the end of its log is remembered.
            tokio::time::sleep(Duration::from_secs(300)).await;
            let mut store = world.store.lock();
            let before = (store.log.clone(), store.shown.clone());
            store.forget();
            store.calls.clear();
            drop(store);
            on.notify_one();
            before
        };
        let ((zombie, _), (log, shown)) = tokio::join!(zombie, other);
        assert_eq!(zombie.tally.read(0).fenced, 1);
        assert_eq!(world.store.lock().calls, ["append", "stored", "end"], "it found out, and did nothing more");
        // What the other had settled is what counts.
        (world.store.lock().log, world.store.lock().shown) = (log, shown);
        world.crashes = 1;
        world.play(Vec::new()).await;
        world.check();
    });
}

#[test]
fn what_another_message_of_the_same_name_left_is_no_fence() {
    runtime().block_on(async {
        for delivered in [1, 2] {
            let world = World::new(vec![plain(0, true)]).await;
            let session = Session::new(&world.store, []);
            let mut delivery = session.take().unwrap();
            delivery.delivered = delivered;
            let log = wf_broker::RunLog { batch: world.batch, run: delivery.run, message: "another".into() };
            let header = RecordHeader {
                batch: world.batch,
                run: delivery.run,
                step: 0,
                writer: 1,
                executor: "long gone".into(),
                at: 1,
                lane: Lane::default(),
                format: Format::Json,
                cut: 1 << 18,
            };
            let record = RecordBuilder::new(header).encode();
            let version = wf_broker::OutcomeLog::append(&*session, log, Version::NONE, record).await.unwrap();
            world.store.lock().others.insert(version);
            let (node, _) = world.live(&session, delivery).await;
            assert_eq!((node.tally.read(0).fenced, node.tally.read(0).acked), (0, 1));
            assert_eq!(world.started.lock().len(), 1);
        }
    });
}

#[test]
fn who_has_waited_for_its_turn_finds_out_that_the_message_is_gone() {
    runtime().block_on(async {
        let world = World::new(vec![plain(0, false)]).await;
        let (first, second) = (Session::new(&world.store, []), Session::new(&world.store, []));
        let delivery = first.take().unwrap();
        world.store.lock().expire_one(delivery.run);
        let again = second.take().unwrap();
        let node = world.node(&second, again.run, &Arc::default());
        let work = Work::read(&again, node.options.reading()).unwrap();
        let found = Found::look_up(&node, &work).await.unwrap();
        // The one before it completes all, and needs no record.
        world.live(&first, delivery).await;
        tokio::time::sleep(FRESH * 2).await;
        let held = node.renewals.hold(&again).unwrap();
        let taken = Settling::take_up(node, work, held, again.delivered, Some(found)).await;
        assert!(matches!(taken, Err(Lost::Fenced)));
    });
}
