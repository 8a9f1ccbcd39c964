//! Leases: kept, lost, given back, and settled late.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::Rig;
use super::names::{lane, message, messages, texts};
use super::patience::{A_WHILE, ROUNDING, let_pass, past_lease, until, within};
use super::publish::publish_each;
use super::taker::{Kept, Taker, contents};

/// The lease is the factory's: every node is told the same.
pub async fn the_lease_is_the_same_for_every_node(rig: &dyn Rig) {
    let nodes = [rig.open().await, rig.open().await];
    assert_eq!(nodes[0].lease(), nodes[1].lease());
    let (least, most) = (Duration::from_secs(1), Duration::from_secs(2));
    assert!((least..=most).contains(&nodes[0].lease()), "the rig is to set a lease of one to two seconds");
}

/// A delivery whose lease runs out unrenewed is delivered again, here or elsewhere, not before; whether its owner
/// still holds it or has dropped it.
pub async fn a_lease_that_runs_out_is_delivered_again(rig: &dyn Rig) {
    let nodes = [rig.open().await, rig.open().await];
    let lane = lane();
    publish_each(&nodes[0], vec![message(&lane, "lost")]).await;
    let mut first = Taker::open(&nodes[0], &lane).await;
    let before = Instant::now();
    let lost = first.take().await;
    drop(first);
    let mut second = Taker::open(&nodes[1], &lane).await;
    let again = second.take().await;
    assert!(before.elapsed() + ROUNDING >= nodes[0].lease(), "it came while it was owned");
    assert_eq!((again.run, again.delivered), (lost.run, 2));
    drop(again);
    assert_eq!(second.take().await.delivered, 3);
}

/// A delivery that is kept renewed is not delivered again, however long it takes, and can be acknowledged then.
pub async fn a_renewed_lease_is_kept(rig: &dyn Rig) {
    let nodes = [rig.open().await, rig.open().await];
    let lane = lane();
    publish_each(&nodes[0], messages(&lane, 20)).await;
    let (mut owner, mut other) = (Taker::open(&nodes[0], &lane).await, Taker::without_credit(&nodes[1], &lane).await);
    let taken = owner.take_many(20).await;
    let kept = Kept::new(&nodes[0], &taken);
    other.grant(100, 1 << 20);
    tokio::join!(owner.nothing(3 * nodes[0].lease()), other.nothing(3 * nodes[0].lease()));
    taken.iter().for_each(|delivery| delivery.lease.ack(None));
    drop(kept);
    within("settled", nodes[0].settled()).await.unwrap();
    other.nothing(past_lease(&*nodes[0])).await;
}

/// A renewal gives the full lease from then on, and no more: once renewals stop, the delivery comes again.
pub async fn a_lease_is_kept_no_longer_than_it_is_renewed(rig: &dyn Rig) {
    let broker = rig.open().await;
    let lane = lane();
    publish_each(&broker, messages(&lane, 1)).await;
    let mut taker = Taker::open(&broker, &lane).await;
    let delivery = taker.take().await;
    let_pass(broker.lease() / 2).await;
    let renewed = Instant::now();
    delivery.lease.renew();
    assert_eq!(taker.take().await.delivered, 2);
    assert!(renewed.elapsed() + ROUNDING >= broker.lease(), "the renewed lease was cut short");
}

/// What was acknowledged does not come again.
pub async fn what_was_acknowledged_is_gone(rig: &dyn Rig) {
    let (broker, other) = (rig.open().await, rig.open().await);
    let lane = lane();
    within("nothing to wait for", broker.settled()).await.unwrap();
    publish_each(&broker, messages(&lane, 500)).await;
    let mut taker = Taker::open(&broker, &lane).await;
    taker.ack_until_all(&texts(500)).await;
    drop(taker);
    within("settled", broker.settled()).await.unwrap();
    Taker::open(&other, &lane).await.nothing(past_lease(&*broker)).await;
}

