//! Schedules: never early, at least once, one a key; crons tick.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::try_join_all;
use wf_schema::{Lane, Millis, now};

use super::Rig;
use super::names::{key, lane, message, noise, texts};
use super::patience::{A_WHILE, let_pass, within};
use super::publish::{fill, publish_each};
use super::taker::Taker;
use crate::{Broker, BrokerError, Cron, Delivery, Key, Scheduled};

/// Long enough for anything that is due to have come, brokers that look for it once a second included.
const A_TICK: Duration = Duration::from_millis(1_500);

fn scheduled(lane: &Lane, key: &Key, due: Millis, bytes: impl Into<Bytes>) -> Scheduled {
    Scheduled { lane: lane.clone(), key: key.clone(), due, bytes: bytes.into() }
}

fn cron(lane: &Lane, key: &Key, spec: &str, bytes: &'static str) -> Cron {
    Cron { key: key.clone(), spec: spec.into(), zone: None, lane: lane.clone(), bytes: bytes.into() }
}

pub(super) async fn publish_at(broker: &Arc<dyn Broker>, lane: &Lane, key: &Key, due: Millis, bytes: impl Into<Bytes>) {
    within("the schedule is stored", broker.publish_at(scheduled(lane, key, due, bytes))).await.unwrap();
}

async fn put(broker: &Arc<dyn Broker>, cron: Cron) {
    within("the cron is stored", broker.put_cron(cron)).await.unwrap();
}

/// What the firing stands for.
fn tick(delivery: &Delivery, key: &Key) -> Millis {
    let fired = delivery.fired.as_ref().expect("a firing says which it is");
    assert_eq!(fired.key, *key);
    fired.tick
}

/// A scheduled message comes in its lane when it is due, not before, as it was published.
pub async fn it_comes_when_due_and_not_before(rig: &dyn Rig) {
    let broker = rig.open().await;
    let lane = lane();
    let mut taker = Taker::open(&broker, &lane).await;
    let due = now() + 1_300;
    let bytes = noise(3_000);
    publish_at(&broker, &lane, &key("at"), due, bytes.clone()).await;

    let delivery = taker.take().await;
    assert!(now() >= due, "it came {} ms early", due - now());
    assert_eq!((&delivery.lane, &delivery.bytes, delivery.delivered, &delivery.fired), (&lane, &bytes, 1, &None));
    delivery.lease.ack(None);
    taker.nothing(A_TICK).await;
}

/// One that falls due does not bring those along that fall due soon after.
pub async fn none_comes_early_along_with_another(rig: &dyn Rig) {
    let broker = rig.open().await;
    let lane = lane();
    let mut taker = Taker::open(&broker, &lane).await;
    let first = now() + 500;
    let all = (0..50).map(|n| first + 40 * n).map(|due| broker.publish_at(scheduled(&lane, &key("at"), due, due.to_string())));
    within("all are stored", try_join_all(all)).await.unwrap();
    let mut came = HashSet::new();
    while came.len() < 50 {
        let delivery = taker.take().await;
        let due: Millis = std::str::from_utf8(&delivery.bytes).unwrap().parse().unwrap();
        assert!(now() >= due, "one came {} ms early", due - now());
        delivery.lease.ack(None);
        came.insert(due);
    }
}

/// A time that has passed means now, however long ago it passed.
pub async fn a_time_that_has_passed_means_now(rig: &dyn Rig) {
    let broker = rig.open().await;
    let lane = lane();
    let mut taker = Taker::open(&broker, &lane).await;
    for due in [now(), now() - 3_600_000, 0] {
        publish_at(&broker, &lane, &key("at"), due, "late").await;
        taker.take().await.lease.ack(None);
    }
}

/// Many that fall due together all come.
pub async fn many_may_be_due_together(rig: &dyn Rig) {
    let broker = rig.open().await;
    let lane = lane();
    let due = now() + 1_000;
    let all = texts(200).into_iter().map(|text| broker.publish_at(scheduled(&lane, &key("at"), due, text)));
    within("all are stored", try_join_all(all)).await.unwrap();
    Taker::open(&broker, &lane).await.ack_until_all(&texts(200)).await;
}

