//! Jobs that kill their executor.

use super::*;

fn script(deed: Deed, ms: u64) -> Script {
    Script { deeds: vec![deed], ms, max_attempts: 3, store_result: false, no_pause: false }
}

/// Batches of `jobs` in which those at `killers` kill: how many executors it took.
async fn deaths(jobs: usize, killers: &[usize]) -> usize {
    let deed = |n: usize| if killers.contains(&n) { Deed::Kill } else { Deed::Complete };
    let mut world = World::new((0..jobs).map(|n| script(deed(n), 1 + n as u64 % 7)).collect()).await;
    world.play(Vec::new()).await;
    world.check();
    let dead: usize = world.store.lock().letters().iter().map(|l| l.jobs(&Limits::default()).unwrap().unwrap().len()).sum();
    assert_eq!(dead, killers.len());
    world.crashes
}

#[test]
fn what_kills_ends_as_a_dead_letter_and_takes_nobody_along() {
    runtime().block_on(async {
        // Twice unmarked, once with its batch, three times alone.
        assert_eq!(deaths(40, &[17]).await, 6);
        // Alone from the start.
        assert_eq!(deaths(1, &[0]).await, 5);
        // Once more, with a few.
        assert_eq!(deaths(1_000, &[600]).await, 7);
        // Each of several three times alone.
        assert_eq!(deaths(30, &[3, 4, 29]).await, 12);
    });
}

#[test]
fn a_crash_around_any_mark_loses_nothing() {
    for step in 0..30 {
        for fault in [Fault::CrashBefore, Fault::CrashAfter, Fault::Lost, Fault::Unheard] {
            runtime().block_on(async {
                let mut world = World::new(vec![script(Deed::Complete, 1), script(Deed::Kill, 2), script(Deed::Fail, 3)]).await;
                // Two that do not know yet, and one that breaks somewhere while it takes care.
                let faults = std::iter::repeat_n(Fault::None, step).chain([fault.clone()]).collect();
                world.play(vec![Vec::new(), Vec::new(), faults]).await;
                world.check();
            });
        }
    }
}

#[test]
fn what_is_given_back_was_not_lost() {
    runtime().block_on(async {
        let mut world = World::new(vec![script(Deed::Complete, 1_000); 2]).await;
        for round in 1..=12_usize {
            let session = Session::new(&world.store, []);
            let delivery = session.take().unwrap();
            let draining = async |node: Arc<Node>| {
                // Its jobs run; and it is told to stop, and its deadline passes.
                tokio::time::sleep(Duration::from_millis(100)).await;
                node.phases.drain(Instant::now());
                node.phases.overtime.cancel();
            };
            world.live_until(&session, delivery, draining).await;
            let marks = world.store.lock().records(world.batch).iter().filter(|record| record.mark().is_some()).count();
            // From the third time on: that they were begun, and that they were given back.
            assert_eq!(marks, 2 * round.saturating_sub(2), "round {round}");
        }
        // It ran in every round, and nothing is known against it.
        world.crashes = 12;
        world.play(Vec::new()).await;
        world.check();
        assert!(world.store.lock().letters().is_empty());
    });
}
