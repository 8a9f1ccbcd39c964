//! Traces: what was stored is found wherever it is, and what was not is known not to be.

use std::sync::Arc;
use std::time::Duration;

use wf_schema::{BatchId, Lane, Millis, now};

use super::Rig;
use super::names::{lane, message};
use super::outcome_log::flood;
use super::patience::within;
use super::publish::publish_each;
use super::schedule::publish_at;
use super::taker::Taker;
use crate::{Broker, Delivery, Key, LogEnd, Message, RunLog, Trace, Traced, Version};

const LONG: Duration = Duration::from_secs(10);

/// A message for `lane` that is called `id`.
fn called(lane: &Lane, id: impl ToString) -> Message {
    Message { lane: lane.clone(), id: id.to_string().into(), bytes: "a message".into() }
}

/// How to find what is called `id` and belongs to `batch`.
fn one(lane: &Lane, batch: BatchId, id: impl ToString, later: bool) -> Trace {
    Trace { lane: lane.clone(), batch, id: Some(id.to_string().into()), later, since: now() }
}

/// How to find anything of `batch`.
fn any(lane: &Lane, batch: BatchId) -> Trace {
    Trace { lane: lane.clone(), batch, id: None, later: false, since: now() }
}

async fn trace(broker: &Arc<dyn Broker>, wanted: &[Trace]) -> Vec<Traced> {
    within("an answer", broker.trace(wanted.to_vec(), LONG)).await.unwrap()
}

/// Settles a run of `batch` as an executor does, with its end remembered.
async fn settle(broker: &Arc<dyn Broker>, batch: BatchId, delivery: &Delivery) {
    let log = RunLog { batch, run: delivery.run, message: delivery.id.clone() };
    let version = broker.append(log.clone(), Version::NONE, "a record".into()).await.unwrap();
    delivery.lease.ack(Some(LogEnd { log, version, keep: Some(Duration::from_secs(60)) }));
    within("settled", broker.settled()).await.unwrap();
}

/// A message is found while it waits, while somebody has it, and once its run has ended. One of the same batch that was
/// not stored is not taken for it, and neither is one of another lane.
pub async fn a_message_is_found_from_its_lane_to_its_end(rig: &dyn Rig) {
    let broker = rig.open().await;
    let (here, elsewhere, batch) = (lane(), lane(), BatchId::new());
    let other = format!("{batch}.7");
    let wanted = [
        one(&here, batch, batch, false),
        one(&here, batch, &other, false),
        one(&here, BatchId::new(), "no-such-message", false),
        one(&elsewhere, batch, batch, false),
    ];
    assert_eq!(trace(&broker, &wanted).await, [Traced::Absent; 4]);
    let around = (0..20).map(|n| message(&here, format!("{n}"))).collect();
    publish_each(&broker, around).await;
    publish_each(&broker, vec![called(&here, batch)]).await;
    let is = async |first: Traced| {
        assert_eq!(trace(&broker, &wanted).await, [first, Traced::Absent, Traced::Absent, Traced::Absent]);
    };
    is(Traced::Stored).await;
    let taken = Taker::open(&broker, &here).await.take_many(21).await;
    is(Traced::Stored).await;
    for delivery in &taken {
        if *delivery.id == batch.to_string() {
            settle(&broker, batch, delivery).await;
        } else {
            delivery.lease.ack(None);
        }
    }
    within("settled", broker.settled()).await.unwrap();
    // The lane does not matter once it is gone.
    assert_eq!(trace(&broker, &wanted).await, [Traced::Ended, Traced::Absent, Traced::Absent, Traced::Ended]);
}

/// A message for later is found until its time, in its lane, and once its run has ended.
pub async fn a_schedule_is_found_wherever_it_is(rig: &dyn Rig) {
    let broker = rig.open().await;
    let lane = lane();
    let (far, near, cancelled) = (BatchId::new(), BatchId::new(), BatchId::new());
    let key = |batch: BatchId| Key::new(&batch.to_string()).unwrap();
    let wanted = [far, near, cancelled, BatchId::new()].map(|batch| one(&lane, batch, batch, true));
    for (batch, due) in [(far, now() + 600_000), (near, now() + 1_000), (cancelled, now() + 600_000)] {
        publish_at(&broker, &lane, &key(batch), due, "later").await;
    }
    assert_eq!(trace(&broker, &wanted).await, [Traced::Stored, Traced::Stored, Traced::Stored, Traced::Absent]);
    broker.cancel_at(key(cancelled)).await.unwrap();
    let delivery = Taker::open(&broker, &lane).await.take().await;
    let [_, fired, gone, never] = trace(&broker, &wanted).await[..] else { panic!("an answer is missing") };
    // A broker may know that it was stored and taken back.
    assert_eq!((fired, never), (Traced::Stored, Traced::Absent));
    assert_ne!(gone, Traced::Stored);
    settle(&broker, near, &delivery).await;
    assert_eq!(trace(&broker, &wanted[..2]).await, [Traced::Stored, Traced::Ended]);
}

