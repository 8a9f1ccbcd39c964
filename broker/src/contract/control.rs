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

/// Messages that wait where nobody asks for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unserved {
    /// What the broker calls the place: the lane, or a subject.
    pub name: String,
    /// The lane; `None` for a name that is no lane's, which no executor can ever serve.
    pub lane: Option<Lane>,
    /// The messages that wait there.
    pub messages: u64,
    /// When the oldest of them was stored, if the broker can tell.
    pub oldest: Option<Millis>,
}

/// Looks at lanes, and holds them.
pub trait Control: Send + Sync + 'static {
    /// How full `lane` is. A lane that nobody used yet is empty.
    ///
    /// # Errors
    /// `Retryable` when no answer came.
    fn stats(&self, lane: Lane) -> BoxFuture<'_, LaneStats>;

    /// The lanes, and the names that are no lane's, in which something waits while nobody asks for it and nobody holds any
    /// of it. A queue that is held is left out. What is seen is a moment: an executor may be about to ask. So only what is
    /// seen again a while later is unserved. Brokers may leave some out where there are very many.
    ///
    /// # Errors
    /// `Retryable` when no answer came, `Denied` where the caller has no right to ask.
    fn unserved(&self) -> BoxFuture<'_, Vec<Unserved>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

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
