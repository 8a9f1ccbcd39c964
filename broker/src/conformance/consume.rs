//! Consuming: credit, sharing, redelivery.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt as _;
use wf_schema::{Lane, Priority};

use super::Rig;
use super::names::{key, lane, message, messages, noise, texts};
use super::patience::{A_WHILE, past_lease, within};
use super::publish::publish_each;
use super::schedule::publish_at;
use super::taker::{Kept, Taker, contents, runs};
use crate::Delivery;

/// More bytes than any case sends.
const MANY: usize = 64 << 20;

/// Nothing is delivered without credit, of messages or of bytes.
pub async fn nothing_comes_without_credit(rig: &dyn Rig) {
    let broker = rig.open().await;
    let lane = lane();
    publish_each(&broker, messages(&lane, 3)).await;
    let mut taker = Taker::without_credit(&broker, &lane).await;
    taker.nothing(A_WHILE).await;
    taker.grant(0, MANY);
    taker.nothing(A_WHILE).await;
    taker.grant(1, 0);
    taker.take().await.lease.ack(None);
    taker.nothing(A_WHILE).await;

    let mut taker = Taker::without_credit(&broker, &lane).await;
    taker.grant(2, 0);
    taker.nothing(A_WHILE).await;
    taker.grant(0, MANY);
    taker.take_many(2).await;
}

/// No more is delivered than was granted, over what was published, what fell due and what is redelivered together;
/// grants add up.
pub async fn no_more_comes_than_was_granted(rig: &dyn Rig) {
    let broker = rig.open().await;
    let lane = lane();
    publish_each(&broker, messages(&lane, 10)).await;
    for n in 0..10 {
        publish_at(&broker, &lane, &key("at"), 0, format!("due {n}")).await;
    }
    let mut taker = Taker::without_credit(&broker, &lane).await;
    taker.grant(3, MANY);
    let mut taken = taker.take_many(3).await;
    taker.nothing(A_WHILE).await;
    let returned = taken.pop().unwrap();
    returned.lease.release(Duration::ZERO);
    let kept = Kept::new(&broker, &taken);
    taker.nothing(A_WHILE).await;
    taker.grant(2, 0);
    taker.grant(3, 0);
    taken.extend(taker.take_many(5).await);
    drop(kept);
    let _kept = Kept::new(&broker, &taken);
    taker.nothing(A_WHILE).await;
    assert_eq!(HashSet::<Bytes>::from_iter(contents(&taken)).len(), 7, "one came twice while it was owned");
}

/// A delivery may overdraw the credit of bytes, so that one larger than any grant still comes; nothing more comes
/// until it is above zero again.
pub async fn a_delivery_may_overdraw_the_bytes(rig: &dyn Rig) {
    let broker = rig.open().await;
    let lane = lane();
    let large = noise(100_000);
    publish_each(&broker, vec![message(&lane, large.clone())]).await;
    let mut taker = Taker::without_credit(&broker, &lane).await;
    taker.grant(10, 1);
    let delivery = taker.take().await;
    assert!(delivery.bytes == large);
    delivery.lease.ack(None);

    // The sizes leave room for what a broker may count beside the bytes themselves.
    publish_each(&broker, (0..3).map(|_| message(&lane, noise(10_000))).collect()).await;
    taker.nothing(A_WHILE).await;
    drop(taker);
    let mut taker = Taker::without_credit(&broker, &lane).await;
    taker.grant(10, 15_000);
    taker.take_many(2).await.iter().for_each(|delivery| delivery.lease.ack(None));
    taker.nothing(A_WHILE).await;
    taker.grant(0, 2_000);
    taker.nothing(A_WHILE).await;
    taker.grant(0, 10_000);
    taker.take().await.lease.ack(None);
}

