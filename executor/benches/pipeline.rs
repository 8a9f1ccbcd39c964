//! How fast jobs go through an executor: batches that wait in a broker in memory, typed handlers, settling and all.
//!
//! `cargo bench -p wf-executor`. One element is one job; `one core` runs the handlers on one thread.

use std::error::Error;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tokio::runtime::{Builder, Runtime};
use wf_broker::{Embedded, EmbeddedOptions, Message, Publish};
use wf_executor::{Executor, ExecutorOptions, JobContext, JobFailure, Registry, stock};
use wf_schema::{BatchBuilder, BatchId, Format, Header, Job, Lane};

const BATCHES: u64 = 256;
const JOBS: u64 = 1_000;

type Failed = Box<dyn Error>;

fn registry() -> Registry {
    stock::register(Registry::new()).register("typed_noop", |_: JobContext, _: ()| async { Ok::<_, JobFailure>(()) }).register(
        "yield",
        |_: JobContext, _: ()| async {
            tokio::task::yield_now().await;
            Ok::<_, JobFailure>(())
        },
    )
}

fn batch(job: &Job<'_>) -> Result<bytes::Bytes, Failed> {
    let mut open = BatchBuilder::new(Header::new(BatchId::new(), Format::Json));
    for _ in 0..JOBS {
        open.push(job)?;
    }
    Ok(open.encode())
}

/// From the start of an executor until all that waited is acknowledged.
async fn run(job: &Job<'_>) -> Result<Duration, Failed> {
    let broker = Embedded::memory(EmbeddedOptions::default())?;
    for n in 0..BATCHES {
        broker.publish(Message { lane: Lane::default(), id: n.to_string().into(), bytes: batch(job)? }).await?;
    }
    let began = Instant::now();
    let executor = Executor::start(broker, registry(), ExecutorOptions::new("bench")?)?;
    while executor.stats().acked < BATCHES {
        tokio::time::sleep(Duration::from_micros(500)).await;
    }
    let took = began.elapsed();
    let stats = executor.stats();
    if stats.completed != BATCHES * JOBS {
        return Err(format!("not all jobs completed: {stats:?}").into());
    }
    Ok(took)
}

fn measure(runtime: &Runtime, job: &Job<'_>, times: u64) -> Duration {
    (0..times).map(|_| runtime.block_on(run(job)).unwrap_or_else(|error| fail(&*error))).sum()
}

fn fail(error: &dyn Error) -> ! {
    #[allow(clippy::print_stderr, reason = "a bench has nobody else to tell")]
    {
        eprintln!("{error}");
    }
    std::process::exit(1)
}

fn pipeline(criterion: &mut Criterion) {
    let jobs = || -> Result<_, Failed> {
        Ok([
            ("typed no-op", Job::new("typed_noop", &())?),
            ("math_add", Job::new("math_add", &serde_json::json!({"a": 2, "b": 3}))?),
            ("math_add, result stored", Job::new("math_add", &serde_json::json!({"a": 2, "b": 3}))?.store_result()),
            ("waits once", Job::new("yield", &())?),
        ])
    };
    let jobs = jobs().unwrap_or_else(|error| fail(&*error));
    let mut group = criterion.benchmark_group("pipeline");
    group.throughput(Throughput::Elements(BATCHES * JOBS)).sample_size(10).measurement_time(Duration::from_secs(5));
    for (threads, label) in [(1, "one core"), (2, "two cores")] {
        let Ok(runtime) = Builder::new_multi_thread().worker_threads(threads).enable_all().build() else { return };
        for (name, job) in &jobs {
            group.bench_function(BenchmarkId::new(*name, label), |bencher| {
                bencher.iter_custom(|times| measure(&runtime, job, times));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, pipeline);
criterion_main!(benches);
