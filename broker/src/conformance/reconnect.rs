//! Connections that break: mended inside, seen only as a wait or as `Retryable`.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::join_all;
use wf_schema::BatchId;

use super::Rig;
use super::names::{key, lane, message, messages, texts};
use super::outcome_log::{hinted, open_run, read};
use super::patience::{A_WHILE, past_lease, until, within};
use super::publish::publish_each;
use super::taker::{Kept, Taker, contents};
use crate::{Broker, BrokerError, Message, Version};

/// How long the broker is away in most cases.
const AWAY: Duration = Duration::from_secs(1);

/// Publishes `message` until it is stored, as a producer does, with the same id.
async fn publish_until_stored(broker: &Arc<dyn Broker>, message: Message) {
    let stored = async || match broker.publish(message.clone()).await {
        Ok(_) => Some(()),
        Err(error @ BrokerError::Retryable { .. }) => {
            assert!(error.is_retryable());
            None
        }
        Err(error) => panic!("a broker that is away is not {error:?}"),
    };
    until("the message is stored", stored).await;
}

/// A source that is kept over a restart goes on, with the credit it had.
pub async fn a_source_goes_on_after_a_restart(rig: &dyn Rig) {
    let broker = rig.open().await;
    let lane = lane();
    let mut taker = Taker::without_credit(&broker, &lane).await;
    taker.grant(500, 1 << 20);
    publish_each(&broker, messages(&lane, 10)).await;
    taker.ack_until_all(&texts(10)).await;
    within("settled", broker.settled()).await.unwrap();
    for round in ["first", "second"] {
        rig.restart(AWAY).await;
        let all = (0..20).map(|n| publish_until_stored(&broker, message(&lane, format!("{round} {n}"))));
        join_all(all).await;
        let wanted: Vec<Bytes> = (0..20).map(|n| format!("{round} {n}").into()).collect();
        taker.ack_until_all(&wanted).await;
    }
}

/// Credit is neither lost nor doubled by a restart.
pub async fn credit_is_the_same_after_a_restart(rig: &dyn Rig) {
    let broker = rig.open().await;
    let lane = lane();
    let mut taker = Taker::without_credit(&broker, &lane).await;
    taker.grant(5, 1 << 20);
    taker.nothing(A_WHILE).await;
    rig.restart(AWAY).await;
    join_all(messages(&lane, 10).into_iter().map(|message| publish_until_stored(&broker, message))).await;
    let taken = taker.take_many(5).await;
    let _kept = Kept::new(&broker, &taken);
    taker.nothing(past_lease(&*broker)).await;
    taker.grant(2, 0);
    taker.take_many(2).await;
    taker.nothing(A_WHILE).await;
}

/// Sources that wait while the broker is away are not told: what waits in the store comes, lane by lane.
pub async fn waiting_sources_only_wait_longer(rig: &dyn Rig) {
    let broker = rig.open().await;
    let lanes = [lane(), lane(), lane()];
    let mut takers = Vec::new();
    for lane in &lanes {
        takers.push(Taker::open(&broker, lane).await);
    }
    let waiting = join_all(takers.iter_mut().map(|taker| taker.take()));
    let publishing = async {
        rig.restart(AWAY).await;
        for lane in &lanes {
            publish_until_stored(&broker, message(lane, lane.to_string())).await;
        }
    };
    let (deliveries, ()) = tokio::join!(waiting, publishing);
    for (lane, delivery) in lanes.iter().zip(deliveries) {
        assert_eq!(delivery.bytes, lane.to_string());
    }
}

/// Publishes under way when the broker dies are stored, or say that they may be tried again: none is lost, none is
/// called fatal.
pub async fn publishes_under_way_are_not_lost(rig: &dyn Rig) {
    let broker = rig.open().await;
    let lane = lane();
    let publishing = messages(&lane, 400).into_iter().map(|message| publish_until_stored(&broker, message));
    tokio::join!(rig.restart(AWAY), join_all(publishing));
    Taker::open(&broker, &lane).await.ack_until_all(&texts(400)).await;
}

