//! What the broker has at the end of a round: outcomes on record, dead letters, and jobs that still wait.

use std::time::Duration;

use anyhow::Context;
use async_nats::jetstream::consumer::pull::OrderedConfig;
use async_nats::jetstream::{self, stream};
use bytes::Bytes;
use futures::StreamExt;
use serde_json::Value;
use wf_broker::Broker;
use wf_schema::{Batch, DeadLetter, Header, Lane, Limits, Record, Remains, now};
use work_factory::Factory;

use super::clock::Clock;
use super::evidence::{Evidence, Settled};
use super::order::Task;

/// How long the next message may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// The most messages that are looked at one by one.
const LOOKED_AT: u64 = 20_000;

/// A connection past all links, as the harness's own.
pub(crate) struct Archive {
    context: jetstream::Context,
    clock: Clock,
}

impl Archive {
    /// Of the NATS server at `url`, or of several of a cluster, with commas.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub(crate) async fn of(url: &str) -> anyhow::Result<Self> {
        let client = async_nats::connect(url.split(',').collect::<Vec<_>>()).await.context("the server cannot be reached")?;
        let context = jetstream::ContextBuilder::new().timeout(PATIENCE).build(client);
        Ok(Self { context, clock: Clock::new() })
    }

    /// The messages that wait to be delivered, or to be acknowledged, or for their time.
    ///
    /// # Errors
    /// When the server does not tell.
    pub(crate) async fn waiting(&self) -> anyhow::Result<u64> {
        let mut messages = 0;
        for name in ["WF_JOBS", "WF_LATER"] {
            messages += self.context.get_stream(name).await?.cached_info().state.messages;
        }
        Ok(messages)
    }

    /// Adds the dead letters, by key.
    ///
    /// # Errors
    /// When they cannot be read.
    pub(crate) async fn add_dead(&self, evidence: &mut Evidence) -> anyhow::Result<()> {
        self.each("WF_DEAD", |at, payload| {
            for key in dead_keys(payload)? {
                evidence.dead.entry(key).or_insert(at);
            }
            Ok(())
        })
        .await
    }

    /// Adds everything.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) async fn add_to(&self, evidence: &mut Evidence) -> anyhow::Result<()> {
        self.add_dead(evidence).await?;
        let settled = &mut evidence.settled;
        self.each("WF_RESULTS", |at, payload| {
            add_record(payload, at, settled);
            Ok(())
        })
        .await?;
        for name in ["WF_JOBS", "WF_LATER"] {
            let stream = self.context.get_stream(name).await?;
            let state = &stream.cached_info().state;
            let last = state.last_sequence.min(state.first_sequence.saturating_add(LOOKED_AT));
            for sequence in (state.first_sequence..=last).take_while(|_| state.messages > 0) {
                // A gap is a message that was acknowledged.
                if let Ok(message) = stream.get_raw_message(sequence).await {
                    evidence.waiting.extend(waiting_keys(&message.payload));
                }
            }
        }
        Ok(())
    }

    /// Goes through all messages of a stream: when the server stored each, by our clock, and what it says.
    async fn each(&self, name: &str, mut see: impl FnMut(u64, &Bytes) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let stream: stream::Stream = self.context.get_stream(name).await?;
        if stream.cached_info().state.messages == 0 {
            return Ok(());
        }
        let ahead = now().saturating_sub(self.clock.now());
        let mut messages = stream.create_consumer(OrderedConfig::default()).await?.messages().await?;
        loop {
            let next = tokio::time::timeout(PATIENCE, messages.next()).await.context("the server sends no more")?;
            let message = next.context("the server ends the stream")??;
            let info = message.info().map_err(|error| anyhow::anyhow!("a message without its place: {error}"))?;
            let (left, at) = (info.pending, info.published.unix_timestamp_nanos() / 1_000_000);
            see((at as u64).saturating_sub(ahead), &message.payload)?;
            if left == 0 {
                return Ok(());
            }
        }
    }
}

/// Adds what the embedded broker at `url` has, of the batches that ran. Nobody else may have it open.
///
/// # Errors
/// When it cannot be read.
pub(crate) async fn add_embedded(url: &str, evidence: &mut Evidence) -> anyhow::Result<()> {
    let factory = Box::pin(Factory::with(crate::yard::config(url, "local", &[])?)).await?;
    let broker: &dyn Broker = &**factory.broker();
    let ahead = now().saturating_sub(Clock::new().now());
    let mut batches: Vec<_> = evidence.runs.iter().map(|run| run.id.batch).collect();
    batches.sort_unstable();
    batches.dedup();
    for batch in batches {
        for logged in broker.read(batch).await? {
            let at = Record::decode(&logged.bytes, &Limits::default()).map_or(0, |record| record.header().at);
            add_record(&logged.bytes, at.saturating_sub(ahead), &mut evidence.settled);
        }
    }
    let mut from = Some(0);
    while let Some(position) = from {
        let page = broker.dead(None, position, 100).await?;
        for letter in page.letters {
            let at = letter.at.saturating_sub(ahead);
            for key in dead_keys(&letter.bytes)? {
                evidence.dead.entry(key).or_insert(at);
            }
        }
        from = page.next;
    }
    let stats = broker.stats(Lane::default()).await?;
    if stats.pending + stats.in_flight > 0 {
        // It does not tell which ones: all that have no outcome, then.
        evidence.waiting = evidence.open().into_iter().map(str::to_owned).collect();
    }
    Ok(factory.close().await?)
}

fn add_record(payload: &Bytes, at: u64, settled: &mut Vec<Settled>) {
    // One that cannot be read settles nothing; its jobs are then found to have run again.
    let Ok(record) = Record::decode(payload, &Limits::default()) else { return };
    let run = record.header().run;
    settled.extend(record.iter().map(|outcome| Settled {
        id: outcome.id(),
        attempt: outcome.attempt(),
        run,
        state: outcome.state(),
        at,
    }));
}

/// The keys of the jobs in a dead letter.
fn dead_keys(payload: &Bytes) -> anyhow::Result<Vec<String>> {
    let letter = DeadLetter::decode(payload, &Limits::default()).context("a dead letter cannot be read")?;
    Ok(match &letter.remains {
        Remains::Raw { bytes, .. } => waiting_keys(bytes),
        Remains::Jobs(_) => letter.jobs(&Limits::default())?.iter().flat_map(keys).collect(),
    })
}

/// The keys of the jobs in a message.
fn waiting_keys(payload: &Bytes) -> Vec<String> {
    if Batch::is_framed(payload) {
        return Batch::decode(payload, &Limits::default()).iter().flat_map(keys).collect();
    }
    let header = Header::new(wf_schema::BatchId::new(), wf_schema::Format::Json);
    match Batch::from_json(payload, &Lane::default(), header, &Limits::default()) {
        Ok(read) => keys(&read.batch).collect(),
        Err(_) => Vec::new(),
    }
}

fn keys(batch: &Batch) -> impl Iterator<Item = String> {
    batch.iter().filter_map(|job| key(job.args())).collect::<Vec<_>>().into_iter()
}

fn key(args: &[u8]) -> Option<String> {
    // A task, or as much of one as names it.
    let task = serde_json::from_slice::<Task>(args).map(|task| task.key);
    task.ok().or_else(|| serde_json::from_slice::<Value>(args).ok()?["key"].as_str().map(str::to_owned))
}