/// What was released comes again, anywhere, at once if so asked, and counts as delivered once more.
pub async fn what_was_released_comes_again(rig: &dyn Rig) {
    let (broker, other) = (rig.open().await, rig.open().await);
    let lane = lane();
    publish_each(&broker, messages(&lane, 50)).await;
    let mut taker = Taker::open(&broker, &lane).await;
    let taken = taker.take_many(50).await;
    // It has credit left. What it has asked for is still with a broker that is reached over a connection when it is
    // dropped, and what is released meanwhile would pass through it and count once more.
    drop(taker);
    let gone = async || other.stats(lane.clone()).await.ok().filter(|stats| stats.waiting == 0);
    until("the dropped source waits no more", gone).await;
    let mut taker = Taker::open(&other, &lane).await;
    taken.iter().for_each(|delivery| delivery.lease.release(Duration::ZERO));
    within("settled", broker.settled()).await.unwrap();
    let again = taker.take_many(50).await;
    assert_eq!(contents(&again), texts(50));
    let counts: Vec<_> = again.iter().map(|delivery| delivery.delivered).collect();
    assert!(counts.iter().all(|delivered| *delivered == 2), "{counts:?}");
}

/// What was released with a delay does not come before, also when the delay is longer than the lease; others of its
/// lane come meanwhile.
pub async fn a_release_with_a_delay_is_not_early(rig: &dyn Rig) {
    let broker = rig.open().await;
    let lane = lane();
    publish_each(&broker, vec![message(&lane, "later")]).await;
    let mut taker = Taker::open(&broker, &lane).await;
    let delay = broker.lease() + Duration::from_millis(700);
    let delivery = taker.take().await;
    let released = Instant::now();
    delivery.lease.release(delay);
    publish_each(&broker, vec![message(&lane, "meanwhile")]).await;
    let meanwhile = taker.take().await;
    assert_eq!(meanwhile.bytes, "meanwhile");
    meanwhile.lease.ack(None);

    let again = taker.take().await;
    assert!(released.elapsed() >= delay, "it came after {:?} of {delay:?}", released.elapsed());
    assert_eq!((again.run, again.delivered), (delivery.run, 2));
}

/// The first settling of a delivery counts; what is asked of it afterwards is ignored.
pub async fn a_second_settling_is_ignored(rig: &dyn Rig) {
    let broker = rig.open().await;
    let lane = lane();
    publish_each(&broker, vec![message(&lane, "acknowledged"), message(&lane, "released")]).await;
    let mut taker = Taker::open(&broker, &lane).await;
    for delivery in taker.take_many(2).await {
        let twin = delivery.clone();
        if delivery.bytes == "acknowledged" {
            delivery.lease.ack(None);
            twin.lease.release(Duration::ZERO);
            twin.lease.renew();
            twin.lease.ack(None);
        } else {
            delivery.lease.release(Duration::from_millis(300));
            twin.lease.ack(None);
            twin.lease.renew();
            twin.lease.release(Duration::from_secs(3_600));
        }
    }
    within("settled", broker.settled()).await.unwrap();
    let again = taker.take().await;
    assert_eq!((&again.bytes[..], again.delivered), (&b"released"[..], 2));
    again.lease.ack(None);
    taker.nothing(past_lease(&*broker)).await;
}

/// A late ack may remove the message it is about, and loses no other.
pub async fn a_late_ack_loses_nothing_else(rig: &dyn Rig) {
    let nodes = [rig.open().await, rig.open().await];
    let lane = lane();
    publish_each(&nodes[0], vec![message(&lane, "late"), message(&lane, "other")]).await;
    let late = Taker::open(&nodes[0], &lane).await.take_many(2).await;
    let mut taker = Taker::open(&nodes[1], &lane).await;
    let again = taker.take_many(2).await;
    assert_eq!(contents(&again), contents(&late));

    late.iter().filter(|delivery| delivery.bytes == "late").for_each(|delivery| delivery.lease.ack(None));
    within("no error", nodes[0].settled()).await.unwrap();
    // The new owner settles what it has, as if nothing had happened.
    for delivery in again {
        match &delivery.bytes[..] {
            b"late" => delivery.lease.ack(None),
            _ => delivery.lease.release(Duration::ZERO),
        }
    }
    within("no error", nodes[1].settled()).await.unwrap();
    taker.ack_until_all(&[Bytes::from_static(b"other")]).await;
}

