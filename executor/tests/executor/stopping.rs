//! How an executor ends.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use wf_executor::{DrainReport, Executor, ExecutorError, ExecutorOptions, JobContext, JobFailure, Registry, stock};
use wf_schema::{Job, State};

use crate::yard::{Yard, within};

/// A registry with `wait`, which says that it has started and waits until it is told to go on, and the two ends.
fn waiting() -> (Registry, mpsc::UnboundedReceiver<u32>, Arc<Notify>) {
    let (started, starts) = mpsc::unbounded_channel();
    let go = Arc::new(Notify::new());
    let on = go.clone();
    let registry = stock::register(Registry::new()).register("wait", move |context: JobContext, ()| {
        let (started, on) = (started.clone(), on.clone());
        async move {
            started.send(context.id().index)?;
            on.notified().await;
            Ok::<_, JobFailure>(())
        }
    });
    (registry, starts, go)
}

fn job(kind: &str) -> Job<'_> {
    Job::new(kind, &()).unwrap().store_result()
}

/// A drain that has begun when this returns.
fn begun(executor: &Arc<Executor>) -> JoinHandle<DrainReport> {
    let executor = executor.clone();
    let mut drain = async move { executor.drain(Duration::from_secs(60)).await }.boxed();
    assert!((&mut drain).now_or_never().is_none(), "it has ended before what runs did");
    tokio::spawn(drain)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_gives_back_what_has_not_started_and_waits_for_what_runs() {
    let yard = Yard::new(Duration::from_secs(30));
    let (registry, mut starts, go) = waiting();
    let executor = Arc::new(yard.start(registry, 1));
    let first = yard.publish(&[job("wait")]).await;
    within("the start", starts.recv()).await.unwrap();
    yard.publish(&[job("wait")]).await;
    let drain = begun(&executor);
    // The second comes to others at once, while the first still runs.
    let second = yard.take().await;
    assert!(!drain.is_finished());
    go.notify_one();
    let report = within("the drain", drain).await.unwrap();
    assert!(report.confirmed);
    assert_eq!((report.finished, report.abandoned), (1, 0));
    assert_eq!(yard.records(first).await[&(0, 1)].0, State::Completed);
    assert_eq!(executor.stats().acked, 1);
    drop(second);
    within("the end", executor.stopped()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn past_the_deadline_what_is_done_is_settled_and_the_rest_given_back() {
    let yard = Yard::new(Duration::from_secs(30));
    let (registry, mut starts, _go) = waiting();
    let executor = yard.start(registry, 10);
    let batch = yard.publish(&[job("noop"), job("wait"), job("noop")]).await;
    within("the start", starts.recv()).await.unwrap();
    let report = within("the drain", executor.drain(Duration::ZERO)).await;
    assert_eq!((report.finished, report.released, report.abandoned), (0, 1, 0));
    let records = yard.records(batch).await;
    assert_eq!(records.keys().map(|(index, _)| *index).collect::<Vec<_>>(), [0, 2]);

    // Another takes it up where it was left.
    let (registry, mut starts, go) = waiting();
    go.notify_one();
    let executor = yard.start(registry, 10);
    assert_eq!(within("the start", starts.recv()).await, Some(1));
    assert_eq!(yard.until_final(batch, 3).await.len(), 3);
    within("the drain", executor.drain(None)).await;
    let stats = executor.stats();
    assert_eq!((stats.redeliveries, stats.skipped, stats.completed, stats.acked), (1, 2, 1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_rest_is_finished_rather_than_given_back() {
    let yard = Yard::new(Duration::from_secs(30));
    let (registry, mut starts, go) = waiting();
    // One slot: the quick jobs behind the one that waits have not started when the drain begins.
    let executor = Arc::new(yard.start(registry, 1));
    let batch = yard.publish(&[job("noop"), job("wait"), job("noop"), job("noop")]).await;
    within("the start", starts.recv()).await.unwrap();
    let drain = begun(&executor);
    go.notify_one();
    let report = within("the drain", drain).await.unwrap();
    assert_eq!((report.finished, report.released), (1, 0));
    assert_eq!(yard.records(batch).await.len(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_executor_loses_nothing() {
    let yard = Yard::new(Duration::from_millis(300));
    let (registry, mut starts, _go) = waiting();
    let executor = yard.start(registry, 10);
    let batch = yard.publish(&[job("noop"), job("wait")]).await;
    within("the start", starts.recv()).await.unwrap();
    drop(executor);

    let (registry, _starts, go) = waiting();
    go.notify_one();
    let executor = yard.start(registry, 10);
    let records = yard.until_final(batch, 2).await;
    assert!(records.values().all(|(state, _)| *state == State::Completed));
    within("the drain", executor.drain(None)).await;
    assert_eq!(executor.stats().redeliveries, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_broker_will_not_mend_stops_it() {
    let yard = Yard::new(Duration::from_secs(30));
    let executor = yard.start(stock::register(Registry::new()), 10);
    let batch = yard.publish(&[job("noop")]).await;
    yard.until_final(batch, 1).await;
    within("close", yard.broker.close()).await.unwrap();
    let error = within("the end", executor.stopped()).await.unwrap_err();
    assert!(matches!(error, ExecutorError::Broker(_)), "{error}");
    assert!(!error.is_retryable());
}

#[test]
fn without_a_runtime_or_with_a_wrong_kind_it_does_not_start() {
    let yard = Yard::new(Duration::from_secs(30));
    let start = |registry| Executor::start(yard.broker.clone(), registry, ExecutorOptions::new("x").unwrap());
    assert!(matches!(start(Registry::new()), Err(ExecutorError::NoRuntime)));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _inside = runtime.enter();
    let wrong = Registry::new().register_handler("two words", stock::Noop);
    assert!(matches!(start(wrong), Err(ExecutorError::Kind(_))));
}
