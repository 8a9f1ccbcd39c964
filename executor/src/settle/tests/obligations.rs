//! What a record obliges to is there once, whoever publishes it, how often, and whatever way it takes.

use super::*;

fn failing(store_result: bool) -> Script {
    Script { deeds: vec![Deed::Fail], ms: 0, max_attempts: 2, store_result, no_pause: true }
}

#[test]
fn what_was_scheduled_for_want_of_room_is_not_published_once_there_is_some() {
    quiet_panics();
    // Its executor dies at any of the steps that follow.
    for fault in [Fault::CrashBefore, Fault::CrashAfter] {
        for step in 3..6 {
            runtime().block_on(async {
                let mut world = World::new(vec![failing(false)]).await;
                let mut faults = vec![Fault::None, Fault::Full, Fault::Full];
                faults.extend(std::iter::repeat_n(Fault::None, step - 3));
                faults.push(fault.clone());
                world.play(vec![faults]).await;
                world.check();
            });
        }
    }
}

#[test]
fn what_finds_no_room_again_is_still_scheduled_once() {
    quiet_panics();
    for step in 3..8 {
        runtime().block_on(async {
            let mut world = World::new(vec![failing(true)]).await;
            let mut faults = vec![Fault::None, Fault::Full, Fault::Full];
            faults.extend(std::iter::repeat_n(Fault::None, step - 3));
            faults.push(Fault::CrashAfter);
            // Whoever takes it up reads the log first, and may meet a full lane too.
            world.play(vec![faults, vec![Fault::None, Fault::Full, Fault::Full, Fault::None, Fault::CrashBefore]]).await;
            world.check();
        });
    }
}

#[test]
fn what_was_published_long_ago_is_not_published_again() {
    quiet_panics();
    runtime().block_on(async {
        let long = Script { deeds: vec![], ms: 5_000, max_attempts: 1, store_result: true, no_pause: false };
        let mut world = World::new(vec![failing(true), long]).await;
        let session = Session::new(&world.store, []);
        let delivery = session.take().unwrap();
        let crash = async |_| {
            // Long after the first job has failed and its retry was published; the other job runs on.
            tokio::time::sleep(Duration::from_secs(3)).await;
            session.die();
        };
        world.live_until(&session, delivery, crash).await;
        world.crashes = 1;
        // The retry has run, and nobody remembers that it was published, when the run is taken up.
        let retried = Session::new(&world.store, []);
        let retry = retried.take().expect("the retry");
        world.live(&retried, retry).await;
        world.store.lock().forget_ids();
        world.play(Vec::new()).await;
        world.check();
        assert_eq!(world.started.lock().iter().filter(|(index, attempt, _)| (*index, *attempt) == (0, 2)).count(), 1);
    });
}
