//! How a source ends: nothing that was on its way to it waits for its lease, and it says so when it cannot know.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use wf_broker::{Consume as _, DeliverySource, Message, Publish as _};
use wf_nats::testing::{Conditions, DelayProxy, ServerOptions, TestServer, Way};
use wf_nats::{FactorySettings, LinkSettings, NatsBroker, NatsOptions};
use wf_schema::Lane;

/// Far longer than anything else here takes.
const LEASE: Duration = Duration::from_secs(60);

/// Within this, whatever is to happen happens.
const PATIENCE: Duration = Duration::from_secs(15);

const ROUNDS: usize = 10;

fn lane() -> Lane {
    "mail.normal".parse().unwrap()
}

struct Yard {
    _server: TestServer,
    proxy: DelayProxy,
    /// Far away.
    consumer: Arc<NatsBroker>,
    /// Next door.
    near: Arc<NatsBroker>,
}

impl Yard {
    async fn new(delay: Duration, lease: Duration, connections: usize) -> Self {
        let server = tokio::task::spawn_blocking(|| TestServer::start(ServerOptions::new())).await.unwrap();
        let proxy = DelayProxy::start(server.address(), delay);
        let mut settings = FactorySettings::default();
        settings.lease = lease;
        let near = NatsBroker::connect_or_setup(NatsOptions::new([server.url()]).unwrap(), &settings).await.unwrap();
        let mut link = LinkSettings::default();
        link.connections = connections;
        let consumer = NatsBroker::connect(NatsOptions::new([proxy.url()]).unwrap().link(link)).await.unwrap();
        Self { _server: server, proxy, consumer, near }
    }

    async fn open(&self, broker: &NatsBroker) -> Box<dyn DeliverySource> {
        let mut source = broker.lane(lane()).await.unwrap();
        source.grant(1_000, 64 << 20);
        source
    }
}

/// Publishes one message after the other, named after `round`, until it is told to stop: what it has published.
async fn publish(broker: Arc<NatsBroker>, round: usize, stop: Arc<AtomicBool>) -> HashSet<Bytes> {
    let mut published = HashSet::new();
    while !stop.load(Ordering::Relaxed) {
        let name = format!("{round}-{}", published.len());
        let bytes = Bytes::from(name.clone());
        broker.publish(Message { lane: lane(), id: name.into(), bytes: bytes.clone() }).await.unwrap();
        published.insert(bytes);
    }
    published
}

async fn next(source: &mut Box<dyn DeliverySource>, what: &str) -> wf_broker::Delivery {
    tokio::time::timeout(PATIENCE, source.next()).await.unwrap_or_else(|_| panic!("{what}: nothing comes")).unwrap()
}

/// Stops a source in full flow, again and again; each time the next one gets all that was left, long before any lease
/// is over.
async fn stops_in_full_flow(delay: Duration, connections: usize) {
    let yard = Yard::new(delay, LEASE, connections).await;
    let (mut released, mut late) = (0, 0);
    for round in 0..ROUNDS {
        let stop = Arc::new(AtomicBool::new(false));
        let publishing = tokio::spawn(publish(yard.near.clone(), round, stop.clone()));
        let mut source = yard.open(&yard.consumer).await;
        let mut taken = HashSet::new();
        // Its pulls are open, and messages are on their way all the time.
        for _ in 0..100 {
            let delivery = next(&mut source, "in full flow").await;
            delivery.lease.ack(None);
            taken.insert(delivery.bytes.clone());
        }
        let began = Instant::now();
        released += source.stop().await.expect("it cannot tell whether it has stopped");
        assert!(began.elapsed() < PATIENCE, "it took {:?}", began.elapsed());
        yard.consumer.settled().await.unwrap();
        stop.store(true, Ordering::Relaxed);
        let mut left: HashSet<Bytes> = publishing.await.unwrap().difference(&taken).cloned().collect();
        let mut others = yard.open(&yard.near).await;
        while !left.is_empty() {
            let delivery = next(&mut others, &format!("round {round}, {} left over", left.len())).await;
            others.grant(1, 1 << 10);
            late += u64::from(delivery.delivered > 1);
            // Over several connections the server now and then counts one too many of what it could not deliver.
            assert!(delivery.delivered <= 2 || connections > 1, "it was delivered {} times", delivery.delivered);
            delivery.lease.ack(None);
            assert!(left.remove(&delivery.bytes), "round {round}: {:?} came twice", delivery.bytes);
        }
        others.stop().await.unwrap();
    }
    // What it says it has released counts as delivered once more.
    assert!(released <= late, "{released} were released, and {late} came again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_on_its_way_when_a_source_stops_is_released() {
    stops_in_full_flow(Duration::ZERO, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_on_its_way_when_a_far_source_stops_is_released() {
    stops_in_full_flow(Duration::from_millis(50), 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_on_its_way_over_several_connections_is_released() {
    stops_in_full_flow(Duration::from_millis(20), 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_cannot_reach_the_server_says_that_more_may_come() {
    let yard = Yard::new(Duration::ZERO, Duration::from_secs(2), 1).await;
    let mut source = yard.open(&yard.consumer).await;
    let stop = Arc::new(AtomicBool::new(false));
    let publishing = tokio::spawn(publish(yard.near.clone(), 0, stop.clone()));
    next(&mut source, "at first").await.lease.ack(None);
    yard.proxy.hold(Way::Down);
    let began = Instant::now();
    assert!(source.stop().await.unwrap_err().is_retryable());
    assert!(began.elapsed() < Duration::from_secs(2), "half a lease is over long ago");
    stop.store(true, Ordering::Relaxed);
    publishing.await.unwrap();
    yard.proxy.set(Conditions::default());
    yard.proxy.resume(Way::Down);
}
