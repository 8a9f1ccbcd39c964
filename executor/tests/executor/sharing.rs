//! Nodes that share a lane: what one cannot start soon, another that has nothing to do gets.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use wf_broker::Key;
use wf_executor::{Executor, JobContext, JobFailure, Registry, stock};
use wf_schema::{Job, JobId, Lane, RunTimes, State};

use crate::yard::{Yard, within};

/// Slow jobs: each says where it starts, and ends when the gate is open.
struct Slow {
    gate: Arc<Semaphore>,
    started: mpsc::UnboundedSender<(&'static str, JobId)>,
    starts: mpsc::UnboundedReceiver<(&'static str, JobId)>,
}

impl Slow {
    fn new() -> Self {
        let (started, starts) = mpsc::unbounded_channel();
        Self { gate: Arc::new(Semaphore::new(0)), started, starts }
    }

    /// An executor of slow jobs and stock ones.
    fn executor(&self, yard: &Yard, name: &'static str, slots: usize) -> Executor {
        let (gate, started) = (self.gate.clone(), self.started.clone());
        let registry = stock::register(Registry::new()).register("slow", move |context: JobContext, ()| {
            let (gate, started) = (gate.clone(), started.clone());
            async move {
                started.send((name, context.id()))?;
                drop(gate.acquire().await?);
                Ok::<_, JobFailure>(name)
            }
        });
        yard.start(registry, slots)
    }

    /// The next `count` starts: where, and which job.
    async fn starts(&mut self, count: usize) -> Vec<(&'static str, JobId)> {
        let mut starts = Vec::new();
        while starts.len() < count {
            starts.push(within("a start", self.starts.recv()).await.unwrap());
        }
        starts
    }

    fn open(&self) {
        self.gate.add_permits(Semaphore::MAX_PERMITS / 2);
    }
}

fn jobs(kind: &'static str, count: usize) -> Vec<Job<'static>> {
    vec![Job::new(kind, &()).unwrap().store_result(); count]
}

/// How many ran where, by what is on record.
fn by_node(records: &BTreeMap<(u32, u32), (State, String)>) -> BTreeMap<String, usize> {
    let mut nodes = BTreeMap::new();
    for (state, node) in records.values() {
        assert_eq!(*state, State::Completed);
        *nodes.entry(node.trim_matches('"').to_owned()).or_default() += 1;
    }
    nodes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cheap_jobs_run_beside_slow_ones() {
    let yard = Yard::new(Duration::from_secs(30));
    let mut slow = Slow::new();
    let executor = slow.executor(&yard, "a", 4);
    yard.publish(&jobs("slow", 3)).await;
    slow.starts(3).await;
    // The slow ones run until all cheap ones are done.
    for _ in 0..5 {
        let cheap = yard.publish(&jobs("noop", 200)).await;
        yard.until_final(cheap, 200).await;
    }
    assert_eq!(executor.stats().running, 3);
    slow.open();
    assert!(within("the drain", executor.drain(None)).await.confirmed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_node_runs_the_cheap_jobs_that_wait_behind_slow_ones() {
    let yard = Yard::new(Duration::from_secs(30));
    let mut slow = Slow::new();
    let busy = slow.executor(&yard, "busy", 2);
    yard.publish(&jobs("slow", 10)).await;
    slow.starts(2).await;
    // It comes to the busy node, which has asked for more when it was idle, and waits there.
    let cheap = yard.publish(&jobs("noop", 100)).await;
    while busy.stats().deliveries < 2 {
        tokio::task::yield_now().await;
    }
    let idle = slow.executor(&yard, "idle", 2);
    yard.until_final(cheap, 100).await;
    assert_eq!((busy.stats().completed, busy.stats().handed_on), (0, 1));
    // Then it helps with the slow ones.
    assert_eq!(slow.starts(2).await.iter().map(|(node, _)| *node).collect::<Vec<_>>(), ["idle"; 2]);
    slow.open();
    slow.starts(6).await;
    for executor in [busy, idle] {
        assert!(within("the drain", executor.drain(None)).await.confirmed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_node_has_fetched_another_can_run() {
    let yard = Yard::new(Duration::from_secs(30));
    let mut slow = Slow::new();
    let hoarder = slow.executor(&yard, "hoarder", 1);
    for _ in 0..4 {
        yard.publish(&jobs("slow", 1)).await;
    }
    while hoarder.stats().deliveries < 4 {
        tokio::task::yield_now().await;
    }
    let idle = slow.executor(&yard, "idle", 4);
    let starts = slow.starts(4).await;
    assert_eq!(starts.iter().filter(|(node, _)| *node == "idle").count(), 3, "{starts:?}");
    assert_eq!((hoarder.stats().handed_on, hoarder.stats().running), (3, 1));
    slow.open();
    for executor in [hoarder, idle] {
        assert!(within("the drain", executor.drain(None)).await.confirmed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_of_slow_jobs_is_shared_by_all_who_wait() {
    let yard = Yard::new(Duration::from_secs(30));
    let mut slow = Slow::new();
    let executors = ["a", "b", "c", "d"].map(|name| slow.executor(&yard, name, 2));
    let batch = yard.publish(&jobs("slow", 40)).await;
    // Before any of them has ended, all four nodes are at work.
    let first = slow.starts(8).await;
    let nodes: BTreeSet<_> = first.iter().map(|(node, _)| *node).collect();
    assert_eq!(nodes.len(), 4, "{first:?}");
    slow.open();
    let all: BTreeSet<_> = first.into_iter().chain(slow.starts(32).await).map(|(_, job)| job).collect();
    assert_eq!(all.len(), 40, "each starts once");
    let records = yard.until_final(batch, 40).await;
    assert!(records.keys().all(|(_, attempt)| *attempt == 1), "moving is not an attempt");
    assert!(by_node(&records).len() == 4);
    for executor in executors {
        assert!(within("the drain", executor.drain(None)).await.confirmed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_that_were_given_back_run_as_many_at_once_as_others() {
    let yard = Yard::new(Duration::from_secs(30));
    for _ in 0..40 {
        yard.publish(&jobs("slow", 1)).await;
    }
    let mut source = yard.broker.lane(Lane::default()).await.unwrap();
    source.grant(40, 1 << 20);
    let mut taken = Vec::new();
    while taken.len() < 40 {
        taken.push(within("a delivery", source.next()).await.unwrap());
    }
    taken.iter().for_each(|delivery| delivery.lease.release(Duration::ZERO));
    let mut slow = Slow::new();
    let executor = slow.executor(&yard, "a", 50);
    slow.starts(40).await;
    assert_eq!((executor.stats().redeliveries, executor.stats().running), (40, 40));
    slow.open();
    assert!(within("the drain", executor.drain(None)).await.confirmed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_alone_keeps_everything() {
    let yard = Yard::new(Duration::from_secs(30));
    let executor = yard.start(stock::register(Registry::new()), 1);
    let sleep = Job::new("sleep", &serde_json::json!({"ms": 10})).unwrap().store_result();
    let batches = [yard.publish(&vec![sleep.clone(); 30]).await, yard.publish(&vec![sleep; 30]).await];
    for batch in batches {
        yard.until_final(batch, 30).await;
    }
    let stats = executor.stats();
    assert_eq!((stats.moved, stats.split, stats.released, stats.redeliveries), (0, 0, 0, 0));
    assert!(within("the drain", executor.drain(None)).await.confirmed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn run_times_are_measured_and_shared() {
    let yard = Yard::new(Duration::from_secs(30));
    let executors = ["a", "b"].map(|_| yard.start(stock::register(Registry::new()), 10));
    let sleep = Job::new("sleep", &serde_json::json!({"ms": 20})).unwrap();
    yard.publish(&vec![sleep; 20]).await;
    yard.publish(&jobs("noop", 20)).await;
    let key = Key::new(RunTimes::KEY).unwrap();
    let entry = within("the record", yard.broker.watch_key(key, None)).await.unwrap().unwrap();
    let times = RunTimes::decode(&entry.bytes).unwrap();
    let time = times.get("sleep").unwrap();
    assert!((Duration::from_millis(19)..Duration::from_secs(5)).contains(&time), "{time:?}");
    for executor in executors {
        assert!(within("the drain", executor.drain(None)).await.confirmed);
    }
}
