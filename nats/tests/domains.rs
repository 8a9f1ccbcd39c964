//! Hubs and leaf nodes, with JetStream domains and without: the factory of a domain is reached through a leaf node, and no
//! second one is made by mistake.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::{Duration, Instant};

use bytes::Bytes;
use wf_broker::{Broker as _, Consume as _, Control as _, DeadLetters as _, Key, KeyedRecords as _, Message, OutcomeLog as _};
use wf_broker::{Publish as _, RunLog, Schedule as _, Scheduled, Version};
use wf_nats::testing::{ServerOptions, TestLeaf, TestServer};
use wf_nats::{Checkup, ConnectError, FactorySettings, NatsBroker, NatsOptions, OnDifference, SetupError, setup};
use wf_schema::{BatchId, Lane, RunId, now};

const PATIENCE: Duration = Duration::from_secs(20);

async fn servers(hub: Option<&str>, leaf: Leaf) -> TestLeaf {
    let options = |domain: Option<&str>| domain.map_or_else(ServerOptions::new, |domain| ServerOptions::new().domain(domain));
    let (hub, leaf) = (
        options(hub),
        match leaf {
            Leaf::Without => ServerOptions::new().jetstream(false),
            Leaf::Own => ServerOptions::new(),
            Leaf::Domain(domain) => ServerOptions::new().domain(domain),
        },
    );
    tokio::task::spawn_blocking(|| TestLeaf::start(hub, leaf)).await.unwrap()
}

