//! Whatever happens to the link, the server or the consumer: consumption goes on, and nothing is lost.
//!
//! Each case breaks one thing under a consumer that has credit and waits, publishes by another way, and takes what was
//! published.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use wf_broker::{Broker as _, Consume as _, DeliverySource, Message, Publish as _};
use wf_nats::testing::{Conditions, DelayProxy, ServerOptions, TestServer, Way};
use wf_nats::{FactorySettings, LinkSettings, NatsBroker, NatsOptions};
use wf_schema::Lane;

/// Within this, whatever is to happen happens.
const PATIENCE: Duration = Duration::from_secs(30);

/// A link that notices soon what happens to it.
fn watchful() -> LinkSettings {
    let mut link = LinkSettings::default();
    link.connect_timeout = Duration::from_secs(1);
    link.request_timeout = Duration::from_secs(2);
    link.ping_interval = Duration::from_millis(200);
    link.pull_expires = Duration::from_secs(1);
    link.pull_heartbeat = Duration::from_millis(200);
    link
}

fn lane() -> Lane {
    "mail.normal".parse().unwrap()
}

/// A server, a link that can be broken, somebody who consumes over it, and somebody who publishes past it.
struct Yard {
    server: TestServer,
    proxy: DelayProxy,
    consumer: Arc<NatsBroker>,
    publisher: Arc<NatsBroker>,
    source: Box<dyn DeliverySource>,
    published: u64,
}

impl Yard {
    async fn new() -> Self {
        let server = tokio::task::spawn_blocking(|| TestServer::start(ServerOptions::new())).await.unwrap();
        let proxy = DelayProxy::start(server.address(), Duration::ZERO);
        let mut settings = FactorySettings::default();
        settings.lease = Duration::from_secs(2);
        let options = |url| NatsOptions::new([url]).unwrap().link(watchful());
        let publisher = NatsBroker::connect_or_setup(options(server.url()), &settings).await.unwrap();
        let consumer = NatsBroker::connect(options(proxy.url())).await.unwrap();
        let mut source = consumer.lane(lane()).await.unwrap();
        source.grant(10_000, 64 << 20);
        let mut yard = Self { server, proxy, consumer, publisher, source, published: 0 };
        yard.goes_on("before anything breaks").await;
        yard
    }

    async fn publish(&mut self, bytes: Bytes) {
        self.published += 1;
        let id: Arc<str> = format!("m{}", self.published).into();
        let began = Instant::now();
        // A server that comes back takes a moment before it stores again.
        while let Err(error) = self.publisher.publish(Message { lane: lane(), id: id.clone(), bytes: bytes.clone() }).await {
            assert!(error.is_retryable() && began.elapsed() < PATIENCE, "{error:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Takes and acknowledges what comes until each of `wanted` has come.
    async fn take(&mut self, after: &str, mut wanted: HashSet<Bytes>) {
        let began = Instant::now();
        while !wanted.is_empty() {
            let next = tokio::time::timeout(PATIENCE.saturating_sub(began.elapsed()), self.source.next()).await;
            let delivery = next.unwrap_or_else(|_| panic!("{after}: {} do not come", wanted.len())).unwrap();
            delivery.lease.ack(None);
            wanted.remove(&delivery.bytes);
        }
    }

    /// What is published now is consumed.
    async fn goes_on(&mut self, after: &str) {
        let wanted: HashSet<Bytes> = (0..20).map(|n| format!("{after} {n}").into()).collect();
        for bytes in wanted.clone() {
            self.publish(bytes).await;
        }
        self.take(after, wanted).await;
    }

    /// Waits until the link has been given up and is being made anew.
    async fn noticed(&self, connections: u64) {
        let began = Instant::now();
        while self.proxy.connections() <= connections {
            assert!(began.elapsed() < PATIENCE, "nobody notices");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn on_server<T: Send + 'static>(mut self, act: impl FnOnce(&mut TestServer) -> T + Send + 'static) -> Self {
        let mut server = self.server;
        server = tokio::task::spawn_blocking(move || {
            act(&mut server);
            server
        })
        .await
        .unwrap();
        self.server = server;
        self
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_carries_one_way_only() {
    let mut yard = Yard::new().await;
    for way in [Way::Up, Way::Down] {
        let connections = yard.proxy.connections();
        yard.proxy.hold(way);
        yard.noticed(connections).await;
        yard.proxy.resume(way);
        yard.goes_on(&format!("held {way:?}")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_is_cut_and_refused() {
    let mut yard = Yard::new().await;
    yard.proxy.cut();
    yard.goes_on("cut").await;
    yard.proxy.refuse(true);
    yard.proxy.cut();
    tokio::time::sleep(Duration::from_secs(1)).await;
    yard.proxy.refuse(false);
    yard.goes_on("refused for a second").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_breaks_in_the_middle_of_a_message() {
    let mut yard = Yard::new().await;
    // A message is half a second under way.
    yard.proxy.set(Conditions { rate: Some(1 << 20), ..Conditions::default() });
    let large = Bytes::from(vec![7; 500 << 10]);
    let before = yard.proxy.bytes_down();
    yard.publish(large.clone()).await;
    while yard.proxy.bytes_down() < before + (64 << 10) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    yard.proxy.cut();
    yard.proxy.set(Conditions::default());
    yard.take("cut in mid-message", HashSet::from([large])).await;
    yard.goes_on("after it").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consumers_that_are_deleted_by_others() {
    let mut yard = Yard::new().await;
    // What is owned, and not acknowledged yet, is owned still.
    yard.publish("owned".into()).await;
    let owned = tokio::time::timeout(PATIENCE, yard.source.next()).await.unwrap().unwrap();
    assert_eq!(owned.delivered, 1);
    let admin = async_nats::connect(yard.server.url()).await.unwrap();
    for stream in ["WF_JOBS", "WF_LATER"] {
        let subject = format!("$JS.API.CONSUMER.DELETE.{stream}.mail-normal");
        let deleted = admin.request(subject, "".into()).await.unwrap();
        assert!(String::from_utf8_lossy(&deleted.payload).contains("\"success\":true"), "{deleted:?}");
    }
    // The new consumer does not know that it was delivered before: who gets it is told so all the same.
    let again = tokio::time::timeout(PATIENCE, yard.source.next()).await.unwrap().unwrap();
    assert_eq!((again.run, again.bytes.as_ref()), (owned.run, b"owned".as_ref()));
    assert!(again.delivered > 1, "it passes for the first delivery");
    again.lease.ack(None);
    yard.goes_on("consumers deleted").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_or_freezes() {
    let mut yard = Yard::new().await.on_server(TestServer::restart).await;
    yard.goes_on("killed and started again").await;
    let connections = yard.proxy.connections();
    yard.server.signal("STOP");
    yard.noticed(connections).await;
    yard.server.signal("CONT");
    yard.goes_on("frozen").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_says_it_is_about_to_stop() {
    let yard = Yard::new().await;
    let before = yard.consumer.counts().reconnected;
    yard.server.signal("USR2");
    // It takes no new connections now: who leaves it waits for the next server.
    let mut yard = yard.on_server(TestServer::restart).await;
    yard.goes_on("lame duck").await;
    assert!(yard.consumer.counts().reconnected > before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_is_mended_connects_anew() {
    let mut yard = Yard::new().await;
    let connections = yard.proxy.connections();
    yard.source.mend();
    yard.goes_on("mended").await;
    yard.noticed(connections).await;
    yard.consumer.close().await.unwrap();
}
