//! Asking what became of a job.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use wf_broker::{Broker, BrokerError};
use wf_schema::{Failure, Format, JobId, Kind, Lane, Limits, Millis, OutcomeView, Record, State};

/// Hints that something was recorded may be lost, so the records are looked at this often without one.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// What became of the latest attempt at a job.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Outcome {
    /// The job.
    pub id: JobId,
    /// Its kind.
    pub kind: Kind,
    /// The lane it ran in.
    pub lane: Lane,
    /// How the attempt ended.
    pub state: State,
    /// Which attempt it was, from 1.
    pub attempts: u32,
    /// When that was recorded, by the executor's clock.
    pub at: Millis,
    /// The executor that recorded it.
    pub executor: String,
    /// The result, if it completed and was to be stored.
    pub result: Option<Bytes>,
    /// How the result is written.
    pub format: Format,
    /// Why it did not complete, if it did not.
    pub failure: Option<Failure>,
    /// When the job goes on, if it does.
    pub retry_at: Option<Millis>,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.state)?;
        match (&self.failure, &self.result) {
            (Some(failure), _) => write!(f, " ({failure})"),
            (None, Some(result)) if self.format == Format::Json => write!(f, " {}", String::from_utf8_lossy(result)),
            (None, Some(result)) => write!(f, " ({} bytes)", result.len()),
            (None, None) => Ok(()),
        }
    }
}

/// The latest outcome of `id` that is on record. A job that completed without a stored result has none.
///
/// # Errors
/// When the broker does not answer.
pub async fn outcome(broker: &dyn Broker, id: JobId) -> Result<Option<Outcome>, BrokerError> {
    let mut latest: Option<((u32, u8, u64), Outcome)> = None;
    for logged in broker.read(id.batch).await? {
        let record = match Record::decode(&logged.bytes, &Limits::default()) {
            Ok(record) => record,
            Err(error) => {
                tracing::error!(batch = %id.batch, run = %logged.run, %error, "a record cannot be read");
                continue;
            }
        };
        for view in record.iter().filter(|view| view.index() == id.index) {
            let rank = rank(&record, &view);
            if latest.as_ref().is_none_or(|(best, _)| rank >= *best) {
                latest = Some((rank, Outcome::new(&record, &view)));
            }
        }
    }
    Ok(latest.map(|(_, outcome)| outcome))
}

/// Waits until `id` has come to an end, at most for `wait`: the latest outcome on record then.
///
/// # Errors
/// When the broker does not answer.
pub async fn wait_for_outcome(broker: &dyn Broker, id: JobId, wait: Duration) -> Result<Option<Outcome>, BrokerError> {
    let until = Instant::now() + wait;
    // Watch, then read: what is recorded in between is seen by one or the other.
    let mut hints = broker.watch(id.batch).await?;
    loop {
        let latest = outcome(broker, id).await?;
        if Instant::now() >= until || latest.as_ref().is_some_and(|latest| latest.state.is_final()) {
            return Ok(latest);
        }
        tokio::select! {
            biased;
            hint = hints.changed() => drop(hint?),
            () = tokio::time::sleep_until((Instant::now() + LOOK_AGAIN).min(until)) => {}
        }
    }
}

/// Later attempts come after earlier ones, whatever the clocks say. A move is no attempt: the one that it carried on
/// comes after it.
fn rank(record: &Record, outcome: &OutcomeView<'_>) -> (u32, u8, u64) {
    let stage = match outcome.state() {
        State::Moved => 0,
        State::Retryable => 1,
        _ => 2,
    };
    (outcome.attempt(), stage, record.header().at)
}

impl Outcome {
    fn new(record: &Record, view: &OutcomeView<'_>) -> Self {
        let header = record.header();
        Self {
            id: view.id(),
            kind: view.kind().clone(),
            lane: header.lane.clone(),
            state: view.state(),
            attempts: view.attempt(),
            at: header.at,
            executor: header.executor.clone(),
            result: (!view.result().is_empty()).then(|| Bytes::copy_from_slice(view.result())),
            format: header.format,
            failure: view.failure().cloned(),
            retry_at: view.retry_at(),
        }
    }
}
