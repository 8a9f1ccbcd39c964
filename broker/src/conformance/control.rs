//! Looking at lanes, holding queues, closing.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use wf_schema::{BatchId, Lane, Millis, Priority, Queue, RunId, now};

use super::Rig;
use super::names::{key, lane, message, messages, queue};
use super::patience::{A_WHILE, past_lease, until, within};
use super::publish::publish_each;
use super::schedule::publish_at;
use super::taker::{Kept, Taker};
use crate::{Broker, BrokerError, Cron, LaneStats, LogEnd, Result, Revision, RunLog, Scheduled, Version};

/// Waits until the stats of `lane` show so many: they may be a second old.
async fn shows(broker: &Arc<dyn Broker>, lane: &Lane, pending: u64, in_flight: u64) -> LaneStats {
    let what = format!("{pending} pending and {in_flight} in flight");
    let stats = async || {
        let stats = broker.stats(lane.clone()).await.unwrap();
        ((stats.pending, stats.in_flight) == (pending, in_flight)).then_some(stats)
    };
    until(&what, stats).await
}

async fn pause(broker: &Arc<dyn Broker>, queue: &Queue, until: Millis) {
    within("it is held", broker.pause(queue.clone(), until)).await.unwrap();
}

async fn resume(broker: &Arc<dyn Broker>, queue: &Queue) {
    within("it goes on", broker.resume(queue.clone())).await.unwrap();
}

async fn paused(broker: &Arc<dyn Broker>, queue: &Queue) -> Option<Millis> {
    within("an answer", broker.paused(queue.clone())).await.unwrap()
}

/// For as long as any case takes.
fn long() -> Millis {
    now() + 600_000
}

/// The stats tell what waits and what is with an owner, those to be redelivered among the waiting; a lane that
/// nobody used is empty.
pub async fn stats_tell_how_full_a_lane_is(rig: &dyn Rig) {
    let (broker, other) = (rig.open().await, rig.open().await);
    let lane = lane();
    assert_eq!(within("an answer", broker.stats(lane.clone())).await.unwrap(), LaneStats::default());
    let before = now();
    publish_each(&broker, messages(&lane, 5)).await;
    let stats = shows(&other, &lane, 5, 0).await;
    // A broker need not tell the oldest, but must not tell wrong.
    assert!(stats.oldest.is_none_or(|oldest| (before - 60_000..=now() + 60_000).contains(&oldest)), "{stats:?}");

    let mut taker = Taker::without_credit(&broker, &lane).await;
    taker.grant(2, 1 << 20);
    let mut taken = taker.take_many(2).await;
    let kept = Kept::new(&broker, &taken);
    shows(&other, &lane, 3, 2).await;
    drop(kept);
    let _kept = Kept::new(&broker, &taken[..1]);
    taken.pop().unwrap().lease.release(Duration::ZERO);
    // Whether one that was given back waits or is still in flight, not every broker can tell.
    let all_told = async || broker.stats(lane.clone()).await.ok().filter(|stats| stats.pending + stats.in_flight == 5);
    until("five pending or in flight", all_told).await;
    taken[0].lease.ack(None);
    let mut taker = Taker::open(&other, &lane).await;
    taker.take_many(4).await.iter().for_each(|delivery| delivery.lease.ack(None));
    within("settled", other.settled()).await.unwrap();
    let stats = shows(&broker, &lane, 0, 0).await;
    assert_eq!(stats.oldest, None);
}