/// A batch is found as long as any message of it is stored, under its id or under names that begin with it.
pub async fn a_batch_is_found_as_long_as_anything_of_it_is_stored(rig: &dyn Rig) {
    let broker = rig.open().await;
    let lane = lane();
    let (whole, part, retried, later, ended) = (BatchId::new(), BatchId::new(), BatchId::new(), BatchId::new(), BatchId::new());
    let none = BatchId::new();
    let wanted = [whole, part, retried, later, ended, none].map(|batch| any(&lane, batch));
    publish_each(&broker, vec![called(&lane, ended)]).await;
    settle(&broker, ended, &Taker::open(&broker, &lane).await.take().await).await;
    let names = [whole.to_string(), format!("{part}.12"), format!("{retried}.j7.0.0.3")];
    publish_each(&broker, names.iter().map(|name| called(&lane, name)).collect()).await;
    let key = Key::new(&format!("{later}.j8.1.1795323672000.0")).unwrap();
    publish_at(&broker, &lane, &key, now() + 1_000, "a retry").await;
    let stored = [Traced::Stored; 4];
    let is = async |wanted_now: [Traced; 6]| assert_eq!(trace(&broker, &wanted).await, wanted_now);
    is([stored[0], stored[1], stored[2], stored[3], Traced::Ended, Traced::Absent]).await;
    let taken = Taker::open(&broker, &lane).await.take_many(4).await;
    is([stored[0], stored[1], stored[2], stored[3], Traced::Ended, Traced::Absent]).await;
    for delivery in taken {
        let batch = delivery.id.split('.').next().unwrap().parse().unwrap();
        settle(&broker, batch, &delivery).await;
    }
    is([Traced::Ended, Traced::Ended, Traced::Ended, Traced::Ended, Traced::Ended, Traced::Absent]).await;
}

/// Where there is no time to look, nothing is said to be absent.
pub async fn what_was_not_looked_at_is_unknown(rig: &dyn Rig) {
    let broker = rig.open().await;
    let (lane, batch) = (lane(), BatchId::new());
    publish_each(&broker, (0..100).map(|n| message(&lane, format!("{n}"))).collect()).await;
    let wanted = vec![one(&lane, batch, batch, false), one(&lane, batch, batch, true)];
    let traced = within("an answer", broker.trace(wanted, Duration::ZERO)).await.unwrap();
    assert_eq!(traced, [Traced::Unknown; 2]);
    assert_eq!(within("an answer", broker.trace(Vec::new(), LONG)).await.unwrap(), []);
}

/// Outcomes are said to be kept from a time on, which moves once some were dropped.
pub async fn outcomes_are_kept_from_a_time_on(rig: &dyn Rig) {
    let broker = rig.open().await;
    let began: Millis = now();
    assert!(within("an answer", broker.kept_since()).await.unwrap() <= began);
    flood(rig, &broker).await;
    flood(rig, &broker).await;
    let dropped = async || broker.kept_since().await.ok().filter(|since| *since > began);
    super::patience::until("some were dropped", dropped).await;
}

/// What was stored is found after a restart, wherever it is.
pub async fn what_was_stored_is_found_after_a_restart(rig: &dyn Rig) {
    let broker = rig.open().await;
    let lane = lane();
    let (waits, later, ended, never) = (BatchId::new(), BatchId::new(), BatchId::new(), BatchId::new());
    let wanted = [
        one(&lane, waits, waits, false),
        one(&lane, later, later, true),
        one(&lane, ended, ended, false),
        one(&lane, never, never, false),
    ];
    publish_each(&broker, vec![called(&lane, ended)]).await;
    settle(&broker, ended, &Taker::open(&broker, &lane).await.take().await).await;
    publish_each(&broker, vec![called(&lane, waits)]).await;
    publish_at(&broker, &lane, &Key::new(&later.to_string()).unwrap(), now() + 600_000, "later").await;
    drop(broker);
    rig.restart(Duration::ZERO).await;
    let broker = rig.open().await;
    assert_eq!(trace(&broker, &wanted).await, [Traced::Stored, Traced::Stored, Traced::Ended, Traced::Absent]);
}
