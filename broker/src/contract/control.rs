//! Looking at lanes, and holding them.

use wf_schema::{Lane, Millis, Queue};

use super::BoxFuture;

/// How full a lane is. Approximate, and may be a second old.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneStats {
    /// Messages waiting to be delivered, those due for redelivery included.
    pub pending: u64,
    /// Messages delivered and not settled.
    pub in_flight: u64,
    /// When the oldest waiting message was stored, if one waits and the broker can tell.
    pub oldest: Option<Millis>,
    /// Who would take more: the requests for messages of this lane that are open and find nothing. One for each source
    /// of this broker object that has credit and waits in vain, at least one for each elsewhere. None while the queue
    /// is held, nor while more waits and as much is in flight as may be.
    pub waiting: u64,
}

/// Looks at lanes, and holds them.
pub trait Control: Send + Sync + 'static {
    /// How full `lane` is. A lane that nobody used yet is empty.
    ///
    /// # Errors
    /// `Retryable` when no answer came.
    fn stats(&self, lane: Lane) -> BoxFuture<'_, LaneStats>;

    /// Holds `queue` until `until`: nothing of it is delivered, from lanes that exist and from lanes made later.
    /// What was delivered before stays with its owner. Publishing goes on.
    ///
    /// # Errors
    /// `Retryable` when no answer came, `Denied` where the caller has no right to.
    fn pause(&self, queue: Queue, until: Millis) -> BoxFuture<'_, ()>;

    /// Lets `queue` go on. One that is not held is success.
    ///
    /// # Errors
    /// As [`Control::pause`].
    fn resume(&self, queue: Queue) -> BoxFuture<'_, ()>;

    /// Until when `queue` is held, if it is.
    ///
    /// # Errors
    /// `Retryable` when no answer came.
    fn paused(&self, queue: Queue) -> BoxFuture<'_, Option<Millis>>;
}
