//! The log of what became of each run: the commit point of settling.

use bytes::Bytes;
use wf_schema::{BatchId, Millis, RunId};

use super::BoxFuture;

/// How far the log of a (batch, run) has come: 0 when nothing was appended, then whatever the broker's last answer
/// to an append was. It only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u64);

impl Version {
    /// Nothing was appended yet.
    pub const NONE: Self = Self(0);
}

/// One record of the log.
#[derive(Clone, Debug)]
pub struct LoggedRecord {
    /// The run it belongs to.
    pub run: RunId,
    /// The version that the log of that run had with it.
    pub version: Version,
    /// What it says.
    pub bytes: Bytes,
}

/// Keeps what became of each run, bounded by age and size.
pub trait OutcomeLog: Send + Sync + 'static {
    /// Appends a record to the log of (`batch`, `run`), if that log stands at `expected`. Durable when done. This
    /// compare-and-set is the only fence there is: of two that hold the same run, one appends and the other is
    /// refused, for ever after.
    ///
    /// # Errors
    /// `Fenced` when the log stands elsewhere, which is also what a caller sees who repeats an append whose answer
    /// was lost (records therefore carry their writer's token). `TooLarge`, `Retryable` as for a publish.
    fn append(&self, batch: BatchId, run: RunId, expected: Version, bytes: Bytes) -> BoxFuture<'_, Version>;

    /// All records of `batch`, over all its runs, each run's in order. May lag behind (the fence catches that).
    ///
    /// # Errors
    /// `Retryable` when no answer came.
    fn read(&self, batch: BatchId) -> BoxFuture<'_, Vec<LoggedRecord>>;

    /// From when on every outcome that was stored can still be read: what is older may have been dropped for its age, or
    /// for want of room.
    ///
    /// # Errors
    /// `Retryable` when no answer came, `Denied` where the caller has no right to ask.
    fn kept_since(&self) -> BoxFuture<'_, Millis>;

    /// Tells of changes to the log of `batch`, from when the future is done. Only a hint: subscribe, then read.
    ///
    /// # Errors
    /// `Retryable` when the subscription could not be made.
    fn watch(&self, batch: BatchId) -> BoxFuture<'_, Box<dyn Hint>>;

    /// The same for every batch whose log changes.
    ///
    /// # Errors
    /// As [`OutcomeLog::watch`].
    fn watch_all(&self) -> BoxFuture<'_, Box<dyn Hint>>;
}

/// Hints that something has changed. A hint may come a moment before the change can be read; it is then given again.
/// Hints may be lost, for instance over a reconnect: also look from time to time.
pub trait Hint: Send + 'static {
    /// The next batch whose log has changed; `None` when some hints may have been lost and all should be looked at.
    /// Cancel safe.
    ///
    /// # Errors
    /// `Fatal` when no more hints will come.
    fn changed(&mut self) -> BoxFuture<'_, Option<BatchId>>;
}
