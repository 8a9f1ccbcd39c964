//! From the first try to the answer: into the broker, as long as patience allows, or into the spool.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use wf_broker::{BrokerError, Pass, Stored};
use wf_schema::Lane;

use super::{Published, Publisher};
use crate::breaker::Asking;
use crate::envelope::Envelope;
use crate::spool::SpoolError;
use crate::{PublishError, Spool};

/// The shortest and the longest pause between two tries. Half of each pause is jitter.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// For how much of its window the broker is trusted to know an id: a call takes its time, too.
const SURE: f64 = 0.7;
/// For how many seconds the broker remembers the runs of what comes to it by way of the spool.
const SPOOLED: u32 = 24 * 3600;

/// The pauses between tries, ever longer.
pub(super) struct Pauses {
    longest: Duration,
}

impl Default for Pauses {
    fn default() -> Self {
        Self { longest: PAUSES.0 }
    }
}

impl Pauses {
    /// The next one.
    pub(super) fn next(&mut self) -> Duration {
        let pause = self.longest.mul_f64(0.5 + fastrand::f64() / 2.0);
        self.longest = (self.longest * 2).min(PAUSES.1);
        pause
    }
}

/// Where a message goes.
#[derive(Debug)]
pub(super) enum Way {
    /// To the broker: it is inside the window.
    Window(Pass),
    /// Into the spool: the disk has room for it.
    Spool(Spool, Pass),
}

/// Where a message is.
#[derive(Debug)]
pub(super) enum Kept {
    Broker(Stored),
    Spool,
}

impl Way {
    async fn into(spool: Spool, messages: usize, bytes: usize) -> Self {
        let place = spool.enter(messages, bytes).await;
        Self::Spool(spool, place)
    }
}

impl Publisher {
    /// Whether the broker counts as unreachable.
    pub(crate) fn is_cut_off(&self) -> bool {
        self.breaker.as_ref().is_some_and(|breaker| breaker.is_open())
    }

    /// Waits until it does.
    pub(crate) async fn cut_off(&self) {
        match &self.breaker {
            Some(breaker) => breaker.opened().await,
            None => std::future::pending().await,
        }
    }

    /// Waits until it does not.
    pub(crate) async fn reachable(&self) {
        if let Some(breaker) = &self.breaker {
            breaker.closed().await;
        }
    }

    /// Why nothing can be taken now, if that is so: the broker cannot be reached, and there is no spool.
    pub(crate) fn refusal(&self) -> Option<PublishError> {
        let (_, probe_in) = self.breaker.as_ref().filter(|_| self.spool.is_none())?.outage()?;
        Some(PublishError::Unreachable { retry_after: probe_in.max(Duration::from_secs(1)), source: self.trouble() })
    }

    /// Which way messages of `lane` go: waits until they may.
    pub(super) async fn way(&self, lane: &Lane, messages: usize, bytes: usize) -> Result<Way, PublishError> {
        if let Some(refusal) = self.refusal() {
            return Err(refusal);
        }
        if let Some(spool) = self.detour(lane)? {
            return Ok(Way::into(spool, messages, bytes).await);
        }
        tokio::select! {
            biased;
            pass = self.gate.enter(messages, bytes) => Ok(Way::Window(pass)),
            () = self.cut_off() => match (&self.spool, self.refusal()) {
                (Some(spool), _) => Ok(Way::into(spool.clone(), messages, bytes).await),
                (None, Some(refusal)) => Err(refusal),
                // It was closed again in this moment.
                (None, None) => Ok(Way::Window(self.gate.enter(messages, bytes).await)),
            },
        }
    }

    /// The spool, if messages of `lane` go there: the broker cannot be reached, or others wait there that were first.
    fn detour(&self, lane: &Lane) -> Result<Option<Spool>, PublishError> {
        let Some(spool) = &self.spool else { return Ok(None) };
        if self.is_cut_off() {
            return Ok(Some(spool.clone()));
        }
        // The spool is for a broker that cannot be reached, not for a lane that nobody serves.
        if let Some(retry_after) = spool.full(lane) {
            return Err(PublishError::broker(BrokerError::Full { lane: lane.clone(), retry_after }));
        }
        Ok(spool.waits(lane).then(|| spool.clone()))
    }

    /// One message, from launched to answered.
    pub(super) async fn fly(self, envelope: Envelope, way: Way) -> Result<Kept, PublishError> {
        let size = envelope.size();
        let once = || self.give(&envelope);
        let kept = self.see_through(way, std::slice::from_ref(&envelope), size, once).await?;
        let (duplicates, spooled) = match &kept {
            Kept::Broker(stored) => (usize::from(stored.duplicate), 0),
            Kept::Spool => (0, 1),
        };
        self.counters.add(&Published { messages: 1, wire_bytes: size, duplicates, spooled }, 0);
        Ok(kept)
    }

    /// Several messages, all or none.
    pub(super) async fn all(&self, envelopes: Vec<Envelope>) -> Result<Kept, PublishError> {
        let bytes = envelopes.iter().map(Envelope::size).sum();
        let mut detour = None;
        for envelope in &envelopes {
            detour = detour.or(self.detour(&envelope.lane)?);
        }
        let way = match (detour, envelopes.first()) {
            (Some(spool), _) => Way::into(spool, envelopes.len(), bytes).await,
            (None, Some(first)) => self.way(&first.lane, envelopes.len(), bytes).await?,
            (None, None) => return Ok(Kept::Broker(Stored { duplicate: false })),
        };
        let messages: Vec<_> = envelopes.iter().map(Envelope::message).collect();
        let once = || async {
            let asking = self.breaker.as_ref().map(|breaker| breaker.ask());
            let answer = self.broker.publish_all(messages.clone()).await;
            self.heard(asking, &answer);
            answer.map(|()| Stored { duplicate: false })
        };
        self.see_through(way, &envelopes, bytes, once).await
    }

