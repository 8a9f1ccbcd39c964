//! Three servers with three copies of everything: one of them may be lost, whichever it is, and nothing that was
//! accepted is; publishing and consuming go on as soon as there is a new leader.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use wf_broker::{Consume as _, Message, OutcomeLog as _, Publish as _, RunLog, Version};
use wf_nats::testing::TestCluster;
use wf_nats::{FactorySettings, LinkSettings, NatsBroker, NatsOptions, OnDifference, setup};
use wf_schema::{BatchId, Lane, RunId};

const PATIENCE: Duration = Duration::from_secs(60);

fn lane() -> Lane {
    "mail.normal".parse().unwrap()
}

/// A cluster with a factory on it, somebody who publishes numbers and somebody who consumes them, all the while.
struct Yard {
    cluster: TestCluster,
    broker: Arc<NatsBroker>,
    /// How many numbers were accepted, and which came.
    accepted: Arc<AtomicUsize>,
    came: Arc<Mutex<HashSet<String>>>,
    stop: CancellationToken,
    publishing: JoinHandle<()>,
    consuming: JoinHandle<()>,
}

impl Yard {
    async fn new() -> Self {
        let cluster = TestCluster::start(3, "").await;
        let mut settings = FactorySettings::default();
        settings.replicas = 3;
        settings.lease = Duration::from_secs(2);
        let broker = NatsBroker::connect_or_setup(options(cluster.urls()), &settings).await.unwrap();
        let publisher = NatsBroker::connect(options(cluster.urls())).await.unwrap();
        let (accepted, came, stop) = (Arc::default(), Arc::default(), CancellationToken::new());
        let publishing = tokio::spawn(publish(publisher, Arc::clone(&accepted), stop.clone()));
        let consuming = tokio::spawn(consume(broker.clone(), Arc::clone(&came)));
        let yard = Self { cluster, broker, accepted, came, stop, publishing, consuming };
        yard.goes_on("the start").await;
        yard
    }

    /// More is accepted than before, and more comes.
    async fn goes_on(&self, after: &str) {
        let counts = || (self.accepted.load(Ordering::SeqCst), self.came.lock().unwrap().len());
        let (accepted, came) = counts();
        self.until(&format!("{after}: it does not go on"), || counts().0 >= accepted + 20 && counts().1 >= came + 20).await;
    }