/// A source that has withdrawn its credit gets nothing more, and holds nothing back from others, until it is granted
/// anew.
pub async fn nothing_comes_once_credit_is_withdrawn(rig: &dyn Rig) {
    let (broker, other) = (rig.open().await, rig.open().await);
    let lane = lane();
    let mut taker = Taker::open(&broker, &lane).await;
    publish_each(&broker, vec![message(&lane, "before")]).await;
    taker.take().await.lease.ack(None);
    taker.withdraw();
    publish_each(&broker, messages(&lane, 30)).await;
    let mut elsewhere = Taker::open(&other, &lane).await;
    let taken = taker.in_vain(elsewhere.take_many(30)).await;
    taken.iter().for_each(|delivery| delivery.lease.ack(None));
    drop(elsewhere);
    taker.nothing(A_WHILE).await;
    publish_each(&broker, vec![message(&lane, "after")]).await;
    taker.nothing(A_WHILE).await;
    taker.grant(1, MANY);
    assert_eq!(taker.take().await.bytes, "after");
}

/// A source that is mended goes on with the credit it had, no more and no less, and loses nothing of what was under
/// way: not what it holds, nor what was settled just before.
pub async fn a_mended_source_goes_on_with_its_credit(rig: &dyn Rig) {
    let broker = rig.open().await;
    let lane = lane();
    let mut taker = Taker::without_credit(&broker, &lane).await;
    taker.grant(8, MANY);
    publish_each(&broker, messages(&lane, 4)).await;
    let taken = taker.take_many(4).await;
    taken[..2].iter().for_each(|delivery| delivery.lease.ack(None));
    let kept = Kept::new(&broker, &taken[2..]);
    for _ in 0..3 {
        taker.mend();
    }
    publish_each(&broker, (4..12).map(|n| message(&lane, n.to_string())).collect()).await;
    let after = taker.take_many(4).await;
    let _kept_too = Kept::new(&broker, &after);
    taker.nothing(past_lease(&*broker)).await;
    drop(kept);
    taken[2..].iter().chain(&after).for_each(|delivery| delivery.lease.ack(None));
    within("settled", broker.settled()).await.unwrap();
    taker.grant(4, 0);
    taker.take_many(4).await.iter().for_each(|delivery| delivery.lease.ack(None));
}

/// A slow consumer gets no more than its credit, and what it has stays its own for many leases while it renews; a
/// fast one beside it gets all the rest.
pub async fn a_slow_consumer_keeps_what_it_has_and_gets_no_more(rig: &dyn Rig) {
    let (slow_node, fast_node) = (rig.open().await, rig.open().await);
    let lane = lane();
    publish_each(&slow_node, messages(&lane, 30)).await;
    let mut slow = Taker::without_credit(&slow_node, &lane).await;
    slow.grant(4, MANY);
    let taken = slow.take_many(4).await;
    let kept = Kept::new(&slow_node, &taken);

    let mut fast = Taker::open(&fast_node, &lane).await;
    let rest: Vec<Delivery> = fast.take_many(26).await;
    rest.iter().for_each(|delivery| delivery.lease.ack(None));
    assert_eq!(HashSet::<_>::from_iter(runs(&rest)).intersection(&runs(&taken).into_iter().collect()).count(), 0);
    let leases = 3 * slow_node.lease() + A_WHILE;
    tokio::join!(slow.nothing(leases), fast.nothing(leases));

    // Given back, it comes: it was owned, not lost.
    drop(kept);
    taken.iter().for_each(|delivery| delivery.lease.release(Duration::ZERO));
    assert_eq!(contents(&fast.take_many(4).await), contents(&taken));
}

/// A `next` that is dropped before it is done loses no delivery.
pub async fn next_is_cancel_safe(rig: &dyn Rig) {
    let broker = rig.open().await;
    let lane = lane();
    let mut taker = Taker::open(&broker, &lane).await;
    let publishing = publish_each(&broker, messages(&lane, 100));
    let taking = async {
        let mut came = HashMap::<Bytes, usize>::new();
        let started = Instant::now();
        while came.len() < 100 {
            assert!(started.elapsed() < Duration::from_secs(20), "only {} of 100 came", came.len());
            // Polled once, and for a moment.
            let polled = taker.next().now_or_never();
            let taken = match polled {
                Some(taken) => Some(taken),
                None => tokio::time::timeout(Duration::from_millis(1), taker.next()).await.ok(),
            };
            if let Some(delivery) = taken {
                let delivery = delivery.unwrap();
                delivery.lease.ack(None);
                *came.entry(delivery.bytes).or_default() += 1;
            }
        }
        came
    };
    let ((), came) = tokio::join!(publishing, taking);
    assert!(came.values().all(|&times| times == 1), "some came more than once");
}