/// A late renew may prolong the other's lease, but only so long: a message that nobody acknowledges comes again.
pub async fn a_late_renew_loses_nothing(rig: &dyn Rig) {
    let nodes = [rig.open().await, rig.open().await];
    let lane = lane();
    publish_each(&nodes[0], messages(&lane, 1)).await;
    let late = Taker::open(&nodes[0], &lane).await.take().await;
    let mut taker = Taker::open(&nodes[1], &lane).await;
    let again = taker.take().await;
    late.lease.renew();
    within("no error", nodes[0].settled()).await.unwrap();
    let third = taker.take().await;
    assert_eq!((third.run, third.delivered), (again.run, 3));
    third.lease.ack(None);
    // Nor does a renewal bring back what is gone.
    within("settled", nodes[1].settled()).await.unwrap();
    late.lease.renew();
    again.lease.renew();
    taker.nothing(past_lease(&*nodes[1])).await;
}

/// A late release may hand the message on, but does not lose it: a message that nobody acknowledges comes again.
pub async fn a_late_release_loses_nothing(rig: &dyn Rig) {
    let nodes = [rig.open().await, rig.open().await];
    let lane = lane();
    publish_each(&nodes[0], messages(&lane, 1)).await;
    let late = Taker::open(&nodes[0], &lane).await.take().await;
    let mut taker = Taker::open(&nodes[1], &lane).await;
    let again = taker.take().await;
    assert_eq!((again.run, again.delivered), (late.run, 2));
    late.lease.release(Duration::ZERO);
    within("no error", nodes[0].settled()).await.unwrap();
    let third = taker.take().await;
    assert_eq!(third.run, late.run);
    third.lease.ack(None);
    within("settled", nodes[1].settled()).await.unwrap();
    // What was acknowledged is not brought back by a release that comes too late.
    again.lease.release(Duration::ZERO);
    taker.nothing(past_lease(&*nodes[1])).await;
}

/// Closing waits for what was acknowledged, and leaves what is owned to its lease.
pub async fn closing_keeps_what_is_owned_on_its_lease(rig: &dyn Rig) {
    let broker = rig.open().await;
    let lane = lane();
    publish_each(&broker, messages(&lane, 20)).await;
    let mut taker = Taker::open(&broker, &lane).await;
    let taken = taker.take_many(20).await;
    let (done, owned): (Vec<_>, Vec<_>) = taken.into_iter().partition(|delivery| delivery.bytes[3] % 2 == 0);
    done.iter().for_each(|delivery| delivery.lease.ack(None));
    within("closed", broker.close()).await.unwrap();
    let left = contents(&owned);
    drop((taker, done, owned, broker));
    rig.restart(Duration::ZERO).await;

    let broker = rig.open().await;
    let mut taker = Taker::open(&broker, &lane).await;
    let again = taker.take_many(10).await;
    assert_eq!(contents(&again), left);
    let _kept = Kept::new(&broker, &again);
    taker.nothing(A_WHILE).await;
}

/// What was acknowledged and settled does not come again, also after a restart; what was not does.
pub async fn what_was_settled_stays_settled_over_a_restart(rig: &dyn Rig) {
    let broker = rig.open().await;
    let lane = lane();
    publish_each(&broker, messages(&lane, 300)).await;
    let mut taker = Taker::open(&broker, &lane).await;
    let taken = taker.take_many(300).await;
    let (done, left): (Vec<_>, Vec<_>) = taken.into_iter().partition(|delivery| delivery.bytes[3] % 2 == 0);
    done.iter().for_each(|delivery| delivery.lease.ack(None));
    within("settled", broker.settled()).await.unwrap();
    let left_contents = contents(&left);
    drop((taker, done, left, broker));
    rig.restart(Duration::ZERO).await;

    let broker = rig.open().await;
    let mut taker = Taker::open(&broker, &lane).await;
    let came = taker.ack_until_all(&left_contents).await;
    assert_eq!(came.len(), left_contents.len(), "what was settled came again");
    within("settled", broker.settled()).await.unwrap();
    taker.nothing(past_lease(&*broker)).await;
}
