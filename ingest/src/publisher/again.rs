//! Publishing again what may be stored already. The broker's deduplication is no proof that it is not: it forgets ids with
//! time, and a server that restarts may forget them at once. So the broker is asked what became of each message.

use std::time::Duration;

use tokio::time::Instant;
use wf_broker::{BrokerError, Traced};
use wf_schema::{BatchBuilder, Lane, Millis, now};

use super::Publisher;
use super::tries::Pauses;
use crate::PublishError;
use crate::envelope::Envelope;

/// How often the broker is asked for what it could not tell.
const LOOKS: u32 = 3;
/// How long one look for messages may take.
const LOOK: Duration = Duration::from_secs(10);

/// One message of what was to be published again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Again {
    /// The batch of those that were given, by its place.
    pub batch: usize,
    /// The index of its first job.
    pub first: u32,
    /// How many of the batch's jobs are in it.
    pub jobs: u32,
    /// What became of it.
    pub fate: Fate,
}

/// What became of a message that was to be published again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It was stored before.
    Stored,
    /// It was never stored, and is now: its size in bytes.
    Published(usize),
    /// It is not stored, and it may have been: so it was not published again.
    Gone,
    /// The broker cannot tell whether it is stored: so it was not published again.
    Untold,
}

impl Publisher {
    /// Publishes those messages of `batches` that were not published by an earlier call, which was made at `since` at the
    /// earliest, with the same batches. Tells of each message.
    ///
    /// # Errors
    /// When a batch cannot be cut, the broker cannot tell what it has, or does not take what is missing, also after the
    /// retries that [`crate::Patience`] allows.
    pub async fn publish_missing(
        &self,
        batches: &[(Lane, Option<Millis>, &BatchBuilder)],
        since: Millis,
    ) -> Result<Vec<Again>, PublishError> {
        let (mut envelopes, mut places) = (Vec::new(), Vec::new());
        for (place, (lane, due, batch)) in batches.iter().enumerate() {
            let parts = Envelope::wrap(lane, *due, batch, self.max_message())?;
            places.extend(parts.iter().map(|_| place));
            envelopes.extend(parts);
        }
        let mut traced = self.trace(&envelopes, since).await?;
        let mut pauses = Pauses::default();
        for _ in 1..LOOKS {
            if !traced.contains(&Traced::Unknown) {
                break;
            }
            tokio::time::sleep(pauses.next()).await;
            traced = self.trace(&envelopes, since).await?;
        }
        let now = now();
        let (mut again, mut missing) = (Vec::with_capacity(envelopes.len()), Vec::new());
        for ((envelope, batch), traced) in envelopes.into_iter().zip(places).zip(traced) {
            let fate = match traced {
                Traced::Stored | Traced::Ended => Fate::Stored,
                Traced::Absent if envelope.leaves_evidence(since, now) => Fate::Published(envelope.size()),
                Traced::Absent => Fate::Gone,
                Traced::Unknown => Fate::Untold,
            };
            again.push(Again { batch, first: envelope.first, jobs: envelope.jobs, fate });
            if matches!(fate, Fate::Published(_)) {
                missing.push(envelope);
            }
        }
        self.publish_each(missing).await?;
        Ok(again)
    }

    /// Whether each of `envelopes`, given to the broker since it was made, is stored or was; `None` if that cannot be
    /// told.
    pub(crate) async fn whether_stored(&self, envelopes: &[Envelope]) -> Result<Vec<Option<bool>>, PublishError> {
        Ok(known(envelopes, &self.trace(envelopes, earliest(envelopes)).await?))
    }

    /// Whether `envelopes`, which are stored all or none, are; `None` if that cannot be told. Asks once.
    pub(super) async fn look_back(&self, envelopes: &[Envelope]) -> Result<Option<bool>, BrokerError> {
        Ok(together(&known(envelopes, &self.look_for(envelopes, earliest(envelopes)).await?)))
    }

    /// What became of `envelopes`, asked for as long as patience allows.
    async fn trace(&self, envelopes: &[Envelope], since: Millis) -> Result<Vec<Traced>, PublishError> {
        if envelopes.is_empty() {
            return Ok(Vec::new());
        }
        let (began, mut pauses) = (Instant::now(), Pauses::default());
        loop {
            let error = match self.look_for(envelopes, since).await {
                Ok(traced) => return Ok(traced),
                Err(error) if error.is_retryable() => error,
                Err(error) => return Err(PublishError::broker(error)),
            };
            let pause = pauses.next();
            if began.elapsed() + pause > self.patience.away {
                return Err(PublishError::broker(error));
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// What became of `envelopes`, asked once.
    pub(crate) async fn look_for(&self, envelopes: &[Envelope], since: Millis) -> Result<Vec<Traced>, BrokerError> {
        let wanted = envelopes.iter().map(|envelope| envelope.trace(since)).collect();
        self.broker.trace(wanted, LOOK).await
    }
}

/// Since when any of `envelopes` may be stored.
fn earliest(envelopes: &[Envelope]) -> Millis {
    envelopes.iter().map(|envelope| envelope.made_at).min().unwrap_or(0)
}

/// Whether each of `envelopes`, of which the broker told `traced`, is stored or was; `None` if that does not tell.
fn known(envelopes: &[Envelope], traced: &[Traced]) -> Vec<Option<bool>> {
    let now = now();
    let known = |(envelope, traced): (&Envelope, &Traced)| match traced {
        Traced::Stored | Traced::Ended => Some(true),
        Traced::Absent if envelope.leaves_evidence(envelope.made_at, now) => Some(false),
        Traced::Absent | Traced::Unknown => None,
    };
    envelopes.iter().zip(traced).map(known).collect()
}

/// The same of messages that were stored all or none: one that is stored stands for all.
pub(crate) fn together(known: &[Option<bool>]) -> Option<bool> {
    match known {
        known if known.contains(&Some(true)) => Some(true),
        known if known.contains(&None) => None,
        _ => Some(false),
    }
}
