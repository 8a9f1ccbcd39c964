//! Dead letters: what will not be tried again by itself.

use std::sync::Arc;

use bytes::Bytes;
use wf_schema::{Millis, Queue};

use super::BoxFuture;
use crate::BrokerError;

/// A dead letter as it is kept.
#[derive(Clone, Debug)]
pub struct Buried {
    /// Its place among the dead letters; also its name for `get` and `delete`. Grows with time.
    pub position: u64,
    /// The queue its jobs belonged to.
    pub queue: Queue,
    /// When it was buried.
    pub at: Millis,
    /// What it says.
    pub bytes: Bytes,
}

/// A page of dead letters.
#[derive(Clone, Debug, Default)]
pub struct DeadPage {
    /// In the order of their positions.
    pub letters: Vec<Buried>,
    /// Where the next page starts; `None` when this was the last.
    pub next: Option<u64>,
}

/// How full the store of dead letters is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeadStats {
    /// The letters in it.
    pub letters: u64,
    /// Their bytes, as the broker counts them.
    pub bytes: u64,
    /// How many bytes it may hold.
    pub most_bytes: u64,
    /// When the oldest letter was buried.
    pub oldest: Option<Millis>,
    /// Letters that were dropped before their time to make room for newer ones, as far as the broker can tell: since
    /// the store was made, or only what this object saw where nobody else counts them.
    pub dropped: u64,
}

/// Keeps dead letters for a long while (14 days by default).
///
/// The store is bounded. When it is full, **the oldest letters make room**: burying is never refused because others
/// were buried before. Jobs would have to wait for somebody to clear it otherwise, also those that have nothing to do
/// with it. The broker says so in its log, once an episode, and counts what was dropped ([`DeadStats::dropped`]).
pub trait DeadLetters: Send + Sync + 'static {
    /// Keeps `bytes` as a dead letter of `queue`. Durable when done. One with an `id` that was buried before,
    /// within the broker's window, is not kept twice.
    ///
    /// # Errors
    /// `TooLarge` for a letter that no message could hold, or that is larger than the whole store of dead letters;
    /// `Retryable` as for a publish. Never `Full`: see above.
    fn bury(&self, queue: Queue, id: Arc<str>, bytes: Bytes) -> BoxFuture<'_, ()>;

    /// Dead letters from position `from` on (0: from the oldest), of one queue or of all, at most `limit` of them.
    ///
    /// # Errors
    /// `Retryable` when no answer came.
    fn dead(&self, queue: Option<Queue>, from: u64, limit: usize) -> BoxFuture<'_, DeadPage>;

    /// The dead letter at `position`.
    ///
    /// # Errors
    /// `Retryable` when no answer came.
    fn dead_at(&self, position: u64) -> BoxFuture<'_, Option<Buried>>;

    /// Removes the dead letter at `position`: whether there was one.
    ///
    /// # Errors
    /// `Retryable` when no answer came.
    fn delete_dead(&self, position: u64) -> BoxFuture<'_, bool>;

    /// How full the store of dead letters is. Approximate, and may be a moment old.
    ///
    /// # Errors
    /// `Retryable` when no answer came, `Denied` where the caller has no right to ask, `Fatal` where nobody counts.
    fn dead_stats(&self) -> BoxFuture<'_, DeadStats> {
        Box::pin(std::future::ready(Err(BrokerError::fatal("count dead letters", "this broker does not count them"))))
    }
}