/// `next` waits while the lane is empty, be it one that nobody used before.
pub async fn next_waits_while_the_lane_is_empty(rig: &dyn Rig) {
    let broker = rig.open().await;
    let lane = lane();
    let mut taker = Taker::open(&broker, &lane).await;
    for round in ["first", "second"] {
        taker.nothing(A_WHILE).await;
        let (delivery, ()) = tokio::join!(taker.take(), publish_each(&broker, vec![message(&lane, round)]));
        assert_eq!(delivery.bytes, round);
        delivery.lease.ack(None);
    }
}

/// A message comes from its own lane and from no other, though names and priorities be alike.
pub async fn lanes_are_apart(rig: &dyn Rig) {
    let broker = rig.open().await;
    let queue = super::names::queue();
    let longer = wf_schema::Queue::new(&format!("{queue}-")).unwrap();
    let lanes: Vec<Lane> = Lane::of(&queue).into_iter().chain(Lane::of(&longer)).collect();
    let mut takers = Vec::new();
    for lane in &lanes {
        takers.push(Taker::open(&broker, lane).await);
        publish_each(&broker, vec![message(lane, lane.to_string())]).await;
    }
    for (lane, taker) in lanes.iter().zip(&mut takers) {
        let delivery = taker.take().await;
        assert_eq!((&delivery.lane, &delivery.bytes[..]), (lane, lane.to_string().as_bytes()));
        delivery.lease.ack(None);
    }
    futures::future::join_all(takers.iter_mut().map(|taker| taker.nothing(A_WHILE))).await;
}

/// Two nodes may share a lane, with several sources each; each message goes to one of them at a time.
pub async fn sources_share_a_lane(rig: &dyn Rig) {
    let nodes = [rig.open().await, rig.open().await];
    let lane = lane();
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    let mut tasks = tokio::task::JoinSet::new();
    for node in [&nodes[0], &nodes[1], &nodes[1]] {
        let mut taker = Taker::open(node, &lane).await;
        let sender = sender.clone();
        tasks.spawn(async move {
            while let Ok(delivery) = taker.next().await {
                delivery.lease.ack(None);
                sender.send(delivery).ok();
            }
        });
    }
    publish_each(&nodes[0], messages(&lane, 300)).await;
    let mut taken = Vec::new();
    while taken.len() < 300 {
        taken.push(within("a delivery", receiver.recv()).await.unwrap());
    }
    // One message more would be a message twice.
    let again = tokio::time::timeout(A_WHILE, receiver.recv()).await;
    assert!(again.is_err(), "one came twice: {again:?}");
    assert_eq!(contents(&taken), texts(300));
}

/// Over redeliveries the run, the fallback id, the time and the bytes of a message stay, and `delivered` counts
/// from 1.
pub async fn a_redelivery_is_the_same_run(rig: &dyn Rig) {
    let nodes = [rig.open().await, rig.open().await];
    let lane = lane();
    publish_each(&nodes[0], vec![message(&lane, "{\"kind\":\"noop\"}")]).await;
    let first = Taker::open(&nodes[0], &lane).await.take().await;
    assert_eq!(first.delivered, 1);
    let mut before = first.clone();
    for count in 2..=4 {
        // A moment later, so that nothing stays the same merely because it was the same moment.
        before.lease.release(Duration::from_millis(20));
        let delivery = Taker::open(&nodes[count % 2], &lane).await.take().await;
        assert_eq!(delivery.delivered, count as u64);
        assert_eq!(
            (delivery.run, delivery.fallback_id, delivery.stored_at, &delivery.bytes, &delivery.lane),
            (first.run, first.fallback_id, first.stored_at, &first.bytes, &first.lane),
        );
        before = delivery;
    }
    before.lease.ack(None);
}

