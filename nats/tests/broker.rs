//! What the conformance suite does not say, because it is JetStream's own: setting up, reaching a server or not,
//! what is sent and how often, rights.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::{join_all, try_join_all};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use wf_broker::{
    Broker as _, BrokerError, Consume as _, Control as _, Key, KeyedRecords as _, Message, OutcomeLog as _, Publish as _,
    Schedule as _, Scheduled, Trace, Traced, Traces as _,
};
use wf_nats::testing::{DelayProxy, ServerOptions, TestServer};
use wf_nats::{
    ConnectError, FactorySettings, LinkSettings, NatsBroker, NatsOptions, OnDifference, SetupError, setup, setup_lanes,
};
use wf_schema::{BatchId, Lane};

fn quick() -> LinkSettings {
    let mut link = LinkSettings::default();
    link.connect_deadline = Duration::from_secs(1);
    link
}

fn options(server: &TestServer) -> NatsOptions {
    NatsOptions::new([server.url()]).unwrap()
}

async fn started(settings: ServerOptions) -> TestServer {
    tokio::task::spawn_blocking(|| TestServer::start(settings)).await.unwrap()
}

async fn set_up() -> (TestServer, Arc<NatsBroker>) {
    let server = started(ServerOptions::new()).await;
    let broker = NatsBroker::connect_or_setup(options(&server), &FactorySettings::default()).await.unwrap();
    (server, broker)
}

fn lane() -> Lane {
    "mail.normal".parse().unwrap()
}

fn message(lane: &Lane, n: usize) -> Message {
    Message { lane: lane.clone(), id: format!("m{n}").into(), bytes: format!("{n}").into() }
}

#[tokio::test]
async fn no_server_is_an_error_within_the_deadline_that_says_what_was_tried() {
    // Taken and given back, so nobody listens there.
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap();
    // One that takes connections and never says a word.
    let mute = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let urls = [format!("nats://me:secret@{free}"), format!("nats://{}", mute.local_addr().unwrap())];
    let mut link = quick();
    link.connect_timeout = Duration::from_millis(200);
    let begin = Instant::now();
    let error = NatsBroker::connect(NatsOptions::new(&urls).unwrap().link(link)).await.err().unwrap();
    assert!(begin.elapsed() < Duration::from_secs(10) && error.is_retryable());
    let ConnectError::Unreachable { tried, .. } = &error else { panic!("{error:?}") };
    assert!(tried[0].address.ends_with(&free.port().to_string()) && tried[0].error.contains("refused"), "{tried:?}");
    assert!(tried[1].error.contains("no answer"), "{tried:?}");
    let said = error.to_string();
    assert!(said.contains(&tried[0].address) && said.contains(&tried[1].address) && !said.contains("secret"), "{said}");
}

#[tokio::test]
async fn an_old_server_is_refused_with_its_version() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!("nats://{}", listener.local_addr().unwrap());
    let old = tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let info = r#"{"server_id":"old","version":"2.9.25","proto":1,"headers":true,"max_payload":1048576,"jetstream":true}"#;
        client.write_all(format!("INFO {info}\r\n").as_bytes()).await.unwrap();
        let mut said = vec![0; 4_096];
        while client.read(&mut said).await.unwrap_or(0) > 0 {
            client.write_all(b"PONG\r\n").await.ok();
        }
    });
    let error = NatsBroker::connect(NatsOptions::new([url]).unwrap().link(quick())).await.err().unwrap();
    assert!(matches!(&error, ConnectError::TooOld { version, .. } if version == "2.9.25"), "{error:?}");
    assert!(error.to_string().contains("2.14") && !error.is_retryable());
    old.await.unwrap();
}

#[tokio::test]
async fn a_server_without_jetstream_or_without_the_layout_is_named() {
    let server = started(ServerOptions::new().jetstream(false)).await;
    let error = NatsBroker::connect(options(&server).link(quick())).await.err().unwrap();
    assert!(matches!(error, ConnectError::NoJetStream { .. }), "{error:?}");

    let server = started(ServerOptions::new()).await;
    let error = NatsBroker::connect(options(&server).link(quick())).await.err().unwrap();
    assert!(matches!(error, ConnectError::NotSetUp { .. }), "{error:?}");
    assert!(error.to_string().contains("wf broker setup"), "{error}");
}