    async fn until(&self, what: &str, holds: impl Fn() -> bool) {
        let began = Instant::now();
        while !holds() {
            let failed = self.publishing.is_finished() && !self.stop.is_cancelled();
            if began.elapsed() > PATIENCE || failed || self.consuming.is_finished() {
                panic!("{what}; the servers say:\n{}", self.cluster.log());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Everything that was accepted comes, and a log that was appended to is there.
    async fn nothing_is_lost(mut self, batch: BatchId) {
        self.stop.cancel();
        (&mut self.publishing).await.unwrap();
        let all: Vec<_> = (0..self.accepted.load(Ordering::SeqCst)).map(|n| n.to_string()).collect();
        self.until("accepted numbers are lost", || {
            let came = self.came.lock().unwrap();
            all.iter().all(|n| came.contains(n))
        })
        .await;
        let began = Instant::now();
        loop {
            match self.broker.read(batch).await {
                Ok(log) if log.len() == 1 => break,
                other => assert!(began.elapsed() < PATIENCE, "{other:?}"),
            }
        }
        self.consuming.abort();
    }

    async fn record(&self) -> BatchId {
        let batch = BatchId::new();
        let log = log_of(batch, 1);
        self.broker.append(log.clone(), Version::NONE, "a record".into()).await.unwrap();
        self.broker.publish_outcome(log, 0, "a record".into()).await.unwrap();
        batch
    }
}

fn log_of(batch: BatchId, run: u64) -> RunLog {
    RunLog { batch, run: RunId::new('j', run), message: "a message".into() }
}

fn options(urls: Vec<String>) -> NatsOptions {
    let mut link = LinkSettings::default();
    link.connect_timeout = Duration::from_secs(2);
    link.request_timeout = Duration::from_secs(2);
    link.ping_interval = Duration::from_millis(500);
    link.pull_expires = Duration::from_secs(2);
    link.pull_heartbeat = Duration::from_millis(500);
    NatsOptions::new(urls).unwrap().link(link)
}

/// Publishes one number after another, each until it is accepted.
async fn publish(broker: Arc<NatsBroker>, accepted: Arc<AtomicUsize>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let n = accepted.load(Ordering::SeqCst);
        let message = Message { lane: lane(), id: format!("m{n}").into(), bytes: n.to_string().into() };
        match broker.publish(message).await {
            Ok(_) => drop(accepted.fetch_add(1, Ordering::SeqCst)),
            Err(error) => assert!(error.is_retryable(), "{error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Takes and acknowledges what comes.
async fn consume(broker: Arc<NatsBroker>, came: Arc<Mutex<HashSet<String>>>) {
    let mut source = broker.lane(lane()).await.unwrap();
    source.grant(usize::MAX, usize::MAX);
    loop {
        let delivery = source.next().await.unwrap();
        delivery.lease.ack(None);
        came.lock().unwrap().insert(String::from_utf8_lossy(&delivery.bytes).into_owned());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_leader_is_killed_and_then_a_follower() {
    let mut yard = Yard::new().await;
    let batch = yard.record().await;
    let leader = yard.cluster.leader_of("WF_JOBS").await;
    yard.cluster.kill(leader);
    yard.goes_on("the leader's death").await;
    yard.cluster.restart(leader);
    yard.cluster.in_step("WF_JOBS").await;
    let follower = (yard.cluster.leader_of("WF_JOBS").await + 1) % 3;
    yard.cluster.kill(follower);
    yard.goes_on("a follower's death").await;
    yard.nothing_is_lost(batch).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn all_are_restarted_one_after_another() {
    let mut yard = Yard::new().await;
    let batch = yard.record().await;
    for n in 0..3 {
        // As an operator would: told to leave, its clients go to the others before it stops.
        yard.cluster.server(n).signal("USR2");
        yard.goes_on("lame duck").await;
        yard.cluster.restart(n);
        for stream in ["WF_JOBS", "WF_RUNS", "WF_RESULTS"] {
            yard.cluster.in_step(stream).await;
        }
        yard.goes_on("a restart").await;
    }
    yard.nothing_is_lost(batch).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_is_cut_off_with_its_clients() {
    let yard = Yard::new().await;
    let batch = yard.record().await;
    let leader = yard.cluster.leader_of("WF_JOBS").await;
    // Somebody who knows no other server: what the minority says it has stored, it must have.
    let mut alone = options(vec![yard.cluster.urls()[leader].clone()]);
    alone = alone.name("alone");
    let inside = NatsBroker::connect(alone).await.unwrap();
    yard.cluster.isolate(leader);
    let message = |n: u32| Message { lane: lane(), id: format!("alone{n}").into(), bytes: "alone".into() };
    let refused = inside.publish(message(0)).await;
    assert!(refused.as_ref().is_err_and(|error| error.is_retryable()), "the minority accepts: {refused:?}");
    // Nor does it let anybody append to a log: its fence would be none.
    let fenced = inside.append(log_of(batch, 2), Version::NONE, "alone".into()).await;
    assert!(fenced.is_err(), "the minority appends: {fenced:?}");
    // Whoever knows the others leaves it for one of them.
    yard.goes_on("a partition").await;
    yard.cluster.rejoin(leader);
    yard.cluster.in_step("WF_JOBS").await;
    yard.goes_on("its end").await;
    yard.nothing_is_lost(batch).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn streams_lie_where_the_factory_says() {
    let cluster = TestCluster::start(3, "server_tags: [\"disk:fast\", \"site:a\"]").await;
    let mut settings = FactorySettings::default();
    settings.replicas = 3;
    settings.placement_cluster = Some("test".into());
    settings.placement_tags = vec!["disk:fast".into()];
    let options = options(cluster.urls());
    setup(&options, &settings, OnDifference::Refuse).await.unwrap();
    // It is read back as it was said, and another place is a difference.
    assert_eq!(NatsBroker::connect(options.clone()).await.unwrap().settings(), &settings);
    let again = setup(&options, &settings, OnDifference::Refuse).await.unwrap();
    assert_eq!((again.created.len(), again.updated.len()), (0, 0), "{again:?}");
    settings.placement_tags = vec!["disk:slow".into()];
    assert!(setup(&options, &settings, OnDifference::Refuse).await.is_err());
    // And no server can have it that is not there.
    let nowhere = setup(&options.prefix("nowhere").unwrap(), &settings, OnDifference::Refuse).await;
    assert!(nowhere.is_err(), "{nowhere:?}");
}
