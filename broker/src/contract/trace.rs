//! Finding out whether a message was stored.

use std::sync::Arc;
use std::time::Duration;

use wf_schema::{BatchId, Lane, Millis};

use super::BoxFuture;

/// A message that may have been stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// The lane it was for.
    pub lane: Lane,
    /// The batch in it.
    pub batch: BatchId,
    /// The id it was published under, or the key it was scheduled under; `None` stands for every message of the batch:
    /// those called like it, and those whose names begin with its id and a dot, as its retries' do.
    pub id: Option<Arc<str>>,
    /// Whether it was scheduled, rather than published to be delivered at once.
    pub later: bool,
    /// When it was stored at the earliest, by a clock that may be off by a minute. What was stored before is not looked at.
    pub since: Millis,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traced {
    /// It was stored, and has not ended as far as is known: it is scheduled, waits, or is in flight.
    Stored,
    /// It was stored, and is gone: its run has ended.
    Ended,
    /// It is not stored, and no run of it is remembered. It was never stored, if its batch asks for runs to be remembered
    /// ([`Header::remember`](wf_schema::Header)) and that time has not passed since.
    Absent,
    /// That cannot be told: there was too much to look at, or a right to look is missing.
    Unknown,
}

impl Traced {
    /// Whether it is certain that the message was stored.
    pub fn was_stored(self) -> bool {
        matches!(self, Self::Stored | Self::Ended)
    }
}

/// Finds messages.
pub trait Traces: Send + Sync + 'static {
    /// What became of each of `wanted`, in their order. Looks where a message is in the order in which it moves: among
    /// what is scheduled, in its lane, and among the logs of runs. Goes by what is certain: a replica that lags behind
    /// shows [`Traced::Stored`] and [`Traced::Ended`], but never [`Traced::Absent`].
    ///
    /// A message that is stored while this looks may be told as [`Traced::Absent`]. What was purged from its lane is
    /// like what never was.
    ///
    /// Reads what lies in the lanes, so it is not for every day. What is not found `within` that time is
    /// [`Traced::Unknown`].
    ///
    /// # Errors
    /// `Retryable` when no answer came.
    fn trace(&self, wanted: Vec<Trace>, within: Duration) -> BoxFuture<'_, Vec<Traced>>;
}

impl Trace {
    /// Whether a message called `name` is looked for.
    pub fn is_called(&self, name: &str) -> bool {
        match &self.id {
            Some(id) => **id == *name,
            // The text of an id has a fixed length.
            None => name.split('.').next().and_then(|batch| batch.parse().ok()) == Some(self.batch),
        }
    }
}

/// How far the clock of whoever says [`Trace::since`] may be off, in milliseconds.
pub const TRACE_SLACK: Millis = 60_000;