/// Another of the same key replaces what is not due yet, also with another time and in another lane.
pub async fn another_of_the_same_key_replaces_it(rig: &dyn Rig) {
    let broker = rig.open().await;
    let (old, new) = (lane(), lane());
    let (key, moved) = (key("at"), key("at"));
    let (mut from_old, mut from_new) = (Taker::open(&broker, &old).await, Taker::open(&broker, &new).await);

    publish_at(&broker, &new, &key, now() + 2_000, "old").await;
    publish_at(&broker, &new, &key, now() + 1_000, "new").await;
    publish_at(&broker, &old, &moved, now() + 2_000, "old").await;
    publish_at(&broker, &new, &moved, now() + 1_000, "new, moved").await;
    let came = from_new.ack_until_all(&["new", "new, moved"].map(Bytes::from)).await;
    assert_eq!(came.len(), 2, "{came:?}");
    tokio::join!(from_old.nothing(2 * A_TICK), from_new.nothing(2 * A_TICK));
}

/// A key that has fired can be used again, and what has fired stays.
pub async fn a_key_can_be_used_again(rig: &dyn Rig) {
    let broker = rig.open().await;
    let lane = lane();
    let key = key("at");
    let mut taker = Taker::open(&broker, &lane).await;
    publish_at(&broker, &lane, &key, 0, "first").await;
    let first = taker.take().await;
    publish_at(&broker, &lane, &key, 0, "second").await;
    let second = taker.take().await;
    assert_eq!((&first.bytes[..], &second.bytes[..]), (&b"first"[..], &b"second"[..]));
    assert_ne!(first.run, second.run);
    second.lease.ack(None);
    first.lease.release(Duration::ZERO);
    assert_eq!(taker.take().await.bytes, "first");
}

/// What is scheduled again just as it was changes nothing, also when it has fired.
pub async fn a_repetition_does_not_fire_again(rig: &dyn Rig) {
    let broker = rig.open().await;
    let lane = lane();
    let (repeated, marker) = (key("at"), key("at"));
    let mut taker = Taker::open(&broker, &lane).await;
    let due = now();
    publish_at(&broker, &lane, &repeated, due, "once").await;
    let first = taker.take().await;
    assert_eq!(first.bytes, "once");
    first.lease.ack(None);
    publish_at(&broker, &lane, &repeated, due, "once").await;
    publish_at(&broker, &lane, &marker, due, "marker").await;
    let delivery = taker.take().await;
    assert_eq!(delivery.bytes, "marker");
    delivery.lease.ack(None);
    taker.nothing(A_TICK).await;
}

/// What was cancelled does not come; there being nothing to cancel is success; what has fired stays.
pub async fn what_was_cancelled_does_not_come(rig: &dyn Rig) {
    let broker = rig.open().await;
    let lane = lane();
    let (cancelled, fired, kept) = (key("at"), key("at"), key("at"));
    let mut taker = Taker::open(&broker, &lane).await;
    publish_at(&broker, &lane, &cancelled, now() + 1_000, "cancelled").await;
    publish_at(&broker, &lane, &kept, now() + 1_000, "kept").await;
    publish_at(&broker, &lane, &fired, 0, "fired").await;
    let delivery = taker.take().await;
    for key in [cancelled, key("never-used"), fired] {
        within("cancelled", broker.cancel_at(key)).await.unwrap();
    }
    delivery.lease.release(Duration::ZERO);
    let came = taker.ack_until_all(&["fired", "kept"].map(Bytes::from)).await;
    assert_eq!(came.len(), 2, "{came:?}");
    taker.nothing(A_TICK).await;
}

