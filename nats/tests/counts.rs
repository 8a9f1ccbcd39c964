//! How often a message was delivered: what comes again is never taken for new, whoever stores it and is killed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;
use std::time::Duration;

use wf_broker::{Consume as _, Delivery, DeliverySource, Message, Publish as _};
use wf_nats::testing::{ServerOptions, TestCluster, TestLeaf, TestServer};
use wf_nats::{FactorySettings, LinkSettings, NatsBroker, NatsOptions, OnDifference, setup};
use wf_schema::Lane;

/// Within this, whatever is to happen happens.
const PATIENCE: Duration = Duration::from_secs(60);

const MESSAGES: usize = 250;

fn lane() -> Lane {
    "mail.normal".parse().unwrap()
}

fn options(url: String, domain: Option<&str>) -> NatsOptions {
    let mut link = LinkSettings::default();
    link.request_timeout = Duration::from_secs(2);
    link.ping_interval = Duration::from_millis(200);
    link.pull_expires = Duration::from_secs(1);
    link.pull_heartbeat = Duration::from_millis(200);
    let options = NatsOptions::new([url]).unwrap().link(link);
    domain.map_or_else(|| options.clone(), |domain| options.clone().domain(domain).unwrap())
}

fn settings(replicas: u8) -> FactorySettings {
    let mut settings = FactorySettings::default();
    settings.lease = Duration::from_secs(2);
    settings.replicas = replicas;
    settings
}

/// Messages that were published, and then delivered in a steady flow to one who holds them: of the last the server has had
/// no time to write that down, which it does ten times a second.
async fn delivered(broker: &Arc<NatsBroker>) -> (Box<dyn DeliverySource>, Vec<Delivery>) {
    let mut source = broker.lane(lane()).await.unwrap();
    for n in 0..MESSAGES {
        let name = format!("{n}");
        broker.publish(Message { lane: lane(), id: name.as_str().into(), bytes: name.into() }).await.unwrap();
    }
    source.grant(20, 64 << 20);
    let mut held = Vec::new();
    for _ in 0..MESSAGES {
        held.push(next(&mut source).await);
        // Half a second in all.
        tokio::time::sleep(Duration::from_millis(1)).await;
        source.grant(1, 1 << 10);
    }
    source.grant(10 * MESSAGES, 64 << 20);
    (source, held)
}

async fn next(source: &mut Box<dyn DeliverySource>) -> Delivery {
    tokio::time::timeout(PATIENCE, source.next()).await.expect("nothing comes").unwrap()
}

/// All of them come again, and none of them as new.
async fn come_again(mut source: Box<dyn DeliverySource>, held: Vec<Delivery>) {
    for _ in 0..held.len() {
        let again = next(&mut source).await;
        assert!(again.delivered > 1, "{:?} passes for its first delivery", again.bytes);
        again.lease.ack(None);
    }
}

async fn on<T: Send + 'static>(mut servers: T, act: impl FnOnce(&mut T) + Send + 'static) -> T {
    tokio::task::spawn_blocking(move || {
        act(&mut servers);
        servers
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_leaf_node_when_the_hub_is_killed() {
    let start = || TestLeaf::start(ServerOptions::new().domain("hub"), ServerOptions::new().jetstream(false));
    let servers = tokio::task::spawn_blocking(start).await.unwrap();
    setup(&options(servers.hub().url(), Some("hub")), &settings(1), OnDifference::Refuse).await.unwrap();
    let broker = NatsBroker::connect(options(servers.leaf().url(), Some("hub"))).await.unwrap();
    let (source, held) = delivered(&broker).await;
    let servers = on(servers, |servers| servers.hub_mut().restart()).await;
    come_again(source, held).await;
    drop(servers);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_one_replica_in_a_cluster_when_the_server_that_has_it_is_killed() {
    let cluster = TestCluster::start(3, "").await;
    setup(&options(cluster.urls()[0].clone(), None), &settings(1), OnDifference::Refuse).await.unwrap();
    let context = async_nats::jetstream::new(async_nats::connect(&cluster.urls()[0]).await.unwrap());
    let info = context.get_stream("WF_JOBS").await.unwrap().cached_info().clone();
    let leader = info.cluster.unwrap().leader.unwrap();
    let stores: usize = leader.trim_start_matches('s').parse().unwrap();
    // Connected to another.
    let broker = NatsBroker::connect(options(cluster.urls()[(stores + 1) % 3].clone(), None)).await.unwrap();
    let (source, held) = delivered(&broker).await;
    let cluster = on(cluster, move |cluster| cluster.restart(stores)).await;
    come_again(source, held).await;
    drop(cluster);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_first_is_known_to_where_the_counts_are_true() {
    // At the server that stores it.
    let server = tokio::task::spawn_blocking(|| TestServer::start(ServerOptions::new())).await.unwrap();
    let broker = NatsBroker::connect_or_setup(options(server.url(), None), &settings(1)).await.unwrap();
    let (_, held) = delivered(&broker).await;
    assert!(held.iter().all(|delivery| delivery.delivered == 1), "{held:?}");
    // In a cluster that has copies, whichever server it is; the clocks of servers may differ by a second.
    let cluster = TestCluster::start(3, "").await;
    let broker = NatsBroker::connect_or_setup(options(cluster.urls()[0].clone(), None), &settings(3)).await.unwrap();
    broker.lane(lane()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let (_, held) = delivered(&broker).await;
    assert!(held.iter().all(|delivery| delivery.delivered == 1), "{held:?}");
}
