//! The lowest layer: batches into the broker, pipelined, within the window, with retries.

mod stats;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use wf_broker::{Broker, BrokerError, Gate, Key, Message, Pass, Scheduled, Stored};
use wf_schema::{Batch, BatchBuilder, BatchId, Lane, Limits, Millis};

use crate::{Patience, PublishError, Window};

use stats::Counters;
pub use stats::PublisherStats;

/// Publishes batches. Many may be on their way at once, as many as the [`Window`] allows; none waits for another's
/// answer. Cheap to clone; clones share window and stats.
///
/// Must be used inside a tokio runtime.
#[derive(Clone)]
pub struct Publisher {
    broker: Arc<dyn Broker>,
    gate: Gate,
    patience: Patience,
    counters: Arc<Counters>,
    /// Why the last try failed, while the broker cannot be reached.
    trouble: Arc<Mutex<Option<Arc<BrokerError>>>>,
}

/// What was published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// The messages it took: one, unless the batch was larger than the broker takes.
    pub messages: usize,
    /// Their size in bytes.
    pub wire_bytes: usize,
    /// How many of the messages the broker had already.
    pub duplicates: usize,
}

/// A batch on its way: a future of the broker's answer. The batch goes on its way also when this is dropped.
#[derive(Debug)]
pub struct Sending {
    flights: Vec<JoinHandle<Result<Stored, PublishError>>>,
    done: usize,
    published: Published,
    failed: Option<PublishError>,
}

/// A message that is ready to go, now or later.
#[derive(Clone)]
enum Envelope {
    Now(Message),
    Later(Scheduled),
}

impl Publisher {
    /// The shortest and the longest pause between two tries. Half of each pause is jitter.
    const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

    /// Publishes to `broker` with at most `window` on its way, with the default [`Patience`].
    pub fn new(broker: Arc<dyn Broker>, window: Window) -> Self {
        Self { broker, gate: Gate::new(window), patience: Patience::default(), counters: Arc::default(), trouble: Arc::default() }
    }

    /// The same with `patience`.
    pub fn patience(mut self, patience: Patience) -> Self {
        self.patience = patience;
        self
    }

    /// The broker.
    pub fn broker(&self) -> &Arc<dyn Broker> {
        &self.broker
    }

    /// What was published so far, and what is on its way.
    pub fn stats(&self) -> PublisherStats {
        self.counters.read(self.gate.window(), self.gate.taken())
    }

    /// What lets its messages into the window: to change the window while it publishes.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Publishes `batch` to `lane` and waits until it is durable. The message's id is the batch's own, so publishing
    /// the same batch again is deduplicated as far as the broker remembers.
    ///
    /// # Errors
    /// When the broker did not take it, also after the retries that [`Patience`] allows.
    pub async fn publish(&self, lane: Lane, batch: &BatchBuilder) -> Result<Published, PublishError> {
        self.send(lane, batch).await?.await
    }

    /// Waits until `batch` is inside the window and lets it go: the future that comes back is the broker's answer.
    /// Call it in a loop to publish as fast as the window allows; what is awaited here is the backpressure.
    ///
    /// A batch above the broker's limit goes as several messages, called `<batch id>` and
    /// `<batch id>.<index of its first job>`; the jobs keep their ids.
    ///
    /// # Errors
    /// When a job of it alone is above the broker's limit. What the broker says comes with the future.
    pub async fn send(&self, lane: Lane, batch: &BatchBuilder) -> Result<Sending, PublishError> {
        self.launch(lane, None, batch).await
    }

    /// The same for a batch that falls due at `due`, in milliseconds since the Unix epoch.
    ///
    /// # Errors
    /// As [`Publisher::send`].
    pub async fn send_at(&self, lane: Lane, due: Millis, batch: &BatchBuilder) -> Result<Sending, PublishError> {
        self.launch(lane, Some(due), batch).await
    }

    /// Publishes all of `batches` or none, and waits until they are durable.
    ///
    /// # Errors
    /// When the broker did not take them, or they are more messages than it takes together.
    pub async fn publish_all(&self, batches: &[(Lane, &BatchBuilder)]) -> Result<Published, PublishError> {
        let mut messages = Vec::with_capacity(batches.len());
        let mut jobs = 0;
        for (lane, batch) in batches {
            for envelope in self.wrap(lane, None, batch)? {
                if let Envelope::Now(message) = envelope {
                    messages.push(message);
                }
            }
            jobs += batch.len();
        }
        let limit = self.broker.max_together();
        if messages.len() > limit {
            return Err(PublishError::TooMany { messages: messages.len(), limit });
        }
        let wire_bytes = messages.iter().map(|message| message.bytes.len()).sum();
        let count = messages.len();
        self.trying(count, wire_bytes, || self.broker.publish_all(messages.clone())).await?;
        let published = Published { messages: count, wire_bytes, duplicates: 0 };
        self.counters.add(&published, jobs);
        Ok(published)
    }

    /// Why the broker cannot be reached, as long as that is so.
    pub(crate) fn trouble(&self) -> Option<Arc<BrokerError>> {
        self.trouble.lock().clone()
    }

    async fn launch(&self, lane: Lane, due: Option<Millis>, batch: &BatchBuilder) -> Result<Sending, PublishError> {
        let envelopes = self.wrap(&lane, due, batch)?;
        let mut sending =
            Sending { flights: Vec::with_capacity(envelopes.len()), done: 0, published: Published::default(), failed: None };
        for envelope in envelopes {
            let size = envelope.size();
            let pass = self.gate.enter(1, size).await;
            sending.published.messages += 1;
            sending.published.wire_bytes += size;
            // A task of its own: it goes on when nobody waits, and the next part can enter.
            sending.flights.push(tokio::spawn(self.clone().fly(envelope, pass)));
        }
        self.counters.jobs(batch.len());
        Ok(sending)
    }

