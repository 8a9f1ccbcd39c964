//! A store that lost its end gives sequences out once more: what has one now is not taken for what had it before.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use wf_broker::{Consume as _, Control as _, Delivery, DeliverySource, Message, Publish as _};
use wf_nats::testing::{ServerOptions, TestServer};
use wf_nats::{FactorySettings, LinkSettings, NatsBroker, NatsOptions};
use wf_schema::Lane;

/// Within this, whatever is to happen happens; leases are far longer.
const PATIENCE: Duration = Duration::from_secs(30);

fn lane() -> Lane {
    "mail.normal".parse().unwrap()
}

async fn publish(broker: &NatsBroker, name: &str) {
    let message = Message { lane: lane(), id: name.into(), bytes: name.to_owned().into() };
    let began = Instant::now();
    // A server that comes back takes a moment before it stores again.
    while let Err(error) = broker.publish(message.clone()).await {
        assert!(error.is_retryable() && began.elapsed() < PATIENCE, "{error:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn next(source: &mut Box<dyn DeliverySource>, name: &str) -> Delivery {
    let delivery = tokio::time::timeout(PATIENCE, source.next()).await.unwrap_or_else(|_| panic!("{name} does not come"));
    let delivery = delivery.unwrap();
    assert_eq!(delivery.bytes, name);
    delivery
}

async fn left(broker: &NatsBroker) -> u64 {
    // Past what is cached.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let stats = broker.stats(lane()).await.unwrap();
    stats.pending + stats.in_flight
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_settlement_of_what_is_no_longer_stored_touches_nothing_else() {
    let mut server = tokio::task::spawn_blocking(|| TestServer::start(ServerOptions::new())).await.unwrap();
    let mut settings = FactorySettings::default();
    settings.lease = Duration::from_secs(120);
    let mut link = LinkSettings::default();
    (link.ping_interval, link.pull_expires, link.pull_heartbeat) =
        (Duration::from_millis(200), Duration::from_secs(1), Duration::from_millis(200));
    let options = NatsOptions::new([server.url()]).unwrap().link(link);
    let broker: Arc<NatsBroker> = NatsBroker::connect_or_setup(options, &settings).await.unwrap();
    let mut source = broker.lane(lane()).await.unwrap();
    source.grant(100, 1 << 20);
    for name in ["one", "two", "three"] {
        publish(&broker, name).await;
        next(&mut source, name).await.lease.ack(None);
    }
    broker.settled().await.unwrap();
    let (stopped, copy) = tokio::task::spawn_blocking(move || {
        server.stop();
        let copy = server.copy_store();
        server.restart();
        (server, copy)
    })
    .await
    .unwrap();
    server = stopped;

    // The first will be acknowledged, the second released and the third renewed once all is rolled back; the fourth was
    // acknowledged just before, which is sent again as a precaution.
    let names = ["acked", "released", "renewed", "acked-before"];
    let mut held = Vec::new();
    for name in names {
        publish(&broker, name).await;
        held.push(next(&mut source, name).await);
    }
    held[3].lease.ack(None);
    broker.settled().await.unwrap();
    server = tokio::task::spawn_blocking(move || {
        server.kill();
        server.roll_back(&copy);
        server.restart();
        server
    })
    .await
    .unwrap();

    let mut anew = Vec::new();
    for name in ["a", "b", "c", "d"] {
        publish(&broker, name).await;
        anew.push(next(&mut source, name).await);
    }
    for (old, new) in held.iter().zip(&anew) {
        assert_eq!(old.run, new.run, "the sequence is not the same, so this shows nothing");
        assert_ne!(old.identity(), new.identity());
    }
    held[0].lease.ack(None);
    held[1].lease.release(Duration::ZERO);
    held[2].lease.renew();
    // There is nothing to settle any more, and that is as good as settled.
    broker.settled().await.unwrap();
    assert_eq!(left(&broker).await, 4, "an old acknowledgement has removed a new message");
    let again = tokio::time::timeout(Duration::from_millis(300), source.next()).await;
    assert!(again.is_err(), "an old release has handed on a new delivery");

    anew.iter().for_each(|delivery| delivery.lease.ack(None));
    broker.settled().await.unwrap();
    assert_eq!(left(&broker).await, 0);
    drop(server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_settlement_of_what_is_still_stored_is_sent_after_a_restart() {
    let mut server = tokio::task::spawn_blocking(|| TestServer::start(ServerOptions::new())).await.unwrap();
    let mut settings = FactorySettings::default();
    settings.lease = Duration::from_secs(120);
    let options = NatsOptions::new([server.url()]).unwrap();
    let broker = NatsBroker::connect_or_setup(options, &settings).await.unwrap();
    let mut source = broker.lane(lane()).await.unwrap();
    source.grant(1_000, 1 << 20);
    let mut held = Vec::new();
    for n in 0..200 {
        publish(&broker, &format!("{n}")).await;
        held.push(next(&mut source, &format!("{n}")).await);
    }
    server = tokio::task::spawn_blocking(move || {
        server.restart();
        server
    })
    .await
    .unwrap();
    publish(&broker, "after").await;
    // What comes once more is acknowledged as well.
    let settled = async {
        loop {
            tokio::select! {
                again = source.next() => again.unwrap().lease.ack(None),
                left = left(&broker) => if left == 0 { return },
            }
        }
    };
    held.iter().for_each(|delivery| delivery.lease.ack(None));
    tokio::time::timeout(PATIENCE, settled).await.expect("acknowledgements are held back");
    broker.settled().await.unwrap();
    drop(server);
}
