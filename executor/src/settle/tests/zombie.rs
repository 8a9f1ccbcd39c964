//! Who was overtaken and does not know it: what it acknowledges or releases all the same loses nothing.

use super::*;

fn plain(ms: u64) -> Script {
    Script { deeds: vec![], ms, max_attempts: 1, store_result: false, no_pause: false }
}

/// Whoever has the run for the second time, from 20 ms after the first had it.
async fn overtaken<M>(world: &World, first: &Arc<Session>, second: &Arc<Session>, meanwhile: impl FnOnce(Arc<Node>) -> M)
where
    M: Future<Output = ()>,
{
    let delivery = first.take().unwrap();
    let run = delivery.run;
    let zombie = world.live_until(first, delivery, meanwhile);
    let other = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        world.store.lock().expire_one(run);
        let delivery = second.take().unwrap();
        assert_eq!((delivery.run, delivery.delivered), (run, 2));
        world.live(second, delivery).await;
    };
    tokio::join!(zombie, other);
}

#[test]
fn a_late_ack_is_of_a_run_that_is_done() {
    runtime().block_on(async {
        let mut world = World::new(vec![plain(50); 3]).await;
        let (first, second) = (Session::new(&world.store, []), Session::new(&world.store, []));
        world.store.lock().calls.clear();
        // It acknowledges after 50 ms, without a record, what the other is in the middle of; who then dies.
        let other = overtaken(&world, &first, &second, |_| std::future::pending());
        let dies = async {
            tokio::time::sleep(Duration::from_millis(60)).await;
            assert_eq!(world.store.lock().calls, ["read", "ack"]);
            second.die();
        };
        tokio::join!(other, dies);
        world.crashes = 1;
        world.play(Vec::new()).await;
        // All of its jobs ran, at the hands of the one who said so.
        world.check();
    });
}

#[test]
fn a_late_release_gives_the_run_to_a_third() {
    runtime().block_on(async {
        let mut world = World::new(vec![plain(50), Script { store_result: true, ..plain(80) }]).await;
        let first = Session::new(&world.store, []);
        let (second, third) = (Session::new(&world.store, []), Session::new(&world.store, []));
        let drained = async |node: Arc<Node>| {
            tokio::time::sleep(Duration::from_millis(30)).await;
            node.phases.drain(Instant::now());
            node.phases.overtime.cancel();
        };
        let last = async {
            tokio::time::sleep(Duration::from_millis(40)).await;
            let delivery = third.take().expect("it was released");
            assert_eq!(delivery.delivered, 3);
            world.live(&third, delivery).await.0
        };
        let (_, last) = tokio::join!(overtaken(&world, &first, &second, drained), last);
        // Of the two that ran it on, one has settled it.
        let records = world.store.lock().records(world.batch);
        let settled: Vec<_> = records.iter().flat_map(Record::iter).map(|o| o.index()).collect();
        assert_eq!(settled.len(), 2, "{settled:?}");
        drop(last);
        world.crashes = 2;
        world.play(Vec::new()).await;
        world.check();
    });
}

#[test]
fn who_has_waited_for_its_turn_looks_again() {
    runtime().block_on(async {
        let world = World::new(vec![Script { store_result: true, ..plain(0) }]).await;
        let (first, second) = (Session::new(&world.store, []), Session::new(&world.store, []));
        let delivery = first.take().unwrap();
        world.store.lock().expire_one(delivery.run);
        let again = second.take().unwrap();
        let node = world.node(&second, again.run, &Arc::default());
        let work = Work::read(&again, node.options.reading()).unwrap();
        let (found, also) = (Found::look_up(&node, &work).await.unwrap(), Found::look_up(&node, &work).await.unwrap());
        // The one before it was heard of no more, and is there all the same.
        world.live(&first, delivery).await;
        let take_up = async |found| {
            let held = node.renewals.hold(&again).unwrap();
            Settling::take_up(node.clone(), work.clone(), held, again.delivered, Some(found)).await.unwrap().1
        };
        assert_eq!(take_up(found).await, [false], "it has looked just now");
        tokio::time::sleep(FRESH * 2).await;
        assert_eq!(take_up(also).await, [true]);
    });
}
