//! What became of each run: its log, which is the commit point of settling and the only fence, and the copies for
//! those who want to know.
//!
//! The two are apart because they end at different times. A log is needed until its message is gone, whatever else
//! goes on; a copy is kept for people, bounded by age and size, and the oldest go first. A log that retention could
//! empty would let a run start over, for ever.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use wf_schema::{BatchId, Millis, RunId};

use super::BoxFuture;

/// How far the log of a run has come: 0 when nothing was appended, then whatever the broker's last answer to an append
/// was. It only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u64);

impl Version {
    /// Nothing was appended yet.
    pub const NONE: Self = Self(0);
}

/// Names the log of one run.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RunLog {
    /// The batch that the jobs of the run were born in.
    pub batch: BatchId,
    /// The run.
    pub run: RunId,
    /// The id of the run's message: [`Delivery::id`](super::Delivery::id). The log keeps it, so that anybody can tell
    /// later which message of the batch it belongs to. A store that was rolled back may give a sequence, and with it a
    /// run's name, to another message: the two then share a log, and this tells their records apart.
    pub message: Arc<str>,
}

/// One record of a log.
#[derive(Clone, Debug)]
pub struct LoggedRecord {
    /// The run it belongs to.
    pub run: RunId,
    /// The version that the log of that run had with it; of a copy, one that only orders it.
    pub version: Version,
    /// What it says.
    pub bytes: Bytes,
}

/// The log of a run, as it stands.
#[derive(Clone, Debug, Default)]
pub struct LoggedRun {
    /// The records of the run's message, in order. None once the run has ended.
    pub records: Vec<LoggedRecord>,
    /// Where the log stands: what the next append is to expect.
    pub version: Version,
    /// The run was settled whole and its message acknowledged: there is nothing left to do.
    pub ended: bool,
}

/// How the log of a run ends: given to [`Lease::ack`](super::Lease::ack) by whoever has settled the run whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEnd {
    /// The log.
    pub log: RunLog,
    /// Where it stands. One that stands elsewhere is not ended: somebody else has the run.
    pub version: Version,
    /// How long the end is remembered at least. Without it, the broker remembers it for as long as somebody may still
    /// believe that the run is theirs.
    pub keep: Option<Duration>,
}

/// Keeps what became of each run.
pub trait OutcomeLog: Send + Sync + 'static {
    /// Appends a record to `log`, if it stands at `expected`. Durable when done. This compare-and-set is the only fence
    /// there is: of two that hold the same run, one appends and the other is refused, for ever after. What is in the log
    /// of a run whose message is stored stays there, whatever the limits of the outcomes are.
    ///
    /// # Errors
    /// `Fenced` when the log stands elsewhere, which is also what a caller sees who repeats an append whose answer
    /// was lost (records therefore carry their writer's token); a broker that can tell also says it when the message of
    /// the run is gone. `TooLarge`, `Retryable` as for a publish.
    fn append(&self, log: RunLog, expected: Version, bytes: Bytes) -> BoxFuture<'_, Version>;

    /// The log of a run, for whoever takes the run up. May lag behind (the fence catches that).
    ///
    /// # Errors
    /// `Retryable` when no answer came.
    fn read_run(&self, log: RunLog) -> BoxFuture<'_, LoggedRun>;

    /// Stores `bytes`, record number `step` of `log`, for those who [`read`](OutcomeLog::read) and
    /// [`watch`](OutcomeLog::watch). To be called once the record is appended; a repetition changes nothing. A broker
    /// whose readers see the log itself has nothing to do.
    ///
    /// # Errors
    /// As [`OutcomeLog::append`], but for `Fenced`.
    fn publish_outcome(&self, log: RunLog, step: u32, bytes: Bytes) -> BoxFuture<'_, ()>;

    /// Ends a log whose message is known to be gone: what [`Lease::ack`](super::Lease::ack) does for whoever acknowledges
    /// it. One that stands elsewhere than `end` says is left as it is.
    ///
    /// # Errors
    /// `Retryable` when no answer came.
    fn end(&self, end: LogEnd) -> BoxFuture<'_, ()>;

    /// All outcomes of `batch` that are kept, over all its runs, each run's in order: bounded by age, bytes and number,
    /// and the oldest go first. May lag behind.
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

    /// Tells of changes to the outcomes of `batch`, from when the future is done. Only a hint: subscribe, then read.
    ///
    /// # Errors
    /// `Retryable` when the subscription could not be made.
    fn watch(&self, batch: BatchId) -> BoxFuture<'_, Box<dyn Hint>>;

    /// The same for every batch whose outcomes change.
    ///
    /// # Errors
    /// As [`OutcomeLog::watch`].
    fn watch_all(&self) -> BoxFuture<'_, Box<dyn Hint>>;
}

/// Hints that something has changed. A hint may come a moment before the change can be read; it is then given again.
/// Hints may be lost, for instance over a reconnect: also look from time to time.
pub trait Hint: Send + 'static {
    /// The next batch whose outcomes have changed; `None` when some hints may have been lost and all should be looked
    /// at. Cancel safe.
    ///
    /// # Errors
    /// `Fatal` when no more hints will come.
    fn changed(&mut self) -> BoxFuture<'_, Option<BatchId>>;
}