/// What is scheduled again after it was cancelled is new, however like it is to what was cancelled; and one that repeats
/// that is a repetition again.
pub async fn what_was_cancelled_can_be_scheduled_again(rig: &dyn Rig) {
    let broker = rig.open().await;
    let lane = lane();
    let (again, twice, cancelled) = (key("at"), key("at"), key("at"));
    let mut taker = Taker::open(&broker, &lane).await;
    let due = now() + 1_500;
    let cancel = async |key: &Key| within("cancelled", broker.cancel_at(key.clone())).await.unwrap();
    for (key, bytes) in [(&again, "again"), (&twice, "twice"), (&cancelled, "cancelled")] {
        publish_at(&broker, &lane, key, due, bytes).await;
        cancel(key).await;
    }
    for _ in 0..2 {
        publish_at(&broker, &lane, &again, due, "again").await;
    }
    publish_at(&broker, &lane, &twice, due, "twice").await;
    cancel(&twice).await;
    publish_at(&broker, &lane, &twice, due, "twice").await;
    publish_at(&broker, &lane, &cancelled, due, "cancelled").await;
    cancel(&cancelled).await;
    let came = taker.ack_until_all(&["again", "twice"].map(Bytes::from)).await;
    assert_eq!(came.len(), 2, "{came:?}");
    // Also once it has fired.
    publish_at(&broker, &lane, &again, due, "again").await;
    taker.nothing(A_TICK).await;
    cancel(&again).await;
    publish_at(&broker, &lane, &again, due, "again").await;
    let delivery = taker.take().await;
    assert_eq!(delivery.bytes, "again");
    delivery.lease.ack(None);
    taker.nothing(A_TICK).await;
}

/// The bounds are those of a publish.
pub async fn what_is_too_large_is_refused(rig: &dyn Rig) {
    let broker = rig.open().await;
    let limit = broker.max_message();
    let large = scheduled(&lane(), &key("at"), now() + 60_000, noise(limit + 1));
    let answer = within("an answer", broker.publish_at(large.clone())).await;
    assert!(matches!(answer, Err(BrokerError::TooLarge { .. })), "{answer:?}");
    let cron = Cron { key: key("cron"), spec: "@every 1h".into(), zone: None, lane: large.lane, bytes: large.bytes };
    let answer = within("an answer", broker.put_cron(cron)).await;
    assert!(matches!(answer, Err(BrokerError::TooLarge { .. })), "{answer:?}");
}

/// A full lane holds back neither what falls due in other lanes nor what is redelivered there.
pub async fn a_full_lane_holds_no_schedule_back(rig: &dyn Rig) {
    let broker = rig.open().await;
    let (full, other) = (lane(), lane());
    let mut taker = Taker::open(&broker, &other).await;
    publish_each(&broker, vec![message(&other, "again")]).await;
    taker.take().await.lease.release(Duration::from_secs(1));
    fill(rig, &broker, &full).await;

    // The full lane may take a schedule and deliver it later, or refuse it.
    match within("an answer", broker.publish_at(scheduled(&full, &key("at"), 0, "later"))).await {
        Ok(()) => {}
        Err(BrokerError::Full { lane, .. }) => assert_eq!(lane, full),
        Err(other) => panic!("{other:?}"),
    }
    publish_at(&broker, &other, &key("at"), now() + 1_000, "due").await;
    let ticking = key("cron");
    put(&broker, cron(&other, &ticking, "@every 1s", "tick")).await;
    taker.ack_until_all(&["again", "due", "tick"].map(Bytes::from)).await;
    within("deleted", broker.delete_cron(ticking)).await.unwrap();
}

