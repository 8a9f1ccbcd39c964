//! The whole pipeline in one process: enqueue, batch, store, deliver, run, settle, acknowledge.
//!
//! `cargo bench -p wf-bench --bench pipeline`. One element is one job. The embedded broker syncs each group of batches to
//! disk before the producer hears of it; `memory` is what that costs.

#![allow(clippy::panic)]

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tokio::runtime::Runtime;
use work_factory::{Factory, Job, Registry, stock};

const JOBS: u64 = 200_000;
/// How often the executor is asked whether it is done.
const LOOK: Duration = Duration::from_micros(200);

/// The time from the first call until every job is settled.
async fn whole(url: &str, job: &Job<'static>) -> anyhow::Result<Duration> {
    let factory = Factory::connect(url).await?;
    let executor = factory.executor(stock::register(Registry::new()))?;
    let producer = factory.producer();
    let start = Instant::now();
    producer.enqueue_all((0..JOBS).map(|_| job.clone())).await?;
    while executor.stats().completed < JOBS {
        tokio::time::sleep(LOOK).await;
    }
    let took = start.elapsed();
    executor.drain(Duration::from_secs(5)).await;
    factory.close().await?;
    Ok(took)
}

fn pipeline(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pipeline");
    group.throughput(Throughput::Elements(JOBS)).sample_size(10);
    let (Ok(runtime), Ok(folder)) = (Runtime::new(), tempfile::tempdir()) else { return };
    let embedded = format!("embedded:{}", folder.path().join("broker").display());
    let Ok(add) = Job::new("math_add", &serde_json::json!({ "a": 2, "b": 3 })) else { return };
    for (broker, url) in [("memory", "memory://"), ("embedded", embedded.as_str())] {
        for (what, job) in [("math_add", add.clone()), ("math_add, result stored", add.clone().store_result())] {
            group.bench_function(BenchmarkId::new(broker, what), |bencher| {
                bencher.iter_custom(|times| {
                    let one = || runtime.block_on(whole(url, &job)).unwrap_or_else(|error| panic!("{error:#}"));
                    (0..times).map(|_| one()).sum()
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, pipeline);
criterion_main!(benches);