/// The JetStream of a leaf node.
#[derive(Clone, Copy)]
enum Leaf {
    Without,
    Own,
    Domain(&'static str),
}

fn options(server: &TestServer, domain: Option<&str>) -> NatsOptions {
    let options = NatsOptions::new([server.url()]).unwrap();
    domain.map_or_else(|| options.clone(), |domain| options.clone().domain(domain).unwrap())
}

async fn set_up(server: &TestServer, domain: Option<&str>) -> Result<(), SetupError> {
    let mut settings = FactorySettings::default();
    settings.lease = Duration::from_secs(2);
    setup(&options(server, domain), &settings, OnDifference::Refuse).await.map(|_| ())
}

/// The messages in the stream of jobs of the server's own JetStream, if it has one.
async fn jobs(server: &TestServer) -> Option<u64> {
    let context = async_nats::jetstream::new(async_nats::connect(server.url()).await.unwrap());
    Some(context.get_stream("WF_JOBS").await.ok()?.cached_info().state.messages)
}

/// Everything that the contract has, through a leaf node.
async fn works(servers: &TestLeaf, domain: &str) {
    let broker = NatsBroker::connect(options(servers.leaf(), Some(domain))).await.unwrap();
    let lane: Lane = "mail.normal".parse().unwrap();
    let message = |id: &str| Message { lane: lane.clone(), id: id.into(), bytes: Bytes::copy_from_slice(id.as_bytes()) };
    broker.publish(message("one")).await.unwrap();
    broker.publish_all(vec![message("two"), message("three")]).await.unwrap();
    let later = Scheduled { lane: lane.clone(), key: Key::new("later").unwrap(), due: now() + 500, bytes: "later".into() };
    broker.publish_at(later).await.unwrap();
    let mut source = broker.lane(lane.clone()).await.unwrap();
    source.grant(10, 1 << 20);
    let mut came = Vec::new();
    while came.len() < 4 {
        let delivery = tokio::time::timeout(PATIENCE, source.next()).await.expect("a delivery").unwrap();
        came.push(String::from_utf8(delivery.bytes.to_vec()).unwrap());
        delivery.lease.renew();
        delivery.lease.ack(None);
    }
    came.sort();
    assert_eq!(came, ["later", "one", "three", "two"]);
    broker.settled().await.unwrap();
    let began = Instant::now();
    while jobs(servers.hub()).await != Some(0) {
        assert!(began.elapsed() < PATIENCE, "acknowledgements have not reached the hub");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    let log = RunLog { batch: BatchId::new(), run: RunId::new('j', 1), message: "one".into() };
    broker.append(log.clone(), Version::NONE, "record".into()).await.unwrap();
    assert_eq!(broker.read_run(log.clone()).await.unwrap().records.len(), 1);
    broker.publish_outcome(log.clone(), 0, "record".into()).await.unwrap();
    assert_eq!(broker.read(log.batch).await.unwrap().len(), 1);
    let key = Key::new("record").unwrap();
    let revision = broker.create(key.clone(), "a".into(), None).await.unwrap();
    let revision = broker.update(key.clone(), revision, "b".into(), None).await.unwrap();
    let seen = tokio::time::timeout(PATIENCE, broker.watch_key(key.clone(), None)).await.unwrap().unwrap().unwrap();
    assert_eq!((seen.bytes, seen.revision), (Bytes::from("b"), revision));
    broker.bury(lane.queue.clone(), "dead".into(), "letter".into()).await.unwrap();
    assert_eq!(broker.dead(None, 0, 10).await.unwrap().letters.len(), 1);
    assert_eq!(broker.dead_stats().await.unwrap().letters, 1);
    broker.pause(lane.queue.clone(), now() + 60_000).await.unwrap();
    assert!(broker.paused(lane.queue.clone()).await.unwrap().is_some());
    broker.resume(lane.queue.clone()).await.unwrap();
    assert_eq!(broker.stats(lane).await.unwrap().pending, 0);
    broker.ping().await.unwrap();
    broker.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_factory_in_the_hubs_domain_is_used_through_a_leaf_with_a_domain_of_its_own() {
    let servers = servers(Some("hub"), Leaf::Domain("leaf")).await;
    set_up(servers.hub(), Some("hub")).await.unwrap();
    works(&servers, "hub").await;
    assert_eq!(jobs(servers.leaf()).await, None, "nothing was made at the leaf");
    // At the hub the domain may be left out once it is set up.
    NatsBroker::connect(options(servers.hub(), None)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_factory_in_the_hubs_domain_is_used_and_set_up_through_a_leaf_without_jetstream() {
    let servers = servers(Some("hub"), Leaf::Without).await;
    set_up(servers.leaf(), Some("hub")).await.unwrap();
    works(&servers, "hub").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_second_factory_is_made_at_a_leaf_by_mistake() {
    let servers = servers(Some("hub"), Leaf::Domain("leaf")).await;
    set_up(servers.hub(), Some("hub")).await.unwrap();
    // Whoever names no domain is told what to set.
    let refused = NatsBroker::connect_or_setup(options(servers.leaf(), None), &FactorySettings::default()).await.err().unwrap();
    let SetupError::Connect(ConnectError::OtherDomain { domain, .. }) = &refused else { panic!("{refused:?}") };
    assert_eq!((domain.as_str(), refused.is_retryable()), ("leaf", false));
    let refused = set_up(servers.leaf(), None).await.unwrap_err();
    assert!(refused.to_string().contains("set broker.domain"), "{refused}");
    // One that is asked for would have every job of the leaf twice.
    let refused = set_up(servers.leaf(), Some("leaf")).await.unwrap_err();
    assert!(matches!(refused, SetupError::Unmeant(ConnectError::SecondFactory { .. })), "{refused:?}");
    let checkup = Checkup::connect(options(servers.leaf(), None)).await.unwrap();
    assert_eq!((checkup.factories().await, checkup.server().domain.as_deref()), (1, Some("leaf")));
    assert_eq!(jobs(servers.leaf()).await, None);
    // Of another prefix, on purpose, it is as good as any.
    let other = options(servers.leaf(), Some("leaf")).prefix("other").unwrap();
    setup(&other, &FactorySettings::default(), OnDifference::Refuse).await.unwrap();
    NatsBroker::connect(other).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_second_factory_is_made_at_a_leaf_where_nobody_has_domains() {
    let servers = servers(None, Leaf::Own).await;
    set_up(servers.hub(), None).await.unwrap();
    let refused = NatsBroker::connect_or_setup(options(servers.leaf(), None), &FactorySettings::default()).await.err().unwrap();
    assert!(matches!(refused, SetupError::Unmeant(ConnectError::SecondFactory { .. })), "{refused:?}");
    assert_eq!(jobs(servers.leaf()).await, None);
    let checkup = Checkup::connect(options(servers.leaf(), None)).await.unwrap();
    assert_eq!(checkup.factories().await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_factories_that_store_the_same_jobs_are_told() {
    let servers = servers(None, Leaf::Own).await;
    // Made while the leaf node was alone, as far as it knew.
    let streams = async_nats::jetstream::new(async_nats::connect(servers.leaf().url()).await.unwrap());
    let config = async_nats::jetstream::stream::Config {
        name: "WF_JOBS".into(),
        subjects: vec!["wf.jobs.*".into()],
        ..Default::default()
    };
    streams.create_stream(config).await.unwrap();
    let checkup = Checkup::connect(options(servers.leaf(), None)).await.unwrap();
    assert_eq!(checkup.factories().await, 1);
    let refused = set_up(servers.hub(), None).await.unwrap_err();
    assert!(matches!(refused, SetupError::Unmeant(ConnectError::SecondFactory { .. })), "{refused:?}");
    let hub = async_nats::jetstream::new(async_nats::connect(servers.hub().url()).await.unwrap());
    let config = async_nats::jetstream::stream::Config {
        name: "WF_JOBS".into(),
        subjects: vec!["wf.jobs.*".into()],
        ..Default::default()
    };
    hub.create_stream(config).await.unwrap();
    assert_eq!(checkup.factories().await, 2);
    assert_eq!((jobs(servers.hub()).await, jobs(servers.leaf()).await), (Some(0), Some(0)), "asking stores nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_domain_that_nobody_answers_for_is_named_and_may_come_back() {
    let servers = servers(Some("hub"), Leaf::Domain("leaf")).await;
    let refused = NatsBroker::connect(options(servers.leaf(), Some("other"))).await.err().unwrap();
    let ConnectError::NoDomain { domain, own, .. } = &refused else { panic!("{refused:?}") };
    assert_eq!((domain.as_str(), own.as_deref(), refused.is_retryable()), ("other", Some("leaf"), true));
    assert!(refused.to_string().contains("broker.domain"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_with_a_domain_and_no_factory_is_set_up_only_on_purpose() {
    let server = tokio::task::spawn_blocking(|| TestServer::start(ServerOptions::new().domain("hub"))).await.unwrap();
    let refused = NatsBroker::connect(options(&server, None)).await.err().unwrap();
    assert!(matches!(refused, ConnectError::OtherDomain { .. }), "{refused:?}");
    let refused = set_up(&server, None).await.unwrap_err();
    assert!(refused.to_string().contains("--broker-domain hub"), "{refused}");
    set_up(&server, Some("hub")).await.unwrap();
    // As it is there now, nobody has to name it; and it can be changed.
    NatsBroker::connect(options(&server, None)).await.unwrap();
    set_up(&server, None).await.unwrap();
}
