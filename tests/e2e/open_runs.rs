//! A run that is open for long keeps its log, however many outcomes of others are recorded meanwhile: it goes on from
//! where it is, and nothing of it runs twice.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use wf_broker::{Broker, Embedded, EmbeddedOptions, Message};
use wf_executor::{Executor, ExecutorOptions, JobContext, JobFailure, Registry};
use wf_nats::testing::{ServerOptions, TestServer};
use wf_nats::{FactorySettings, NatsBroker, NatsOptions};
use wf_schema::{Backoff, BatchBuilder, BatchId, Format, Header, Job, Lane};

use crate::support::{look, until};

const LEASE: Duration = Duration::from_secs(1);
/// So many outcomes are kept, and this many times as many come while the run is open.
const KEPT: u32 = 100;
const FLOOD: usize = 5 * KEPT as usize;

/// How often each job was started, by kind, place and attempt.
type Starts = Arc<Mutex<BTreeMap<(&'static str, u32, u32), u32>>>;

fn registry(starts: &Starts, gate: &Arc<Semaphore>) -> Registry {
    let count = |starts: &Starts, kind, context: &JobContext| {
        *starts.lock().entry((kind, context.id().index, context.attempt())).or_default() += 1;
    };
    let (quick, failing, long) = (starts.clone(), starts.clone(), (starts.clone(), gate.clone()));
    Registry::new()
        .register("flood", |_: JobContext, number: u32| async move { Ok::<_, JobFailure>(number) })
        .register("quick", move |context: JobContext, number: u32| {
            count(&quick, "quick", &context);
            async move { Ok::<_, JobFailure>(number) }
        })
        .register("failing", move |context: JobContext, number: u32| {
            count(&failing, "failing", &context);
            let fails = context.attempt() == 1;
            async move { if fails { Err(JobFailure::retryable("fail", "the first time")) } else { Ok(number) } }
        })
        .register("long", move |context: JobContext, number: u32| {
            let (starts, gate) = long.clone();
            count(&starts, "long", &context);
            async move {
                let passed = gate.acquire().await;
                Ok::<_, JobFailure>(if passed.is_ok() { number } else { 0 })
            }
        })
}

async fn publish(broker: &dyn Broker, lane: &str, jobs: &[Job<'_>]) -> BatchId {
    let mut open = BatchBuilder::new(Header::new(BatchId::new(), Format::Json));
    jobs.iter().for_each(|job| assert!(open.push(job).is_ok()));
    let id = open.header().id;
    let lane: Lane = lane.parse().unwrap();
    broker.publish(Message { lane, id: id.to_string().into(), bytes: open.encode() }).await.unwrap();
    id
}

fn job(kind: &'static str, number: u32) -> Job<'static> {
    Job::new(kind, &number).unwrap().backoff(Backoff { min_ms: 200, max_ms: 200 }).store_result()
}

/// Runs a batch with a long job through a flood of other outcomes.
async fn outlives_a_flood(broker: Arc<dyn Broker>) {
    let (starts, gate) = (Starts::default(), Arc::new(Semaphore::new(0)));
    let options = ExecutorOptions::new("x").unwrap().concurrency(16).unwrap().checkpoint(Duration::from_millis(50)).unwrap();
    let executor = Executor::start(broker.clone(), registry(&starts, &gate), options).unwrap();
    let mut jobs: Vec<_> = (0..5).map(|number| job("quick", number)).collect();
    jobs.extend([job("failing", 5), job("long", 6)]);
    let batch = publish(&*broker, "default.high", &jobs).await;
    let recorded = async || (!broker.read(batch).await.unwrap().is_empty()).then_some(());
    until("the quick jobs are on record", recorded).await;
    let retried = async || starts.lock().contains_key(&("failing", 5, 2)).then_some(());
    until("the retry has run", retried).await;

    let last = {
        let mut last = None;
        for number in 0..FLOOD as u32 {
            last = Some(publish(&*broker, "default.normal", &[job("flood", number)]).await);
        }
        last.unwrap()
    };
    until("the flood is over", async || (!broker.read(last).await.unwrap().is_empty()).then_some(())).await;
    gate.add_permits(100);
    let through = async || {
        let stats = look(&*broker, "default.high").await;
        (stats.pending + stats.in_flight == 0).then_some(())
    };
    until("the run is settled", through).await;
    // Longer than a lease: whatever would come again has.
    tokio::time::sleep(3 * LEASE).await;
    until("nothing came again", through).await;

    let mut wanted: BTreeMap<_, _> = (0..5).map(|number| (("quick", number, 1), 1)).collect();
    wanted.extend([(("failing", 5, 1), 1), (("failing", 5, 2), 1), (("long", 6, 1), 1)]);
    assert_eq!(*starts.lock(), wanted);
    executor.drain(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_run_outlives_a_flood_in_the_embedded_broker() {
    let home = tempfile::tempdir().unwrap();
    let options = EmbeddedOptions::default().lease(LEASE).and_then(|o| o.outcome_records(KEPT.into())).unwrap();
    outlives_a_flood(Embedded::open(home.path(), options).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_run_outlives_a_flood_on_jetstream() {
    let server = TestServer::start(ServerOptions::new());
    let mut settings = FactorySettings::default();
    (settings.lease, settings.results_messages) = (LEASE, KEPT);
    outlives_a_flood(NatsBroker::connect_or_setup(NatsOptions::new([server.url()]).unwrap(), &settings).await.unwrap()).await;
}