/// Each firing of a cron is a run of its own, says which tick it is, and keeps saying so over its redelivery; both
/// forms of spec, in any zone.
pub async fn a_cron_ticks(rig: &dyn Rig) {
    let broker = rig.open().await;
    let specs = [("@every 1s", None), ("@every 1s", None), ("* * * * * *", None), ("*/1 * * * * *", Some("Europe/Berlin"))];
    let ticking = (0..).zip(specs).map(|(n, (spec, zone))| {
        let broker = &broker;
        async move {
            // Ticks that follow each other closely are not the same tick.
            let_pass(n * Duration::from_millis(150)).await;
            let (lane, key) = (lane(), key("cron"));
            let mut taker = Taker::open(broker, &lane).await;
            put(broker, Cron { zone: zone.map(Into::into), ..cron(&lane, &key, spec, "tick") }).await;

            let first = taker.take().await;
            assert_eq!((&first.lane, &first.bytes[..], first.delivered), (&lane, &b"tick"[..], 1));
            first.lease.release(Duration::ZERO);
            let (mut ticks, mut runs, mut ids) = (HashSet::new(), HashSet::new(), HashSet::new());
            let mut again = None;
            while ticks.len() < 3 || again.is_none() {
                let delivery = taker.take().await;
                let tick = tick(&delivery, &key);
                assert!(tick <= now(), "the tick at {tick} came {} ms early", tick - now());
                if delivery.run == first.run {
                    assert_eq!((delivery.fired, delivery.fallback_id), (first.fired.clone(), first.fallback_id));
                    again = Some(delivery.delivered);
                } else {
                    assert!(ticks.insert(tick), "two runs stand for the tick at {tick}");
                    assert!(runs.insert(delivery.run) && ids.insert(delivery.fallback_id), "two ticks share a run or an id");
                }
                delivery.lease.ack(None);
            }
            assert!(again > Some(1) && !ticks.contains(&self::tick(&first, &key)));
            within("deleted", broker.delete_cron(key)).await.unwrap();
        }
    });
    futures::future::join_all(ticking).await;
}

/// A cron fires at its ticks and at no other time.
pub async fn a_cron_waits_for_its_tick(rig: &dyn Rig) {
    let broker = rig.open().await;
    let lane = lane();
    let mut taker = Taker::open(&broker, &lane).await;
    let crons = ["@every 90s", "0 0 0 29 2 *"].map(|spec| cron(&lane, &key("cron"), spec, "far off"));
    for cron in &crons {
        put(&broker, cron.clone()).await;
    }
    taker.nothing(A_TICK).await;
    for cron in crons {
        within("deleted", broker.delete_cron(cron.key)).await.unwrap();
    }
}

/// A spec or a zone that cannot be read is refused, and nothing fires.
pub async fn a_cron_that_cannot_be_read_is_refused(rig: &dyn Rig) {
    let broker = rig.open().await;
    let lane = lane();
    let key = key("cron");
    let mut taker = Taker::open(&broker, &lane).await;
    for spec in ["", "soon", "* * * * *", "* * * * * * * *", "99 * * * * *", "@every", "@every 500ms", "@every 0s", "@every -5s"]
    {
        let answer = within("an answer", broker.put_cron(cron(&lane, &key, spec, "no"))).await;
        assert!(matches!(answer, Err(BrokerError::Fatal { .. })), "{spec:?}: {answer:?}");
    }
    for zone in ["Mars/Olympus", "", "../etc"] {
        let cron = Cron { zone: Some(zone.into()), ..cron(&lane, &key, "* * * * * *", "no") };
        let answer = within("an answer", broker.put_cron(cron)).await;
        assert!(matches!(answer, Err(BrokerError::Fatal { .. })), "{zone:?}: {answer:?}");
    }
    taker.nothing(A_TICK).await;
}

/// Another cron of the same key replaces it, also with another spec and in another lane.
pub async fn another_cron_of_the_same_key_replaces_it(rig: &dyn Rig) {
    let broker = rig.open().await;
    let (old, new) = (lane(), lane());
    let key = key("cron");
    let (mut from_old, mut from_new) = (Taker::open(&broker, &old).await, Taker::open(&broker, &new).await);
    put(&broker, cron(&old, &key, "@every 1s", "old")).await;
    from_old.take().await.lease.ack(None);
    put(&broker, cron(&new, &key, "* * * * * *", "new")).await;
    // What fired before the new one was stored may still be on its way.
    let_pass(A_WHILE).await;
    while let Ok(delivery) = tokio::time::timeout(A_WHILE, from_old.next()).await {
        delivery.unwrap().lease.ack(None);
    }
    for _ in 0..2 {
        let delivery = from_new.take().await;
        assert_eq!(delivery.bytes, "new");
        delivery.lease.ack(None);
    }
    from_old.nothing(A_WHILE).await;
    within("deleted", broker.delete_cron(key)).await.unwrap();
}