/// The stats tell who waits in vain: every node hears of a source that has credit and nothing to take, until it has
/// what it asked for, is dropped, or its queue is held. One that has withdrawn its credit does not count at home.
pub async fn stats_tell_who_waits(rig: &dyn Rig) {
    let nodes = [rig.open().await, rig.open().await];
    let lane = lane();
    let shows = async |whom: &str, on: &[Arc<dyn Broker>], wanted: fn(u64) -> bool| {
        for node in on {
            let stats = async || node.stats(lane.clone()).await.ok().filter(|stats| wanted(stats.waiting));
            until(whom, stats).await;
        }
    };
    let nobody: fn(u64) -> bool = |waiting| waiting == 0;
    let somebody: fn(u64) -> bool = |waiting| waiting > 0;
    let mut taker = Taker::without_credit(&nodes[0], &lane).await;
    taker.in_vain(shows("nobody has credit", &nodes, nobody)).await;
    taker.grant(1, 1 << 20);
    taker.in_vain(shows("one waits", &nodes, somebody)).await;
    publish_each(&nodes[1], messages(&lane, 1)).await;
    taker.take().await.lease.ack(None);
    taker.in_vain(shows("it has what it asked for", &nodes, nobody)).await;

    taker.grant(5, 1 << 20);
    taker.in_vain(shows("one waits again", &nodes, somebody)).await;
    pause(&nodes[0], &lane.queue, long()).await;
    taker.in_vain(shows("the queue is held", &nodes, nobody)).await;
    resume(&nodes[0], &lane.queue).await;
    taker.in_vain(shows("the queue goes on", &nodes, somebody)).await;
    taker.withdraw();
    taker.in_vain(shows("its credit is withdrawn", &nodes[..1], nobody)).await;
    taker.grant(1, 1 << 20);
    taker.in_vain(shows("it has credit again", &nodes, somebody)).await;
    drop(taker);
    shows("it is gone", &nodes, nobody).await;
}

/// Lanes in which something waits and that nobody asks for are told, with how much waits; not those that are served,
/// held or empty.
pub async fn what_nobody_asks_for_is_told(rig: &dyn Rig) {
    let (broker, other) = (rig.open().await, rig.open().await);
    let [alone, served, held] = [lane(), lane(), lane()];
    let before = now();
    for lane in [&alone, &served, &held] {
        publish_each(&broker, messages(lane, 3)).await;
    }
    pause(&broker, &held.queue, long()).await;
    let mut taker = Taker::open(&broker, &served).await;
    let _kept = taker.take().await;
    let told = async || {
        let told = within("an answer", other.unserved()).await.unwrap();
        let of = |lane: &Lane| told.iter().find(|unserved| unserved.lane.as_ref() == Some(lane)).cloned();
        of(&alone).filter(|_| of(&served).is_none() && of(&held).is_none())
    };
    let unserved = until("the lane that nobody serves, and no other, is told", told).await;
    assert_eq!((unserved.messages, unserved.name.contains(alone.queue.as_str())), (3, true));
    assert!(unserved.oldest.is_none_or(|oldest| (before - 60_000..=now() + 60_000).contains(&oldest)), "{unserved:?}");

    let mut late = Taker::open(&broker, &alone).await;
    let first = late.take().await;
    let none = async || {
        let told = other.unserved().await.unwrap();
        (!told.iter().any(|unserved| unserved.lane.as_ref() == Some(&alone))).then_some(())
    };
    until("it is served now", none).await;
    first.lease.ack(None);
}

/// A queue that is held delivers nothing, from none of its lanes, of what waits, is published, falls due or is to be
/// redelivered, until it is let go; other queues go on.
pub async fn a_queue_that_is_held_delivers_nothing(rig: &dyn Rig) {
    let (broker, other) = (rig.open().await, rig.open().await);
    let (queue, free) = (queue(), lane());
    let lanes = Lane::of(&queue);
    publish_each(&broker, lanes.iter().map(|lane| message(lane, "before")).collect()).await;
    assert_eq!(paused(&broker, &queue).await, None);
    let mut takers = Vec::new();
    for lane in &lanes {
        let mut taker = Taker::open(&broker, lane).await;
        // To be given back while the queue is held.
        takers.push((taker.take().await, taker));
    }

    let end = long();
    pause(&other, &queue, end).await;
    until("it is told", async || (paused(&broker, &queue).await == Some(end)).then_some(())).await;
    for (lane, (delivery, _)) in lanes.iter().zip(&takers) {
        delivery.lease.release(Duration::ZERO);
        publish_each(&broker, vec![message(lane, "meanwhile")]).await;
        publish_at(&broker, lane, &key("at"), 0, "due").await;
    }
    publish_each(&broker, vec![message(&free, "free")]).await;
    Taker::open(&broker, &free).await.take().await.lease.ack(None);
    let held = past_lease(&*broker);
    join_all(takers.iter_mut().map(|(_, taker)| taker.nothing(held))).await;

    resume(&other, &queue).await;
    for (_, taker) in &mut takers {
        let came = taker.ack_until_all(&["before", "meanwhile", "due"].map(Into::into)).await;
        assert_eq!(came.len(), 3);
    }
    until("it is told", async || paused(&broker, &queue).await.is_none().then_some(())).await;
}

