//! The old design on our broker: a message a job, and nobody does anything else while a round trip lasts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use async_nats::jetstream::consumer::{AckPolicy, PullConsumer, pull};
use async_nats::jetstream::stream::{self, RetentionPolicy};
use async_nats::jetstream::{self, context::Context as JetStream};
use futures::StreamExt;
use tokio::task::JoinSet;

use super::{Numbers, all_begun};
use crate::rounds::Sample;
use crate::work::{self, Check, Pair};
use crate::yard::Yard;

const STREAM: &str = "OLD";
const SUBJECT: &str = "old.math_add";

/// How long a fetch waits for a job: longer than any measurement, so that nobody asks twice.
const WAIT: Duration = Duration::from_secs(300);

/// Enqueues over `workers` connections for `time` while as many others run the jobs, `rtt` away from the broker: jobs a
/// second until the last one has begun.
///
/// Connections are made while the broker is near, for at 200 ms a hundred of them take longer than the measurement.
pub(super) async fn run(yard: &Yard, workers: usize, rtt: Duration, time: Duration) -> anyhow::Result<Sample> {
    yard.link().set_delay(Duration::ZERO);
    let producers = connect(yard, workers).await?;
    let executors = connect(yard, workers).await?;
    let first = executors.first().context("no workers")?;
    // What an earlier measurement left behind, if that failed.
    let _absent = first.delete_stream(STREAM).await;
    let retention = RetentionPolicy::WorkQueue;
    let config = stream::Config { name: STREAM.into(), subjects: vec!["old.>".into()], retention, ..Default::default() };
    let stream = first.create_stream(config).await?;
    let config = pull::Config { durable_name: Some("workers".into()), ack_policy: AckPolicy::Explicit, ..Default::default() };
    stream.create_consumer(config).await?;
    let mut consumers: Vec<PullConsumer> = Vec::new();
    for executor in &executors {
        consumers.push(executor.get_consumer_from_stream("workers", STREAM).await?);
    }
    yard.link().set_delay(rtt / 2);

    let check = Arc::new(Check::default());
    let began = Instant::now();
    let numbers = Arc::new(Numbers::new(time));
    let mut executing = JoinSet::new();
    for consumer in consumers {
        executing.spawn(execute(consumer, check.clone()));
    }
    let mut producing = JoinSet::new();
    for producer in producers {
        producing.spawn(produce(producer, numbers.clone()));
    }
    tokio::select! {
        done = all_begun(producing, &numbers, &check) => done?,
        Some(ended) = executing.join_next() => {
            ended??;
            anyhow::bail!("a worker ended by itself");
        }
    }
    let (took, jobs) = (began.elapsed(), numbers.given());
    check.complete(jobs)?;
    executing.shutdown().await;
    yard.link().set_delay(Duration::ZERO);
    first.delete_stream(STREAM).await?;
    Ok(Sample::rate(jobs, took))
}

async fn connect(yard: &Yard, connections: usize) -> anyhow::Result<Vec<JetStream>> {
    let one = || async { anyhow::Ok(jetstream::new(async_nats::connect(yard.link().url()).await?)) };
    futures::future::try_join_all((0..connections).map(|_| one())).await
}

async fn produce(jetstream: JetStream, numbers: Arc<Numbers>) -> anyhow::Result<()> {
    while let Some(n) = numbers.next() {
        let body = serde_json::to_vec(&work::pair(n))?;
        jetstream.publish(SUBJECT, body.into()).await?.await?;
    }
    Ok(())
}

async fn execute(consumer: PullConsumer, check: Arc<Check>) -> anyhow::Result<()> {
    loop {
        // It waits at the broker: one that came back with empty hands would cost a round trip more.
        let mut fetched = consumer.batch().max_messages(1).expires(WAIT).messages().await?;
        while let Some(message) = fetched.next().await {
            let message = message.map_err(anyhow::Error::from_boxed)?;
            let pair: Pair = serde_json::from_slice(&message.payload)?;
            check.did(pair.a as u64);
            std::hint::black_box(pair.a + pair.b);
            message.double_ack().await.map_err(anyhow::Error::from_boxed)?;
        }
    }
}