/// A cron that was deleted fires no more; there being none is success; what has fired stays.
pub async fn a_cron_that_was_deleted_fires_no_more(rig: &dyn Rig) {
    let broker = rig.open().await;
    let lane = lane();
    let key = key("cron");
    let mut taker = Taker::open(&broker, &lane).await;
    put(&broker, cron(&lane, &key, "* * * * * *", "tick")).await;
    let fired = taker.take().await;
    for key in [key.clone(), key, self::key("never-used")] {
        within("deleted", broker.delete_cron(key)).await.unwrap();
    }
    let last = now();
    fired.lease.release(Duration::ZERO);
    let mut stayed = false;
    while let Ok(delivery) = tokio::time::timeout(A_TICK, taker.next()).await {
        let delivery = delivery.unwrap();
        let tick = delivery.fired.as_ref().unwrap().tick;
        assert!(tick <= last, "the tick at {tick} fired after the cron was deleted");
        stayed |= delivery.run == fired.run;
        delivery.lease.ack(None);
    }
    assert!(stayed, "what had fired was lost");
}

/// A schedule is durable: it comes after a restart, whether it fell due meanwhile or falls due later.
pub async fn a_schedule_comes_after_a_restart(rig: &dyn Rig) {
    let broker = rig.open().await;
    let lane = lane();
    let later = now() + 4_000;
    publish_at(&broker, &lane, &key("at"), now() + 1_000, "meanwhile").await;
    publish_at(&broker, &lane, &key("at"), later, "later").await;
    let cancelled = key("at");
    publish_at(&broker, &lane, &cancelled, now() + 2_000, "cancelled").await;
    within("cancelled", broker.cancel_at(cancelled)).await.unwrap();
    drop(broker);
    rig.restart(Duration::from_millis(1_500)).await;

    let broker = rig.open().await;
    let mut taker = Taker::open(&broker, &lane).await;
    let mut missing = HashSet::from(["meanwhile", "later"].map(Bytes::from));
    while !missing.is_empty() {
        let delivery = taker.take().await;
        assert_ne!(delivery.bytes, "cancelled");
        assert!(delivery.bytes != "later" || now() >= later, "it came early");
        missing.remove(&delivery.bytes);
        delivery.lease.ack(None);
    }
}

/// After downtime a cron fires once, not once for each tick that was missed, and goes on.
pub async fn a_cron_fires_once_after_downtime(rig: &dyn Rig) {
    let broker = rig.open().await;
    let lane = lane();
    let key = key("cron");
    put(&broker, cron(&lane, &key, "@every 1s", "tick")).await;
    let mut taker = Taker::open(&broker, &lane).await;
    let first = taker.take().await;
    first.lease.ack(None);
    within("settled", broker.settled()).await.unwrap();
    drop((first, taker, broker));
    let down = now();
    rig.restart(Duration::from_secs(4)).await;

    // It may have ticked once more before it died, and as soon as it was back.
    let missed = down + 1_000..down + 4_000;
    let broker = rig.open().await;
    let mut taker = Taker::open(&broker, &lane).await;
    let mut ticks = HashSet::new();
    while ticks.iter().filter(|&&tick| tick > missed.end).count() < 2 {
        let delivery = taker.take().await;
        ticks.insert(tick(&delivery, &key));
        delivery.lease.ack(None);
    }
    let fired = ticks.iter().filter(|tick| missed.contains(tick)).count();
    assert!(fired <= 1, "{fired} missed ticks were made up for");
    within("deleted", broker.delete_cron(key)).await.unwrap();
}
