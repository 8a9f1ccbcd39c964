//! The lowest layer: batches into the broker, pipelined, within the window, with retries.

mod again;
mod stats;
mod tries;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use parking_lot::Mutex;
use tokio::task::JoinHandle;
use wf_broker::{Broker, BrokerError, Gate};
use wf_schema::{BatchBuilder, Lane, Millis};

use crate::breaker::Breaker;
use crate::envelope::Envelope;
use crate::{Patience, PublishError, Spool, StoredIn, Window};

pub(crate) use again::together;
pub use again::{Again, Fate};
use stats::Counters;
pub use stats::PublisherStats;
use tries::Kept;

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
    /// Tells when the broker cannot be reached; without, every message waits for as long as patience allows.
    breaker: Option<Breaker>,
    /// Where messages go while the broker cannot be reached.
    spool: Option<Spool>,
    /// The largest message, if not the broker's largest.
    max_message: Option<usize>,
    /// Whether nothing is published again that may be stored, however short a time ago.
    certain: bool,
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
    /// How many of the messages are in the spool, from where they go to the broker as soon as it can be reached.
    pub spooled: usize,
}

impl Published {
    /// Where it is: in the spool if any of it is.
    pub fn stored(&self) -> StoredIn {
        if self.spooled > 0 { StoredIn::Spool } else { StoredIn::Broker }
    }
}

/// A batch on its way: a future of the broker's answer. The batch goes on its way also when this is dropped.
#[derive(Debug)]
pub struct Sending {
    flights: Vec<JoinHandle<Result<Kept, PublishError>>>,
    done: usize,
    published: Published,
    failed: Option<PublishError>,
}

impl Publisher {
    /// Publishes to `broker` with at most `window` on its way, with the default [`Patience`].
    pub fn new(broker: Arc<dyn Broker>, window: Window) -> Self {
        Self {
            broker,
            gate: Gate::new(window),
            patience: Patience::default(),
            counters: Arc::default(),
            trouble: Arc::default(),
            breaker: None,
            spool: None,
            max_message: None,
            certain: false,
        }
    }

    /// The same with `patience`.
    pub fn patience(mut self, patience: Patience) -> Self {
        self.patience = patience;
        self
    }

    /// The same that cuts batches into messages of at most `bytes`, also if the broker takes larger ones: whoever
    /// publishes again must cut in the same way as before.
    pub fn cut_at(mut self, bytes: usize) -> Self {
        self.max_message = Some(bytes);
        self
    }

    pub(super) fn max_message(&self) -> usize {
        self.max_message.unwrap_or_else(|| self.broker.max_message())
    }

    /// The same that gives up at once while `breaker` says that the broker cannot be reached, or, with a spool, puts
    /// its messages there.
    pub(crate) fn guarded(mut self, breaker: Breaker, spool: Option<Spool>) -> Self {
        self.breaker = Some(breaker);
        self.spool = spool;
        self
    }

    /// The same that publishes nothing again before the broker has told that it was not stored: a server that restarts
    /// forgets at once the ids of messages that were settled. Costs a look at the lanes for each message in doubt, so it is
    /// for those that must never be stored twice.
    pub(crate) fn certain(&self) -> Self {
        Self { certain: true, ..self.clone() }
    }

    /// The same without its spool: for what only the broker can keep.
    pub(crate) fn without_spool(&self) -> Self {
        Self { spool: None, ..self.clone() }
    }

    /// The broker.
    pub fn broker(&self) -> &Arc<dyn Broker> {
        &self.broker
    }

    /// What was published so far, and what is on its way.
    pub fn stats(&self) -> PublisherStats {
        self.counters.read(self.gate.window(), self.gate.taken(), self.spool.as_ref().map(Spool::stats))
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
        self.launch(Envelope::wrap(&lane, None, batch, self.max_message())?).await
    }

    /// The same for a batch that falls due at `due`, in milliseconds since the Unix epoch.
    ///
    /// # Errors
    /// As [`Publisher::send`].
    pub async fn send_at(&self, lane: Lane, due: Millis, batch: &BatchBuilder) -> Result<Sending, PublishError> {
        self.launch(Envelope::wrap(&lane, Some(due), batch, self.max_message())?).await
    }

    /// Publishes all of `batches` or none, and waits until they are durable.
    ///
    /// # Errors
    /// When the broker did not take them, or they are more messages than it takes together.
    pub async fn publish_all(&self, batches: &[(Lane, &BatchBuilder)]) -> Result<Published, PublishError> {
        let mut envelopes = Vec::with_capacity(batches.len());
        for (lane, batch) in batches {
            envelopes.extend(Envelope::wrap(lane, None, batch, self.max_message())?);
        }
        self.publish_together(envelopes).await
    }

    /// The same for messages.
    pub(crate) async fn publish_together(&self, envelopes: Vec<Envelope>) -> Result<Published, PublishError> {
        if envelopes.len() == 1 {
            return self.publish_each(envelopes).await;
        }
        let limit = self.broker.max_together();
        if envelopes.len() > limit {
            return Err(PublishError::TooMany { messages: envelopes.len(), limit });
        }
        let wire_bytes = envelopes.iter().map(Envelope::size).sum();
        let (messages, jobs) = (envelopes.len(), envelopes.iter().map(|envelope| envelope.jobs as usize).sum());
        let kept = self.all(envelopes).await?;
        let spooled = if matches!(kept, Kept::Spool) { messages } else { 0 };
        let published = Published { messages, wire_bytes, duplicates: 0, spooled };
        self.counters.add(&published, jobs);
        Ok(published)
    }

    /// Publishes each of `envelopes`, and waits until all are durable.
    pub(crate) async fn publish_each(&self, envelopes: Vec<Envelope>) -> Result<Published, PublishError> {
        self.launch(envelopes).await?.await
    }

    /// Why the broker cannot be reached, as long as that is so.
    pub(crate) fn trouble(&self) -> Option<Arc<BrokerError>> {
        self.trouble.lock().clone()
    }

    /// The breaker, if it has one.
    pub(crate) fn breaker(&self) -> Option<&Breaker> {
        self.breaker.as_ref()
    }

    /// The spool, if it has one.
    pub fn spool(&self) -> Option<&Spool> {
        self.spool.as_ref()
    }

    async fn launch(&self, envelopes: Vec<Envelope>) -> Result<Sending, PublishError> {
        let mut sending = Sending { flights: Vec::new(), done: 0, published: Published::default(), failed: None };
        let jobs = envelopes.iter().map(|envelope| envelope.jobs as usize).sum();
        for envelope in envelopes {
            let size = envelope.size();
            let way = self.way(&envelope.lane, 1, size).await?;
            sending.published.messages += 1;
            sending.published.wire_bytes += size;
            // A task of its own: it goes on when nobody waits, and the next part can enter.
            let publisher = self.clone();
            sending.flights.push(tokio::spawn(async move { publisher.fly(envelope, way).await }));
        }
        self.counters.jobs(jobs);
        Ok(sending)
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
                Poll::Ready(Ok(Ok(Kept::Broker(stored)))) => this.published.duplicates += usize::from(stored.duplicate),
                Poll::Ready(Ok(Ok(Kept::Spool))) => this.published.spooled += 1,
                Poll::Ready(Ok(Err(error))) => this.failed = this.failed.take().or(Some(error)),
                Poll::Ready(Err(_)) => this.failed = this.failed.take().or(Some(PublishError::Lost)),
            }
            this.done += 1;
        }
        Poll::Ready(this.failed.take().map_or(Ok(this.published), Err))
    }
}
