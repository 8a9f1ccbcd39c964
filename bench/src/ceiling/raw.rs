//! The bare loop: async-nats as its documentation shows it, with as much under way as is good for it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use async_nats::jetstream::consumer::{AckPolicy, PullConsumer, pull};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType};
use async_nats::jetstream::{ContextBuilder, context};
use futures::stream::FuturesUnordered;
use futures::{StreamExt, TryStreamExt};
use wf_executor::Args;
use wf_schema::{Batch, BatchBuilder, BatchId, Format, Header, Limits};

use crate::rounds::Sample;
use crate::work::Check;

/// As the profile local has it, where these jobs are small enough that their number fills a batch.
const JOBS_IN_A_BATCH: u64 = 4_000;
/// Messages on their way to the server, and to the consumer.
const WINDOW: usize = 256;
/// The longest wait for one message.
const STUCK: Duration = Duration::from_secs(60);

const STREAM: &str = "BARE";
const SUBJECT: &str = "bare";

/// Publishes and consumes `jobs`, each over a connection of its own.
pub(super) async fn run(url: String, jobs: u64) -> anyhow::Result<Sample> {
    let publishing = connect(&url).await?;
    let consumer = consumer(&connect(&url).await?).await?;
    let check = Arc::new(Check::default());
    let began = Instant::now();
    let publisher = tokio::spawn(publish(publishing.clone(), jobs));
    let consuming = tokio::spawn(consume(consumer, jobs, check.clone()));
    publisher.await??;
    consuming.await??;
    let took = began.elapsed();
    check.complete(jobs)?;
    publishing.delete_stream(STREAM).await?;
    Ok(Sample::rate(jobs, took))
}

async fn connect(url: &str) -> anyhow::Result<context::Context> {
    let client = async_nats::connect(url).await?;
    Ok(ContextBuilder::new()
        .timeout(STUCK)
        .ack_timeout(STUCK)
        .max_ack_inflight(WINDOW)
        .backpressure_on_inflight(true)
        .build(client))
}

async fn consumer(context: &context::Context) -> anyhow::Result<PullConsumer> {
    let config = Config {
        name: STREAM.to_owned(),
        subjects: vec![SUBJECT.to_owned()],
        retention: RetentionPolicy::WorkQueue,
        discard: DiscardPolicy::New,
        storage: StorageType::File,
        duplicate_window: Duration::from_secs(120),
        ..Config::default()
    };
    let stream = context.create_stream(config).await?;
    let config = pull::Config {
        durable_name: Some("bare".to_owned()),
        ack_policy: AckPolicy::Explicit,
        max_ack_pending: 50_000,
        ..pull::Config::default()
    };
    Ok(stream.create_consumer(config).await?)
}

async fn publish(context: context::Context, jobs: u64) -> anyhow::Result<()> {
    let mut waiting = FuturesUnordered::new();
    let mut next = 0;
    while next < jobs {
        let mut batch = BatchBuilder::new(Header::new(BatchId::new(), Format::Postcard));
        let end = (next + JOBS_IN_A_BATCH).min(jobs);
        for n in next..end {
            batch.push(&super::job(n)?)?;
        }
        next = end;
        let message = PublishMessage::build().payload(batch.encode()).message_id(batch.header().id.to_string());
        let answer = context.send_publish(SUBJECT, message).await?;
        waiting.push(answer.into_future());
        while waiting.len() >= WINDOW {
            waiting.next().await.context("an answer is missing")??;
        }
    }
    while let Some(answer) = waiting.next().await {
        answer?;
    }
    Ok(())
}

async fn consume(consumer: PullConsumer, jobs: u64, check: Arc<Check>) -> anyhow::Result<()> {
    let mut messages = consumer.stream().max_messages_per_batch(WINDOW).messages().await?;
    let mut done = 0;
    while done < jobs {
        let message = tokio::time::timeout(STUCK, messages.try_next()).await??.context("the messages ended")?;
        let batch = Batch::decode(&message.payload, &Limits::default())?;
        for job in batch.iter() {
            let n: u64 =
                Args::new(job.args(), batch.header().format, false).read().map_err(|error| anyhow::anyhow!("{error}"))?;
            check.did(n);
        }
        done += batch.len() as u64;
        message.ack().await.map_err(|error| anyhow::anyhow!(error))?;
    }
    Ok(())
}
