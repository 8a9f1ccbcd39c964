//! The embedded broker on disk, beside a bare file that is written and synced in the same run: the ceiling.
//!
//! Messages of 16 KiB, 256 under way at once. `cargo bench -p wf-broker`; a disk of its own (`TMPDIR`) gives steadier
//! numbers.
#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use futures::StreamExt;
use tokio::runtime::Runtime;
use wf_broker::{Broker, Consume, DeliverySource, Embedded, EmbeddedOptions, Message, Publish};
use wf_schema::{BatchId, Lane};

const MESSAGE: usize = 16 << 10;
const MESSAGES: usize = 2048;
const UNDER_WAY: usize = 256;

/// Bytes that do not compress, as batches do not.
fn body() -> Bytes {
    std::iter::repeat_with(|| fastrand::u8(..)).take(MESSAGE).collect()
}

async fn publish(broker: &Arc<Embedded>, body: &Bytes) {
    let publish = |_| {
        let id = BatchId::new().to_string().into();
        broker.publish(Message { lane: Lane::default(), id, bytes: body.clone() })
    };
    futures::stream::iter(0..MESSAGES)
        .map(publish)
        .buffer_unordered(UNDER_WAY)
        .for_each(async |stored| assert!(!stored.unwrap().duplicate))
        .await;
}

async fn consume(source: &mut dyn DeliverySource) {
    source.grant(MESSAGES, MESSAGES * MESSAGE);
    for _ in 0..MESSAGES {
        source.next().await.unwrap().lease.ack(None);
    }
}

fn file(sync_every: usize) -> Duration {
    let folder = tempfile::tempdir().unwrap();
    let mut file = File::create(folder.path().join("file")).unwrap();
    let body = body();
    let begun = Instant::now();
    for _ in 0..MESSAGES / sync_every {
        for _ in 0..sync_every {
            file.write_all(&body).unwrap();
        }
        file.sync_data().unwrap();
    }
    begun.elapsed()
}

fn benches(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let mut group = criterion.benchmark_group("embedded 16 KiB");
    group.throughput(Throughput::Bytes((MESSAGES * MESSAGE) as u64)).sample_size(10).measurement_time(Duration::from_secs(8));

    group.bench_function("a bare file, synced every 256", |bencher| {
        bencher.iter_custom(|times| (0..times).map(|_| file(UNDER_WAY)).sum());
    });

    let folder = tempfile::tempdir().unwrap();
    let broker = Embedded::open(folder.path(), EmbeddedOptions::default()).unwrap();
    let mut source = runtime.block_on(broker.lane(Lane::default())).unwrap();
    let body = body();

    group.bench_function("publish", |bencher| {
        bencher.iter_custom(|times| {
            let mut spent = Duration::ZERO;
            for _ in 0..times {
                let begun = Instant::now();
                runtime.block_on(publish(&broker, &body));
                spent += begun.elapsed();
                runtime.block_on(async {
                    consume(&mut *source).await;
                    broker.settled().await.unwrap();
                });
            }
            spent
        });
    });

    group.bench_function("deliver and acknowledge", |bencher| {
        bencher.iter_custom(|times| {
            let mut spent = Duration::ZERO;
            for _ in 0..times {
                runtime.block_on(publish(&broker, &body));
                let begun = Instant::now();
                runtime.block_on(async {
                    consume(&mut *source).await;
                    broker.settled().await.unwrap();
                });
                spent += begun.elapsed();
            }
            spent
        });
    });

    group.bench_function("publish, deliver and acknowledge at once", |bencher| {
        bencher.iter(|| {
            runtime.block_on(async {
                let publishing = {
                    let (broker, body) = (Arc::clone(&broker), body.clone());
                    tokio::spawn(async move { publish(&broker, &body).await })
                };
                consume(&mut *source).await;
                publishing.await.unwrap();
                broker.settled().await.unwrap();
            });
        });
    });
    group.finish();

    let mut group = criterion.benchmark_group("embedded, one at a time");
    group.bench_function("publish", |bencher| {
        bencher.iter(|| {
            let id = BatchId::new().to_string().into();
            runtime.block_on(broker.publish(Message { lane: Lane::default(), id, bytes: body.clone() })).unwrap();
            source.grant(1, MESSAGE);
            runtime.block_on(source.next()).unwrap().lease.ack(None);
        });
    });
    group.finish();
    runtime.block_on(broker.close()).unwrap();
    drop((source, broker));

    let mut group = criterion.benchmark_group("embedded, 100,000 messages of 1 KiB pending");
    group.sample_size(10);
    let broker = Embedded::open(folder.path(), EmbeddedOptions::default()).unwrap();
    for _ in 0..100 {
        let message = |_| {
            let id = BatchId::new().to_string().into();
            Message { lane: Lane::default(), id, bytes: body.slice(..1 << 10) }
        };
        runtime.block_on(broker.publish_all((0..1000).map(message).collect())).unwrap();
    }
    drop(broker);
    // The end writes nothing that a crash would not: what is opened has to be read from the journal.
    group.bench_function("open", |bencher| {
        bencher.iter_custom(|times| {
            let open = |_| {
                let begun = Instant::now();
                let broker = Embedded::open(folder.path(), EmbeddedOptions::default()).unwrap();
                let spent = begun.elapsed();
                drop(broker);
                spent
            };
            (0..times).map(open).sum()
        });
    });
    group.finish();
}

criterion_group!(embedded, benches);
criterion_main!(embedded);
