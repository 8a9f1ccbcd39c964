//! Dead letters: what will not be tried again by itself.

use std::sync::Arc;

use bytes::Bytes;
use wf_schema::{Millis, Queue};

use super::BoxFuture;

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

/// Keeps dead letters for a long while (14 days by default).
pub trait DeadLetters: Send + Sync + 'static {
    /// Keeps `bytes` as a dead letter of `queue`. Durable when done. One with an `id` that was buried before,
    /// within the broker's window, is not kept twice.
    ///
    /// # Errors
    /// `Full`, `TooLarge` and `Retryable` as for a publish.
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
}