/// A pause also holds lanes that are made, and nodes that come, after it.
pub async fn a_pause_holds_lanes_made_later(rig: &dyn Rig) {
    let broker = rig.open().await;
    let queue = queue();
    pause(&broker, &queue, long()).await;
    let later = rig.open().await;
    let mut takers = Vec::new();
    for (node, lane) in [&broker, &later, &later].into_iter().zip(Lane::of(&queue)) {
        publish_each(node, vec![message(&lane, "held")]).await;
        publish_at(node, &lane, &key("at"), 0, "due").await;
        takers.push(Taker::open(node, &lane).await);
    }
    join_all(takers.iter_mut().map(|taker| taker.nothing(3 * A_WHILE))).await;
    resume(&later, &queue).await;
    for taker in &mut takers {
        taker.ack_until_all(&["held", "due"].map(Into::into)).await;
    }
}

/// What was delivered before a pause stays with its owner, who can renew and acknowledge it.
pub async fn a_pause_leaves_what_was_delivered(rig: &dyn Rig) {
    let broker = rig.open().await;
    let lane = lane();
    publish_each(&broker, messages(&lane, 2)).await;
    let mut taker = Taker::open(&broker, &lane).await;
    let taken = taker.take_many(2).await;
    let kept = Kept::new(&broker, &taken);
    pause(&broker, &lane.queue, long()).await;
    taker.nothing(past_lease(&*broker)).await;
    taken.iter().for_each(|delivery| delivery.lease.ack(None));
    drop(kept);
    within("settled", broker.settled()).await.unwrap();
    resume(&broker, &lane.queue).await;
    taker.nothing(past_lease(&*broker)).await;
}

/// A pause ends by itself at its time, not before; a later one replaces it; one that is over holds nothing.
pub async fn a_pause_ends_by_itself(rig: &dyn Rig) {
    let broker = rig.open().await;
    let lane = lane();
    let mut taker = Taker::open(&broker, &lane).await;
    pause(&broker, &lane.queue, long()).await;
    let end = now() + 2_000;
    pause(&broker, &lane.queue, end).await;
    publish_each(&broker, vec![message(&lane, "held")]).await;
    let delivery = taker.take().await;
    assert!(now() >= end, "it was let go {} ms early", end - now());
    delivery.lease.ack(None);
    until("it is told", async || paused(&broker, &lane.queue).await.is_none().then_some(())).await;

    pause(&broker, &lane.queue, now() - 1_000).await;
    publish_each(&broker, vec![message(&lane, "free")]).await;
    taker.take().await.lease.ack(None);
    assert_eq!(paused(&broker, &lane.queue).await, None);
}

/// Letting go a queue that is not held is success.
pub async fn a_queue_that_is_not_held_can_be_let_go(rig: &dyn Rig) {
    let broker = rig.open().await;
    let queue = queue();
    resume(&broker, &queue).await;
    assert_eq!(paused(&broker, &queue).await, None);
    pause(&broker, &queue, long()).await;
    resume(&broker, &queue).await;
    resume(&broker, &queue).await;
    assert_eq!(paused(&broker, &queue).await, None);
}

/// A ping is answered.
pub async fn a_ping_is_answered(rig: &dyn Rig) {
    let broker = rig.open().await;
    let took = within("the answer", broker.ping()).await.unwrap();
    assert!(took < Duration::from_secs(20));
}