/// Every message is a run of its own with a fallback id of its own, over lanes, priorities and schedules, though
/// they say the same.
pub async fn every_message_is_a_run_of_its_own(rig: &dyn Rig) {
    let broker = rig.open().await;
    let queue = super::names::queue();
    let (mut runs, mut ids) = (HashSet::new(), HashSet::new());
    for priority in Priority::ALL {
        let lane = Lane::new(queue.clone(), priority);
        publish_each(&broker, (0..20).map(|_| message(&lane, "same")).collect()).await;
        for _ in 0..5 {
            publish_at(&broker, &lane, &key("at"), 0, "same").await;
        }
        for delivery in Taker::open(&broker, &lane).await.take_many(25).await {
            assert!(runs.insert(delivery.run), "two messages share the run {}", delivery.run);
            assert!(ids.insert(delivery.fallback_id), "two messages share the id {}", delivery.fallback_id);
            delivery.lease.ack(None);
        }
    }
}

/// Dropping a source releases what it was not asked for yet, and stops its flow; what was taken stays its owner's.
pub async fn a_dropped_source_releases_the_untaken(rig: &dyn Rig) {
    let (leaving, staying) = (rig.open().await, rig.open().await);
    let lane = lane();
    let mut source = Taker::open(&leaving, &lane).await;
    publish_each(&leaving, messages(&lane, 20)).await;
    let taken = vec![source.take().await];
    let _kept = Kept::new(&leaving, &taken);
    drop(source);
    publish_each(&leaving, vec![message(&lane, "after")]).await;

    let mut other = Taker::open(&staying, &lane).await;
    let mut came = HashSet::new();
    while came.len() < 20 {
        let delivery = other.take().await;
        assert_ne!(delivery.run, taken[0].run, "what was taken came again while it was renewed");
        delivery.lease.ack(None);
        came.insert(delivery.bytes);
    }
    other.nothing(A_WHILE).await;
}

/// What a dropped source releases comes at once, not when its lease would be over.
pub async fn a_dropped_source_does_not_sit_on_the_untaken(rig: &dyn Rig) {
    let (leaving, staying) = (rig.open().await, rig.open().await);
    // Nothing but the lease of the one that was taken tells what "at once" is. A machine that stalls for that long
    // proves nothing, so there are several tries.
    for _ in 0..5 {
        let lane = lane();
        let mut source = Taker::open(&leaving, &lane).await;
        publish_each(&leaving, messages(&lane, 20)).await;
        let taken = source.take().await;
        taken.lease.renew();
        drop(source);
        let mut other = Taker::open(&staying, &lane).await;
        let came = other.take_many(20).await;
        came.iter().for_each(|delivery| delivery.lease.ack(None));
        if came[19].run == taken.run {
            return;
        }
    }
    panic!("what was not taken came no sooner than what was");
}

/// What was delivered is delivered again after a restart, as the same run, and does not pass for a first delivery:
/// whoever takes it would not look for its records.
pub async fn a_run_stays_itself_over_a_restart(rig: &dyn Rig) {
    let broker = rig.open().await;
    let lane = lane();
    publish_each(&broker, messages(&lane, 5)).await;
    publish_at(&broker, &lane, &key("at"), 0, "due").await;
    let told = |delivery: &Delivery| (delivery.run, (delivery.fallback_id, delivery.stored_at, delivery.bytes.clone()));
    let mut taker = Taker::open(&broker, &lane).await;
    let before: HashMap<_, _> = taker.take_many(6).await.iter().map(told).collect();
    drop((taker, broker));
    rig.restart(Duration::ZERO).await;

    let broker = rig.open().await;
    publish_each(&broker, messages(&lane, 5)).await;
    let mut taker = Taker::open(&broker, &lane).await;
    let mut after = HashMap::new();
    while after.len() < 11 {
        let delivery = taker.take().await;
        delivery.lease.ack(None);
        assert!(delivery.delivered > 1 || !before.contains_key(&delivery.run), "{delivery:?} was delivered before");
        after.extend([told(&delivery)]);
    }
    for (run, said) in before {
        assert_eq!(after.get(&run), Some(&said), "run {run} is another after the restart");
    }
}
