//! How fast jobs get into a broker that keeps them in memory: many at a time, one at a time from many callers, and as
//! NDJSON over HTTP. `cargo bench -p wf-ingest`
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::convert::Infallible;
use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use futures::future::join_all;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use wf_broker::{Broker, Embedded, EmbeddedOptions};
use wf_ingest::{HttpOptions, HttpState, Producer, ProducerOptions, Server};
use wf_schema::Job;

const BULK: usize = 1_000_000;
const CALLERS: usize = 1_000;
const EACH: usize = 100;

fn broker() -> Arc<dyn Broker> {
    Embedded::memory(EmbeddedOptions::default()).unwrap()
}

fn job(n: usize) -> Job<'static> {
    Job::new("math_add", &serde_json::json!({"a": n, "b": 1})).unwrap()
}

fn in_process(c: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let jobs: Vec<Job<'static>> = (0..BULK).map(job).collect();
    let mut group = c.benchmark_group("enqueue");
    group.sample_size(10);

    group.throughput(Throughput::Elements(BULK as u64));
    group.bench_function("enqueue_all, 1M jobs", |b| {
        b.iter_batched(
            broker,
            |broker| {
                runtime.block_on(async {
                    let producer = Producer::new(broker, ProducerOptions::default());
                    // What is borrowed from costs no copy.
                    let borrowed = jobs.iter().map(|job| Job {
                        kind: (&*job.kind).into(),
                        args: (&*job.args).into(),
                        lane: job.lane.clone(),
                        policy: job.policy.clone(),
                        ..*job
                    });
                    black_box(producer.enqueue_all(borrowed).await.unwrap());
                    let stats = producer.stats();
                    assert_eq!(stats.jobs, BULK as u64);
                });
            },
            BatchSize::PerIteration,
        );
    });

    group.throughput(Throughput::Elements((CALLERS * EACH) as u64));
    group.bench_function("enqueue, 1000 callers", |b| {
        b.iter_batched(
            broker,
            |broker| {
                runtime.block_on(async {
                    let producer = Producer::new(broker, ProducerOptions::default());
                    let callers = (0..CALLERS).map(|_| {
                        let producer = producer.clone();
                        tokio::spawn(async move {
                            for n in 0..EACH {
                                producer.enqueue(job(n)).await.unwrap();
                            }
                        })
                    });
                    join_all(callers).await.into_iter().for_each(Result::unwrap);
                });
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

fn over_http(c: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let mut group = c.benchmark_group("http");
    group.sample_size(10);
    let pieces: Vec<Bytes> = (0..BULK / 1_000)
        .map(|piece| {
            let line = |n| format!("{{\"kind\":\"math_add\",\"args\":{{\"a\":{n},\"b\":1}}}}\n");
            (0..1_000).map(|n| line(1_000 * piece + n)).collect::<String>().into()
        })
        .collect();
    group.throughput(Throughput::Elements(BULK as u64));
    group.bench_function("NDJSON, 1M jobs in one request", |b| {
        b.iter_batched(
            broker,
            |broker| {
                runtime.block_on(async {
                    let state = HttpState::new(Producer::new(broker, ProducerOptions::default()), HttpOptions::default());
                    let server = Server::bind(([127, 0, 0, 1], 0).into(), state).await.unwrap();
                    let url = format!("http://{}/v1/jobs/batch", server.local_addr());
                    let stop = CancellationToken::new();
                    let served = tokio::spawn(server.serve(stop.clone()));
                    let body = futures::stream::iter(pieces.clone().into_iter().map(Ok::<_, Infallible>));
                    let request = reqwest::Client::new().post(url).header("content-type", "application/x-ndjson");
                    let answer = request.body(reqwest::Body::wrap_stream(body)).send().await.unwrap();
                    assert_eq!(answer.status().as_u16(), 202);
                    let answer: serde_json::Value = answer.json().await.unwrap();
                    assert_eq!(answer["accepted"], BULK);
                    stop.cancel();
                    served.await.unwrap();
                });
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, in_process, over_http);
criterion_main!(benches);