/// Whatever is asked of a broker that is closed is fatal, and so is what was being waited for.
pub async fn a_closed_broker_answers_nothing_more(rig: &dyn Rig) {
    #[track_caller]
    fn fatal<T>(answer: Result<T>) {
        match answer {
            Err(error @ BrokerError::Fatal { .. }) => assert!(!error.is_retryable()),
            Err(error) => panic!("a closed broker said: {error:?}"),
            Ok(_) => panic!("a closed broker did as it was asked"),
        }
    }
    let broker = rig.open().await;
    let lane = lane();
    let (queue, key, batch) = (lane.queue.clone(), key("closed"), BatchId::new());
    let mut taker = Taker::open(&broker, &lane).await;
    let waiting = tokio::spawn(async move { taker.next().await });
    let mut hints = within("the watch", broker.watch_all()).await.unwrap();
    // A test rig's broker may be the same for all who opened it: nothing of it is used after this.
    within("closed", broker.close()).await.unwrap();

    fatal(within("the source to end", waiting).await.unwrap());
    let ended = async { while hints.changed().await.is_ok() {} };
    within("the hints to end", ended).await;
    fatal(hints.changed().await);
    fatal(within("an answer", broker.ping()).await);
    fatal(within("an answer", broker.publish(message(&lane, "no"))).await);
    fatal(within("an answer", broker.publish_all(messages(&lane, 2))).await);
    let later = Scheduled { lane: lane.clone(), key: key.clone(), due: 0, bytes: "no".into() };
    fatal(within("an answer", broker.publish_at(later)).await);
    fatal(within("an answer", broker.cancel_at(key.clone())).await);
    let cron = Cron { key: key.clone(), spec: "@every 1s".into(), zone: None, lane: lane.clone(), bytes: "no".into() };
    fatal(within("an answer", broker.put_cron(cron)).await);
    fatal(within("an answer", broker.delete_cron(key.clone())).await);
    fatal(within("an answer", broker.lane(lane.clone())).await);
    let log = RunLog { batch, run: RunId::new('j', 1), message: "no".into() };
    let end = LogEnd { log: log.clone(), version: Version(1), keep: None };
    fatal(within("an answer", broker.append(log.clone(), Version::NONE, "no".into())).await);
    fatal(within("an answer", broker.read_run(log)).await);
    fatal(within("an answer", broker.end(end)).await);
    fatal(within("an answer", broker.read(batch)).await);
    fatal(within("an answer", broker.watch(batch)).await);
    fatal(within("an answer", broker.watch_all()).await);
    fatal(within("an answer", broker.create(key.clone(), "no".into(), None)).await);
    fatal(within("an answer", broker.update(key.clone(), Revision(1), "no".into(), None)).await);
    fatal(within("an answer", broker.delete(key.clone(), Revision(1))).await);
    fatal(within("an answer", broker.get(key.clone())).await);
    fatal(within("an answer", broker.watch_key(key, None)).await);
    fatal(within("an answer", broker.bury(queue.clone(), "id".into(), "no".into())).await);
    fatal(within("an answer", broker.dead(None, 0, 1)).await);
    fatal(within("an answer", broker.dead_at(1)).await);
    fatal(within("an answer", broker.delete_dead(1)).await);
    fatal(within("an answer", broker.stats(lane)).await);
    fatal(within("an answer", broker.pause(queue.clone(), long())).await);
    fatal(within("an answer", broker.resume(queue.clone())).await);
    fatal(within("an answer", broker.paused(queue)).await);
}

/// A queue stays held over a restart, also for lanes made after it.
pub async fn a_pause_stands_after_a_restart(rig: &dyn Rig) {
    let broker = rig.open().await;
    let lane = lane();
    let end = long();
    publish_each(&broker, vec![message(&lane, "held")]).await;
    pause(&broker, &lane.queue, end).await;
    drop(broker);
    rig.restart(Duration::ZERO).await;

    let broker = rig.open().await;
    assert_eq!(paused(&broker, &lane.queue).await, Some(end));
    let urgent = Lane { priority: Priority::High, ..lane.clone() };
    publish_each(&broker, vec![message(&urgent, "held")]).await;
    let (mut taker, mut urgent) = (Taker::open(&broker, &lane).await, Taker::open(&broker, &urgent).await);
    tokio::join!(taker.nothing(A_WHILE), urgent.nothing(A_WHILE));
    resume(&broker, &lane.queue).await;
    taker.take().await.lease.ack(None);
    urgent.take().await.lease.ack(None);
}