    async fn fly(self, envelope: Envelope, pass: Pass) -> Result<Stored, PublishError> {
        let size = envelope.size();
        let stored = self.trying_with(pass, 1, size, || self.try_once(envelope.clone())).await?;
        let duplicates = usize::from(stored.duplicate);
        self.counters.add(&Published { messages: 1, wire_bytes: size, duplicates }, 0);
        Ok(stored)
    }

    async fn try_once(&self, envelope: Envelope) -> Result<Stored, BrokerError> {
        match envelope {
            Envelope::Now(message) => self.broker.publish(message).await,
            Envelope::Later(scheduled) => self.broker.publish_at(scheduled).await.map(|()| Stored { duplicate: false }),
        }
    }

    async fn trying<T, F>(&self, messages: usize, bytes: usize, call: impl Fn() -> F) -> Result<T, PublishError>
    where
        F: Future<Output = Result<T, BrokerError>>,
    {
        let pass = self.gate.enter(messages, bytes).await;
        self.trying_with(pass, messages, bytes, call).await
    }

    /// Calls until it works, as long as patience allows.
    async fn trying_with<T, F>(
        &self,
        mut pass: Pass,
        messages: usize,
        bytes: usize,
        call: impl Fn() -> F,
    ) -> Result<T, PublishError>
    where
        F: Future<Output = Result<T, BrokerError>>,
    {
        let began = Instant::now();
        let mut longest = Self::PAUSES.0;
        loop {
            let error = match call().await {
                Ok(value) => {
                    *self.trouble.lock() = None;
                    return Ok(value);
                }
                Err(error) if error.is_retryable() => Arc::new(error),
                Err(error) => return Err(PublishError::broker(error)),
            };
            let (patience, least) = match &*error {
                BrokerError::Full { retry_after, .. } => (self.patience.full, *retry_after),
                _ => {
                    *self.trouble.lock() = Some(error.clone());
                    (self.patience.away, Duration::ZERO)
                }
            };
            let pause = (longest.mul_f64(0.5 + fastrand::f64() / 2.0)).max(least.mul_f64(1.0 + fastrand::f64() / 2.0));
            longest = (longest * 2).min(Self::PAUSES.1);
            if began.elapsed() + pause > patience {
                return Err(PublishError::Broker(error));
            }
            self.counters.retry();
            if matches!(&*error, BrokerError::Full { .. }) {
                // One full lane must not keep the others out of the window.
                drop(pass);
                tokio::time::sleep(pause).await;
                pass = self.gate.enter(messages, bytes).await;
            } else {
                // The broker is away for everybody: those behind may as well wait for the same answer.
                tokio::time::sleep(pause).await;
            }
        }
    }

    /// The messages that `batch` takes.
    fn wrap(&self, lane: &Lane, due: Option<Millis>, batch: &BatchBuilder) -> Result<Vec<Envelope>, PublishError> {
        let max = self.broker.max_message();
        let whole = batch.encode();
        let id = batch.header().id;
        if whole.len() <= max {
            return Ok(vec![envelope(lane, due, id.to_string(), whole)?]);
        }
        // It was written here, so it is read without limits.
        let no_limits = Limits { raw_bytes: usize::MAX, jobs: usize::MAX, args_bytes: usize::MAX };
        let batch = Batch::decode(&whole, &no_limits).map_err(PublishError::Split)?;
        let parts = batch.encode_within(max).map_err(PublishError::Split)?;
        parts.into_iter().map(|part| envelope(lane, due, part_id(id, &part, &no_limits)?, part)).collect()
    }
}

/// What the part of a split batch is called.
fn part_id(batch: BatchId, part: &Bytes, limits: &Limits) -> Result<String, PublishError> {
    let jobs = Batch::decode(part, limits).map_err(PublishError::Split)?;
    Ok(match jobs.get(0).map_or(0, |job| job.index()) {
        0 => batch.to_string(),
        first => format!("{batch}.{first}"),
    })
}

fn envelope(lane: &Lane, due: Option<Millis>, id: String, bytes: Bytes) -> Result<Envelope, PublishError> {
    let lane = lane.clone();
    Ok(match due {
        None => Envelope::Now(Message { lane, id: id.into(), bytes }),
        Some(due) => {
            let key = Key::new(&id).map_err(|error| PublishError::broker(BrokerError::fatal("name the schedule", error)))?;
            Envelope::Later(Scheduled { lane, key, due, bytes })
        }
    })
}

impl Envelope {
    fn size(&self) -> usize {
        match self {
            Self::Now(message) => message.bytes.len(),
            Self::Later(scheduled) => scheduled.bytes.len(),
        }
    }
}

impl Sending {
    /// The size on the wire, in bytes.
    pub fn wire_bytes(&self) -> usize {
        self.published.wire_bytes
    }
}

impl Future for Sending {
    type Output = Result<Published, PublishError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        // All parts are waited for also when one has failed: afterwards nothing of the batch is on its way.
        while let Some(flight) = this.flights.get_mut(this.done) {
            match Pin::new(flight).poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(Ok(stored))) => this.published.duplicates += usize::from(stored.duplicate),
                Poll::Ready(Ok(Err(error))) => this.failed = this.failed.take().or(Some(error)),
                Poll::Ready(Err(_)) => this.failed = this.failed.take().or(Some(PublishError::Lost)),
            }
            this.done += 1;
        }
        Poll::Ready(this.failed.take().map_or(Ok(this.published), Err))
    }
}