#[tokio::test]
async fn sixteen_may_set_up_at_once_and_again() {
    let server = started(ServerOptions::new()).await;
    let options = options(&server).prefix("acme").unwrap();
    let settings = FactorySettings::default();
    let reports = try_join_all((0..16).map(|_| setup(&options, &settings, OnDifference::Refuse))).await.unwrap();
    assert!(reports.iter().all(|report| report.updated.is_empty()));
    let again = setup(&options, &settings, OnDifference::Refuse).await.unwrap();
    assert_eq!((again.created.len(), again.updated.len(), again.unchanged.len()), (0, 0, 7), "{again:?}");
    let brokers = try_join_all((0..4).map(|_| NatsBroker::connect_or_setup(options.clone(), &settings))).await.unwrap();
    assert!(brokers.iter().all(|broker| broker.settings() == &settings));
    // Sixteen that open a lane nobody has used.
    let lane = lane();
    let opened = join_all((0..16).map(|n| brokers[n % 4].lane(lane.clone()))).await;
    assert!(opened.iter().all(Result::is_ok));
}

#[tokio::test]
async fn what_differs_is_told_and_changed_only_when_asked() {
    let (server, broker) = set_up().await;
    let lane = lane();
    drop(broker.lane(lane.clone()).await.unwrap());
    let mut other = FactorySettings::default();
    other.lease = Duration::from_secs(60);
    other.lane_messages = 7;
    let error = setup(&options(&server), &other, OnDifference::Refuse).await.unwrap_err();
    let SetupError::Differs(differences) = &error else { panic!("{error:?}") };
    assert!(differences.iter().any(|d| d.of == "WF_JOBS" && d.setting == "max_msgs_per_subject"), "{differences:?}");
    assert!(differences.iter().any(|d| d.of == "settings" && d.setting == "lease_ms" && d.stands == "30000"), "{differences:?}");
    // A node that brings other settings binds to those that stand.
    let node = NatsBroker::connect_or_setup(options(&server), &other).await.unwrap();
    assert_eq!(node.lease(), Duration::from_secs(30));

    let report = setup(&options(&server), &other, OnDifference::Update).await.unwrap();
    let updated: HashSet<&str> = report.updated.iter().map(String::as_str).collect();
    assert_eq!(updated, HashSet::from(["WF_JOBS", "settings", "WF_JOBS/mail-normal", "WF_LATER/mail-normal"]));
    let node = NatsBroker::connect(options(&server)).await.unwrap();
    assert_eq!(node.lease(), Duration::from_secs(60));
    let mut impossible = other;
    impossible.replicas = 2;
    let error = setup(&options(&server), &impossible, OnDifference::Update).await.unwrap_err();
    assert!(matches!(error, SetupError::Impossible(_)), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_connection_in_mid_flow_loses_nothing() {
    const MESSAGES: usize = 2_000;
    let server = started(ServerOptions::new()).await;
    let mut settings = FactorySettings::default();
    // What is on its way to us when the connection breaks comes again after its lease.
    settings.lease = Duration::from_secs(1);
    setup(&options(&server), &settings, OnDifference::Refuse).await.unwrap();
    let proxy = DelayProxy::start(server.address(), Duration::from_millis(5));
    let broker = NatsBroker::connect(NatsOptions::new([proxy.url()]).unwrap()).await.unwrap();
    let lane = lane();
    let mut source = broker.lane(lane.clone()).await.unwrap();
    source.grant(100, 1 << 20);
    let publishing = {
        let (broker, lane) = (broker.clone(), lane.clone());
        tokio::spawn(async move { try_join_all((0..MESSAGES).map(|n| broker.publish(message(&lane, n)))).await })
    };
    let mut came = HashSet::new();
    while came.len() < MESSAGES {
        let delivery = source.next().await.unwrap();
        source.grant(1, delivery.bytes.len());
        delivery.lease.ack(None);
        // Each time with publishes, deliveries and acknowledgements on their way.
        if came.insert(delivery.bytes) && came.len() % 500 == 250 {
            proxy.cut();
        }
    }
    publishing.await.unwrap().unwrap();
    broker.settled().await.unwrap();
    let stats = broker.stats(lane).await.unwrap();
    assert_eq!((stats.pending, stats.in_flight), (0, 0), "something was stored twice, or not acknowledged");
    assert!(broker.counts().reconnected >= 4, "{:?}", broker.counts());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn distance_costs_no_round_trip_per_message() {
    const MESSAGES: usize = 3_000;
    let (server, _) = set_up().await;
    let proxy = DelayProxy::start(server.address(), Duration::from_millis(50));
    let broker = NatsBroker::connect(NatsOptions::new([proxy.url()]).unwrap()).await.unwrap();
    let lane = lane();
    let mut source = broker.lane(lane.clone()).await.unwrap();
    source.grant(1_000, 8 << 20);
    let before = broker.counts();
    let publishing = {
        let (broker, lane) = (broker.clone(), lane.clone());
        tokio::spawn(async move { try_join_all((0..MESSAGES).map(|n| broker.publish(message(&lane, n)))).await })
    };
    for taken in 1..=MESSAGES {
        source.next().await.unwrap().lease.ack(None);
        if taken % 100 == 0 {
            source.grant(100, 1 << 20);
        }
    }
    publishing.await.unwrap().unwrap();
    broker.settled().await.unwrap();
    let after = broker.counts();
    assert_eq!(after.requested - before.requested, 0, "something waited for a round trip: {after:?}");
    assert_eq!((after.published, after.settled, after.delivered), (MESSAGES as u64, MESSAGES as u64, MESSAGES as u64));
    assert_eq!((after.resent, after.renewed), (0, 0));
    assert!(after.pulled - before.pulled < MESSAGES as u64 / 10, "{} pulls for {MESSAGES} messages", after.pulled);
    assert_eq!(proxy.connections(), 2);
}

#[tokio::test]
async fn nobody_is_said_to_wait_where_as_much_is_in_flight_as_may_be() {
    let server = started(ServerOptions::new()).await;
    let mut settings = FactorySettings::default();
    settings.lane_in_flight = 2;
    let broker = NatsBroker::connect_or_setup(options(&server), &settings).await.unwrap();
    let mut source = broker.lane(lane()).await.unwrap();
    source.grant(10, 1 << 20);
    for n in 0..3 {
        broker.publish(message(&lane(), n)).await.unwrap();
    }
    let taken = [source.next().await.unwrap(), source.next().await.unwrap()];
    // Who waits in vain for the third is not deaf: it is not to be had.
    let stats = broker.stats(lane()).await.unwrap();
    assert_eq!((stats.pending, stats.in_flight, stats.waiting), (1, 2, 0));
    taken.iter().for_each(|delivery| delivery.lease.ack(None));
    source.next().await.unwrap().lease.ack(None);
}

/// A user with the rights that docs/deploy.md says its role needs.
fn user(role: &str, password: &str) -> String {
    let document = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/deploy.md");
    let document = std::fs::read_to_string(document).unwrap();
    let row = document.lines().find(|line| line.starts_with(&format!("| {role} | `"))).unwrap();
    let rights = |column: usize| {
        let subjects: Vec<_> = row.split('|').nth(column).unwrap().split('`').skip(1).step_by(2).collect();
        format!("{subjects:?}")
    };
    let (publish, subscribe) = (rights(2), rights(3));
    format!("{{ user: {role}, password: {password}, permissions {{ publish {publish}, subscribe {subscribe} }} }}")
}

#[tokio::test]
async fn what_is_not_allowed_is_denied_at_once() {
    let users = format!(
        "accounts {{ A {{ jetstream: enabled, users [ {{ user: admin, password: a }}, {}, {} ] }} }}",
        user("ingest", "i"),
        user("executor", "e")
    );
    let server = started(ServerOptions::new().config(&users)).await;
    let url = |login: &str| format!("nats://{login}@{}", server.address());
    let as_user = |login: &str, inbox: &str| NatsOptions::new([url(login)]).unwrap().inbox_prefix(inbox).unwrap().link(quick());
    let admin = as_user("admin:a", "_INBOX");
    setup(&admin, &FactorySettings::default(), OnDifference::Refuse).await.unwrap();
    setup_lanes(&admin, &[lane()]).await.unwrap();

    let error = NatsBroker::connect(as_user("admin:wrong", "_INBOX")).await.err().unwrap();
    assert!(matches!(error, ConnectError::Login { .. }), "{error:?}");
    // An inbox that this user may not read: no answer could ever come.
    let error = NatsBroker::connect(as_user("ingest:i", "_INBOX_executor")).await.err().unwrap();
    assert!(matches!(error, ConnectError::Unusable { .. }), "{error:?}");

    let ingest = NatsBroker::connect(as_user("ingest:i", "_INBOX_ingest")).await.unwrap();
    let executor = NatsBroker::connect(as_user("executor:e", "_INBOX_executor")).await.unwrap();
    // Each does its own work with the rights it has.
    ingest.publish(message(&lane(), 1)).await.unwrap();
    let mut source = executor.lane(lane()).await.unwrap();
    source.grant(10, 1 << 20);
    let delivery = source.next().await.unwrap();
    let log = wf_broker::RunLog { batch: BatchId::new(), run: delivery.run, message: delivery.id.clone() };
    let version = executor.append(log.clone(), wf_broker::Version::NONE, "done".into()).await.unwrap();
    executor.publish_outcome(log.clone(), 0, "done".into()).await.unwrap();
    assert_eq!(executor.read_run(log.clone()).await.unwrap().version, version);
    assert!(delivery.lease.stored().await.unwrap());
    delivery.lease.ack(Some(wf_broker::LogEnd { log, version, keep: None }));
    executor.settled().await.unwrap();
    executor.ping().await.unwrap();
    // An executor says how long jobs run and asks who waits; ingest only reads what was said.
    let key = || Key::new("run_times").unwrap();
    executor.create(key(), "said".into(), Some(Duration::from_secs(60))).await.unwrap();
    assert_eq!(ingest.get(key()).await.unwrap().unwrap().bytes, "said");
    assert_eq!(executor.stats(lane()).await.unwrap().waiting, 1);

    let begin = Instant::now();
    let denied = ingest.create(Key::new("factory").unwrap(), "mine".into(), None).await.unwrap_err();
    assert!(matches!(denied, BrokerError::Denied { .. }), "{denied:?}");
    // It may look at consumers, so that the lane opens, and not pull.
    let mut barred = ingest.lane(lane()).await.unwrap();
    barred.grant(1, 1 << 10);
    let denied = barred.next().await.unwrap_err();
    assert!(matches!(denied, BrokerError::Denied { .. }), "{denied:?}");
    let denied = executor.publish(message(&lane(), 2)).await.unwrap_err();
    assert!(matches!(denied, BrokerError::Denied { .. }), "{denied:?}");
    // A lane whose consumers nobody has made, for one who may not make them.
    let denied = executor.lane("other.high".parse().unwrap()).await.err().unwrap();
    assert!(matches!(denied, BrokerError::Denied { .. }), "{denied:?}");
    assert!(begin.elapsed() < quick().request_timeout, "it took a timeout to find out");

    // Who may schedule but not purge can cancel all the same.
    let (cancelled, kept) = (Key::new("cancelled").unwrap(), Key::new("kept").unwrap());
    let due = wf_schema::now() + 1_500;
    for key in [&cancelled, &kept] {
        let scheduled = Scheduled { lane: lane(), key: key.clone(), due, bytes: key.to_string().into() };
        ingest.publish_at(scheduled).await.unwrap();
    }
    ingest.cancel_at(cancelled).await.unwrap();
    assert_eq!(source.next().await.unwrap().bytes, "kept");
    // Ingest can find out what was stored; who has no right to look learns nothing, and waits for nothing.
    let batch = BatchId::new();
    let wanted = || vec![Trace { lane: lane(), batch, id: Some(batch.to_string().into()), later: false, since: 0 }];
    assert_eq!(ingest.trace(wanted(), Duration::from_secs(10)).await.unwrap(), [Traced::Absent]);
    ingest.publish(Message { id: batch.to_string().into(), ..message(&lane(), 3) }).await.unwrap();
    assert_eq!(ingest.trace(wanted(), Duration::from_secs(10)).await.unwrap(), [Traced::Stored]);
    let begin = Instant::now();
    let never = vec![Trace { batch: BatchId::new(), id: None, ..wanted().remove(0) }];
    assert_eq!(executor.trace(never, Duration::from_secs(10)).await.unwrap(), [Traced::Unknown]);
    assert!(begin.elapsed() < quick().request_timeout, "it took a timeout to find out");
}

/// A lane that takes several pages to read: what lies at its end is found, and what is not there is known not to be.
#[tokio::test]
async fn a_long_lane_is_read_to_its_end() {
    let (_server, broker) = set_up().await;
    let batch = BatchId::new();
    let large = |n: usize| Message { bytes: vec![n as u8; 200_000].into(), ..message(&lane(), n) };
    try_join_all((0..60).map(|n| broker.publish(large(n)))).await.unwrap();
    let small = (60..1_200).map(|n| broker.publish(message(&lane(), n)));
    try_join_all(small).await.unwrap();
    let trace = |id: String| Trace { lane: lane(), batch, id: Some(id.into()), later: false, since: batch.millis() };
    let wanted = || vec![trace(format!("{batch}.7")), trace(batch.to_string())];
    assert_eq!(broker.trace(wanted(), Duration::from_secs(30)).await.unwrap(), [Traced::Absent; 2]);
    broker.publish(Message { id: batch.to_string().into(), ..message(&lane(), 1_200) }).await.unwrap();
    assert_eq!(broker.trace(wanted(), Duration::from_secs(30)).await.unwrap(), [Traced::Absent, Traced::Stored]);
}