    /// Gives `envelope` to the broker, once.
    pub(crate) async fn give(&self, envelope: &Envelope) -> Result<Stored, BrokerError> {
        let asking = self.breaker.as_ref().map(|breaker| breaker.ask());
        let answer = envelope.give(&*self.broker).await;
        self.heard(asking, &answer);
        answer
    }

    /// Takes note of what the broker said.
    fn heard<T>(&self, asking: Option<Asking<'_>>, answer: &Result<T, BrokerError>) {
        match answer {
            Err(BrokerError::Retryable { .. }) => asking.into_iter().for_each(Asking::failed),
            _ => {
                asking.into_iter().for_each(Asking::answered);
                *self.trouble.lock() = None;
            }
        }
    }

    async fn see_through<F>(
        &self,
        way: Way,
        envelopes: &[Envelope],
        bytes: usize,
        once: impl Fn() -> F,
    ) -> Result<Kept, PublishError>
    where
        F: Future<Output = Result<Stored, BrokerError>>,
    {
        let pass = match way {
            Way::Window(pass) => pass,
            Way::Spool(spool, _place) => {
                // It may be long until it is shipped, and longer until that is confirmed.
                let envelopes =
                    envelopes.iter().map(|envelope| envelope.clone().remembered(SPOOLED, self.max_message())).collect();
                return spool.put(envelopes, false).await.map(|()| Kept::Spool).map_err(PublishError::from);
            }
        };
        let tries = self.tries(pass, envelopes, bytes, once);
        let Some(spool) = &self.spool else { return tries.await.map(Kept::Broker) };
        tokio::pin!(tries);
        let ended = tokio::select! {
            biased;
            ended = &mut tries => Some(ended),
            () = self.cut_off() => None,
        };
        match ended {
            Some(Err(PublishError::Broker(error))) if matches!(&*error, BrokerError::Retryable { .. }) => {
                spool.put(envelopes.to_vec(), true).await.map(|()| Kept::Spool).map_err(|full| lost_between(&full, error))
            }
            Some(ended) => ended.map(Kept::Broker),
            // The broker was given it and may have it: it is marked so. If the spool does not take it, the broker may
            // still answer.
            None => match spool.put(envelopes.to_vec(), true).await {
                Ok(()) => Ok(Kept::Spool),
                Err(full) => match tries.await {
                    Err(PublishError::Broker(error)) if matches!(&*error, BrokerError::Retryable { .. }) => {
                        Err(lost_between(&full, error))
                    }
                    ended => ended.map(Kept::Broker),
                },
            },
        }
    }

    /// Calls until it works, as long as patience allows.
    async fn tries<F>(
        &self,
        mut pass: Pass,
        envelopes: &[Envelope],
        bytes: usize,
        call: impl Fn() -> F,
    ) -> Result<Stored, PublishError>
    where
        F: Future<Output = Result<Stored, BrokerError>>,
    {
        let messages = envelopes.len();
        let began = Instant::now();
        let mut pauses = Pauses::default();
        // A try of which nobody knows whether it was made: what is said of those after it is not the whole answer.
        let mut doubt: Option<Arc<BrokerError>> = None;
        // When the first such try was made: the broker remembers its id for a while only.
        let mut doubted = None;
        loop {
            let asked = Instant::now();
            let sure = self.broker.dedup_window().mul_f64(SURE);
            let known = match doubted.filter(|doubted| self.certain || asked.duration_since(*doubted) > sure) {
                Some(_) => self.look_back(envelopes).await.map(Some),
                None => Ok(None),
            };
            let answer = match known {
                Ok(Some(Some(true))) => return Ok(Stored { duplicate: true }),
                // It may be stored, and would be stored twice: that it is in doubt is the answer.
                Ok(Some(None)) if envelopes.iter().any(|envelope| envelope.remember > 0) => {
                    return Err(doubt.map_or(PublishError::Lost, PublishError::Broker));
                }
                Ok(Some(Some(false))) => {
                    (doubt, doubted) = (None, None);
                    call().await
                }
                // The end of its run would not be remembered. Once too often is better than never.
                Ok(Some(None) | None) => call().await,
                Err(error) => Err(error),
            };
            let error = match answer {
                Ok(value) => return Ok(value),
                // A lane empties by itself; a disk waits for somebody who hears of it.
                Err(error @ BrokerError::NoRoom { .. }) if doubt.is_none() => return Err(PublishError::broker(error)),
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
            let pause = pauses.next().max(least.mul_f64(1.0 + fastrand::f64() / 2.0));
            if matches!(&*error, BrokerError::Retryable { .. }) {
                doubt = Some(error.clone());
                doubted = doubted.or(Some(asked));
            }
            if began.elapsed() + pause > patience {
                return Err(PublishError::Broker(doubt.unwrap_or(error)));
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
                // While it is known to be, one probe asks for all.
                if tokio::time::timeout(patience.saturating_sub(began.elapsed()), self.reachable()).await.is_err() {
                    return Err(PublishError::Broker(doubt.unwrap_or(error)));
                }
            }
        }
    }
}

/// The broker was given it and has not answered, and the spool does not take it. That the broker may have it is what its
/// caller must know.
fn lost_between(spool: &SpoolError, broker: Arc<BrokerError>) -> PublishError {
    tracing::debug!(error = spool as &dyn std::error::Error, "the spool does not take what the broker did not answer either");
    PublishError::Broker(broker)
}
