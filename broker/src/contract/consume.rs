//! Taking messages out of a lane, and giving them back.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use wf_schema::{BatchId, Lane, Millis, RunId};

use super::{BoxFuture, Key, LogEnd};

/// Delivers the messages of lanes.
pub trait Consume: Send + Sync + 'static {
    /// Opens `lane` for consuming. Any number of sources, here and on other nodes, may share a lane; each message
    /// goes to one of them at a time.
    ///
    /// # Errors
    /// `Fatal` when the broker's layout is not set up, `Denied` where the caller has no right to consume.
    fn lane(&self, lane: Lane) -> BoxFuture<'_, Box<dyn DeliverySource>>;

    /// How long a delivery stays its owner's without [`Lease::renew`]. The same for every node of a factory.
    fn lease(&self) -> Duration;

    /// Waits until every [`Lease::ack`] and [`Lease::release`] so far is confirmed by the broker.
    ///
    /// # Errors
    /// `Retryable` when some were still unconfirmed at the broker's own deadline; those messages may come again.
    fn settled(&self) -> BoxFuture<'_, ()>;
}

/// The deliveries of one lane to one owner. Dropping it stops the flow in the background; [`DeliverySource::stop`] does
/// the same and says when it is done.
pub trait DeliverySource: Send + 'static {
    /// Adds credit for `messages` more deliveries of `bytes` in all. Nothing is delivered without credit; each
    /// delivery uses up one message and its own size. A delivery may overdraw the bytes (so one larger than any
    /// grant still comes), and nothing more comes until both are above zero again.
    fn grant(&mut self, messages: usize, bytes: usize);

    /// Takes back all credit that is not used up: nothing more is delivered before the next grant. What the broker had
    /// sent by then goes back to it at once, to be delivered elsewhere; it may count as delivered once more.
    fn withdraw(&mut self);

    /// Begins the flow anew, over a connection made anew where there is one: for a caller who gets nothing although
    /// messages wait. Credit stays as it is, and nothing that was delivered or settled is lost by it. Costs a
    /// reconnection, of everything that shares the connection: not to be called often.
    fn mend(&mut self);

    /// The next delivery. Owned on arrival: its lease runs from then on, so callers take deliveries as they come
    /// and keep them renewed. Waits while the lane is empty or there is no credit. Cancel safe.
    ///
    /// A connection that breaks is mended inside; it shows here only as a wait.
    ///
    /// # Errors
    /// `Denied` or `Fatal` when the flow cannot be mended.
    fn next(&mut self) -> BoxFuture<'_, Delivery>;

    /// Ends the flow. Once it is done, nothing more can come to this source, and everything that came and was not taken
    /// is released: returns how many deliveries that were. Released only then, because what is released while the flow
    /// is open could come right back. Bounded by half a lease.
    ///
    /// # Errors
    /// `Retryable` when the broker could not be asked in time: deliveries that were on their way come again when their
    /// lease is over.
    fn stop(self: Box<Self>) -> BoxFuture<'static, u64>;
}

/// One delivery of a message.
#[derive(Clone)]
pub struct Delivery {
    /// The lane it came from.
    pub lane: Lane,
    /// What it was called when it was stored: the id it was published under, or the key it was scheduled under. Empty
    /// if it was given no name. The same over redeliveries.
    pub id: Arc<str>,
    /// What it says.
    pub bytes: Bytes,
    /// Which delivery lineage it belongs to; the same over redeliveries of the same stored message.
    pub run: RunId,
    /// How often the broker has delivered this message, with this time: from 1. Not the jobs' attempt.
    pub delivered: u64,
    /// The id that its batch takes if the message brings none of its own (plain JSON), the same over redeliveries.
    pub fallback_id: BatchId,
    /// When the broker stored the message.
    pub stored_at: Millis,
    /// Which tick of which cron it is, if it is one.
    pub fired: Option<Fired>,
    /// The hold on it: settle it here.
    pub lease: Arc<dyn Lease>,
}

impl Delivery {
    /// Which stored message this is a delivery of.
    pub fn identity(&self) -> Identity {
        Identity { run: self.run, fallback_id: self.fallback_id, stored_at: self.stored_at }
    }
}

/// Which stored message a delivery is of: the same over all its redeliveries, and never that of another message. The run
/// alone is not enough: a store that was rolled back, or made anew, gives its sequences out once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    run: RunId,
    fallback_id: BatchId,
    stored_at: Millis,
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("lane", &self.lane)
            .field("run", &self.run)
            .field("delivered", &self.delivered)
            .field("bytes", &self.bytes.len())
            .field("fired", &self.fired)
            .finish_non_exhaustive()
    }
}

/// A firing of a cron.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fired {
    /// The cron's key.
    pub key: Key,
    /// The time the firing stands for; the same over redeliveries.
    pub tick: Millis,
}

/// The hold on one delivery. None of these waits: the broker object sends them, pipelined, and repeats them over
/// broken connections until the broker has answered.
///
/// None of them proves ownership. When a lease has run out and the message was delivered anew, a late `ack` may
/// remove it, a late `renew` may prolong the other's lease and a late `release` may hand it on; none of them may
/// lose a message that nobody acknowledged. The only fence is [`super::OutcomeLog::append`].
pub trait Lease: Send + Sync + 'static {
    /// The message is done: remove it. A second settling of the same delivery is ignored.
    ///
    /// `end` is how the log of its run ends, if it has one. The broker object ends it once the message is known to be
    /// gone, and not before; nothing waits for that but [`Consume::settled`]. An end that is lost in a crash is made up
    /// for later.
    fn ack(&self, end: Option<LogEnd>);

    /// Whether exactly this message is still stored: not another that a store which was rolled back has put in its
    /// place. Asked of whoever knows best, not of a replica that may lag behind.
    ///
    /// # Errors
    /// `Retryable` when no answer came, `Denied` where the caller has no right to ask.
    fn stored(&self) -> BoxFuture<'_, bool>;

    /// Extends the lease to its full length from now.
    fn renew(&self);

    /// Deliver it again, not before `delay` (rounded up to what the broker can do). Not an attempt of its jobs.
    fn release(&self, delay: Duration);
}