/// What is acknowledged while the broker is away is confirmed once it is back, and does not come again then. A broker
/// that has lost the delivery itself delivers anew before that; its acks do not stay unconfirmed for ever either.
pub async fn acks_are_repeated_until_answered(rig: &dyn Rig) {
    let broker = rig.open().await;
    let lane = lane();
    publish_each(&broker, messages(&lane, 100)).await;
    let mut taker = Taker::without_credit(&broker, &lane).await;
    taker.grant(100, 1 << 20);
    let taken = taker.take_many(100).await;
    let acknowledging = async {
        // Some on their way when it dies, some while it is away.
        for delivery in &taken {
            delivery.lease.ack(None);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::join!(rig.restart(AWAY), acknowledging);
    let mut taker = Taker::open(&broker, &lane).await;
    let again = async {
        loop {
            taker.next().await.unwrap().lease.ack(None);
        }
    };
    tokio::select! {
        () = until("settled", async || broker.settled().await.ok()) => {}
        () = again => {}
    }
    taker.nothing(past_lease(&*broker)).await;
}

/// What is released while the broker is away comes again.
pub async fn what_is_released_meanwhile_comes_again(rig: &dyn Rig) {
    let broker = rig.open().await;
    let lane = lane();
    publish_each(&broker, messages(&lane, 20)).await;
    let mut taker = Taker::without_credit(&broker, &lane).await;
    taker.grant(20, 1 << 20);
    let taken = taker.take_many(20).await;
    let releasing = async { taken.iter().for_each(|delivery| delivery.lease.release(Duration::ZERO)) };
    tokio::join!(rig.restart(AWAY), releasing);
    within("settled", broker.settled()).await.unwrap();
    taker.grant(100, 1 << 20);
    let came = taker.ack_until_all(&contents(&taken)).await;
    assert_eq!(came.len(), 20);
}

/// What is asked while the broker is away is answered late, or is retryable; and works again when it is back.
pub async fn what_is_asked_meanwhile_is_retryable(rig: &dyn Rig) {
    let broker = rig.open().await;
    let (lane, key, batch) = (lane(), key("meanwhile"), BatchId::new());
    let started = Instant::now();
    let asking = async {
        // Until well after it is back.
        while started.elapsed() < 2 * AWAY {
            let answers = tokio::join!(
                async { broker.ping().await.err() },
                async { broker.get(key.clone()).await.err() },
                async { broker.read(batch).await.err() },
                async { broker.stats(lane.clone()).await.err() },
                async { broker.paused(lane.queue.clone()).await.err() },
                async { broker.dead(Some(lane.queue.clone()), 0, 1).await.err() },
                async { broker.cancel_at(key.clone()).await.err() },
            );
            let errors: Vec<_> =
                [answers.0, answers.1, answers.2, answers.3, answers.4, answers.5, answers.6].into_iter().flatten().collect();
            assert!(errors.iter().all(|error| matches!(error, BrokerError::Retryable { .. })), "{errors:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within("answers", async { tokio::join!(rig.restart(AWAY), asking) }).await;
    until("it works again", async || broker.ping().await.ok()).await;
    until("it works again", async || broker.get(key.clone()).await.ok()).await;
    until("it works again", async || broker.read(batch).await.ok()).await;
    until("it works again", async || broker.stats(lane.clone()).await.ok()).await;
}

/// A watch that is kept over a restart tells of what changes after it, or that all should be looked at.
pub async fn hints_go_on_after_a_restart(rig: &dyn Rig) {
    let broker = rig.open().await;
    let (log, _) = open_run(&broker).await;
    let batch = log.batch;
    let (mut one, mut all) = (broker.watch(batch).await.unwrap(), broker.watch_all().await.unwrap());
    rig.restart(AWAY).await;
    until("it is back", async || broker.ping().await.ok()).await;
    let append = async || match broker.append(log.clone(), Version::NONE, "one".into()).await {
        // Fenced by the same append, whose answer was lost.
        Ok(_) | Err(BrokerError::Fenced) => Some(()),
        Err(_) => None,
    };
    until("the append", append).await;
    until("the copy", async || broker.publish_outcome(log.clone(), 0, "one".into()).await.ok()).await;
    tokio::join!(hinted(&mut one, batch), hinted(&mut all, batch));
    read(&broker, batch, 1).await;
}

/// A record that is watched over a restart is told once it changes, or the watch says that it broke.
pub async fn a_watched_record_is_told_after_a_restart(rig: &dyn Rig) {
    let broker = rig.open().await;
    let key = key("watched");
    let watching = until("the watch", async || match broker.watch_key(key.clone(), None).await {
        Ok(entry) => Some(entry),
        Err(error) => {
            assert!(matches!(error, BrokerError::Retryable { .. }), "{error:?}");
            None
        }
    });
    let creating = async {
        rig.restart(AWAY).await;
        let create = async || match broker.create(key.clone(), "here".into(), None).await {
            // Fenced by the same create, whose answer was lost.
            Ok(_) | Err(BrokerError::Fenced) => Some(()),
            Err(_) => None,
        };
        until("the record", create).await;
    };
    let (entry, ()) = tokio::join!(watching, creating);
    assert_eq!(entry.expect("it was created").bytes, "here");
}

/// What was delivered and not settled comes again over a restart, to the source that had it or to another.
pub async fn what_was_not_settled_comes_again(rig: &dyn Rig) {
    let broker = rig.open().await;
    let lane = lane();
    publish_each(&broker, messages(&lane, 50)).await;
    let mut taker = Taker::open(&broker, &lane).await;
    let lost = taker.take_many(50).await;
    rig.restart(AWAY).await;
    let mut runs = HashSet::new();
    while runs.len() < 50 {
        let delivery = taker.take().await;
        delivery.lease.ack(None);
        runs.insert(delivery.run);
    }
    assert!(lost.iter().all(|delivery| runs.contains(&delivery.run)));
}
