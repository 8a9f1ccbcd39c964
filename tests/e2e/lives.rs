//! Executors that die, freeze or are held up: what they had is run by others, what they say afterwards does not count,
//! and what kills them is found out.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use wf_broker::{Broker, Message};
use wf_executor::{Executor, ExecutorOptions, JobContext, JobFailure, Registry, stock};
use wf_nats::testing::{ServerOptions, TestServer};
use wf_nats::{FactorySettings, NatsBroker, NatsOptions};
use wf_schema::{BatchBuilder, BatchId, Format, Header, Job, Lane, Limits};

use crate::support::{Heard, Process, Stage, connect, dead_letters, look, outcomes_of, sleeps, until};

/// Where a node of the tests' own finds its broker.
const BROKER: &str = "LIVES_BROKER";

const LEASE: Duration = Duration::from_secs(1);

async fn factory(server: &TestServer) -> Arc<NatsBroker> {
    let mut settings = FactorySettings::default();
    settings.lease = LEASE;
    NatsBroker::connect_or_setup(NatsOptions::new([server.url()]).unwrap(), &settings).await.unwrap()
}

async fn publish(broker: &dyn Broker, jobs: &[Job<'_>]) -> BatchId {
    let mut open = BatchBuilder::new(Header::new(BatchId::new(), Format::Json));
    jobs.iter().for_each(|job| assert!(open.push(job).is_ok()));
    let id = open.header().id;
    broker.publish(Message { lane: Lane::default(), id: id.to_string().into(), bytes: open.encode() }).await.unwrap();
    id
}

fn abort() -> Result<(), JobFailure> {
    std::process::abort()
}

/// A node with a handler that no program should have, as a process of its own.
#[tokio::test]
#[ignore = "a part of other tests, which start it"]
async fn a_node() {
    let url = std::env::var(BROKER).expect("it is started by other tests");
    let broker = NatsBroker::connect(NatsOptions::new([url]).unwrap()).await.unwrap();
    let registry = stock::register(Registry::new()).register("abort", |_: JobContext, ()| async { abort() });
    let options = ExecutorOptions::new("node").unwrap().concurrency(8).unwrap();
    Executor::start(broker, registry, options).unwrap().stopped().await.unwrap();
}

fn node(stage: &Stage, server: &TestServer) -> Process {
    let mut command = stage.command(std::env::current_exe().unwrap());
    command.args(["--exact", "lives::a_node", "--ignored", "--nocapture"]).env(BROKER, server.url()).stdin(Stdio::null());
    stage.started_as("a node", command)
}

#[tokio::test]
async fn a_job_that_kills_its_executor_ends_alone() {
    let server = TestServer::start(ServerOptions::new());
    let stage = Stage::new();
    let broker = factory(&server).await;
    let echo = |n: u32| Job::new("echo", &n).unwrap().store_result();
    let slow = Job::new("sleep", &BTreeMap::from([("ms", 1_500)])).unwrap().store_result();
    let mut poisoned: Vec<_> = (0..40).map(echo).collect();
    poisoned[13] = Job::new("abort", &()).unwrap();
    let poisoned = publish(&*broker, &poisoned).await;
    // On the same node at the same time, and not through when it dies.
    let innocent = [publish(&*broker, &vec![slow.clone(); 6]).await, publish(&*broker, &[slow]).await];

    // As whatever keeps programs running would do it.
    let mut deaths = 0;
    let mut running = node(&stage, &server);
    let batches = [&innocent[..], &[poisoned]].concat().into_iter().collect();
    let found = until("all outcomes", async || {
        if !running.is_running() {
            deaths += 1;
            running = node(&stage, &server);
        }
        let found = outcomes_of(&*broker, &batches).await;
        (found.len() == 47).then_some(found)
    })
    .await;
    let killed: Vec<_> = found.iter().filter(|(_, told)| !told.contains("completed 1")).collect();
    assert_eq!(killed.len(), 1, "{killed:?}");
    assert!(killed[0].0.index == 13 && killed[0].1.starts_with("abort discarded 1 executor_lost"), "{killed:?}");
    // Twice before care is taken, once with its batch, three times alone; once more where a death was not heard of.
    assert!((6..=9).contains(&deaths), "{deaths} executors died");
    let letters = dead_letters(&*broker).await;
    let dead = letters[0].jobs(&Limits::default()).unwrap().unwrap();
    assert_eq!((letters.len(), dead.len(), dead.get(0).unwrap().index()), (1, 1, 13));
    until("the lane to be empty", async || {
        let stats = look(&*broker, "default.normal").await;
        (stats.pending + stats.in_flight == 0).then_some(())
    })
    .await;
    assert!(running.is_running());
}

#[tokio::test]
async fn an_executor_that_was_frozen_past_its_lease_settles_nothing() {
    const JOBS: usize = 12;
    let server = TestServer::start(ServerOptions::new());
    let stage = Stage::new();
    let eye = factory(&server).await;
    let heard = Heard::listen(eye.clone()).await;
    stage.file("jobs.ndjson", sleeps(JOBS as u64, 500, ",\"store_result\":true"));
    stage.run(&format!("enqueue jobs.ndjson --broker {}", server.url())).await.expect(0);
    let start = || stage.start(&format!("executor --broker {} --concurrency 2", server.url()));
    let mut zombie = start();
    // It has recorded something, and is in the middle of more.
    until("a record", async || (!heard.batches().is_empty()).then_some(())).await;
    zombie.signal("STOP");
    let mut other = start();
    until("all outcomes", async || (outcomes_of(&*eye, &heard.batches()).await.len() == JOBS).then_some(())).await;
    zombie.signal("CONT");
    zombie.says("another executor has taken the batch over").await;
    // Nothing came twice of what it had begun, nor was anything taken from the lane.
    let found = outcomes_of(&*eye, &heard.batches()).await;
    assert!(found.len() == JOBS && found.values().all(|told| told == "sleep completed 1 null"), "{found:?}");
    let stats = look(&*eye, "default.normal").await;
    assert_eq!((stats.pending, stats.in_flight), (0, 0));
    for process in [&mut zombie, &mut other] {
        process.signal("TERM");
        process.wait().await.expect(0);
    }
}

#[tokio::test]
async fn a_second_signal_ends_an_executor_at_once_and_loses_nothing() {
    let server = TestServer::start(ServerOptions::new());
    let stage = Stage::new();
    let eye = factory(&server).await;
    let echo = Job::new("echo", &1).unwrap().store_result();
    let long = Job::new("sleep", &BTreeMap::from([("ms", 3_000)])).unwrap().store_result();
    let batch = publish(&*eye, &[echo, long]).await;
    let start = || stage.start(&format!("executor --broker {}", server.url()));
    let mut first = start();
    until("the first to have work", async || (look(&*eye, "default.normal").await.in_flight > 0).then_some(())).await;
    // Two different ones: of two that are the same, the system may make one.
    first.signal("TERM");
    first.says("draining").await;
    first.signal("INT");
    first.wait().await.expect(130);
    assert_eq!(outcomes_of(&*eye, &[batch].into()).await.values().filter(|told| told.starts_with("sleep")).count(), 0);
    let mut second = start();
    let found = until("all outcomes", async || {
        let found = outcomes_of(&*eye, &[batch].into()).await;
        (found.len() == 2).then_some(found)
    })
    .await;
    assert!(found.values().all(|told| told.contains(" completed 1 ")), "{found:?}");
    second.signal("TERM");
    second.wait().await.expect(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handlers_that_block_every_thread_of_their_runtime_lose_no_lease() {
    let server = TestServer::start(ServerOptions::new());
    let broker = factory(&server).await;
    // What is tested is that nothing else moves on this runtime for several leases.
    let registry = Registry::new().register("block", |_: JobContext, ()| async {
        std::thread::sleep(4 * LEASE);
        Ok::<_, JobFailure>(())
    });
    let executor = Executor::start(broker.clone(), registry, ExecutorOptions::new("x").unwrap()).unwrap();
    let eye = connect(&server).await;
    let block = Job::new("block", &()).unwrap().store_result();
    let batches = [publish(&*eye, std::slice::from_ref(&block)).await, publish(&*eye, &[block]).await].into();
    until("the outcomes", async || (outcomes_of(&*eye, &batches).await.len() == 2).then_some(())).await;
    executor.drain(None).await;
    let stats = executor.stats();
    assert_eq!((stats.deliveries, stats.redeliveries, stats.fenced, stats.acked), (2, 0, 0, 2));
}
