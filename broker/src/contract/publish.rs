//! Storing messages, to be delivered now.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use wf_schema::Lane;

use super::BoxFuture;

/// A message on its way into a lane.
#[derive(Clone, Debug)]
pub struct Message {
    /// Where it goes.
    pub lane: Lane,
    /// What it is called: a message whose id was stored before, within the broker's window, is not stored again.
    /// 1 to 200 visible ASCII characters.
    pub id: Arc<str>,
    /// What it says.
    pub bytes: Bytes,
}

/// The answer to a publish: the message is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Whether a message of the same id was there already. Best effort: a broker may forget ids when it restarts.
    pub duplicate: bool,
}

/// Stores messages.
pub trait Publish: Send + Sync + 'static {
    /// Stores one message; when the future is done, the message is durable. Many may be under way at once, and no
    /// order is kept among them.
    ///
    /// # Errors
    /// `Full` when the lane has no room, `TooLarge` above [`Publish::max_message`], `Retryable` when no answer came
    /// (whether it is stored is then unknown: publish it again with the same id).
    fn publish(&self, message: Message) -> BoxFuture<'_, Stored>;

    /// Stores all of the messages or none. That some or all were stored before, by an earlier call with the same
    /// ids, is success. At most [`Publish::max_together`] messages.
    ///
    /// # Errors
    /// As [`Publish::publish`]; `Fatal` for more messages than allowed. After an error none of them is stored, or,
    /// if the error was `Retryable`, all or none.
    fn publish_all(&self, messages: Vec<Message>) -> BoxFuture<'_, ()>;

    /// The largest message in bytes.
    fn max_message(&self) -> usize;

    /// How long the id of a message is remembered, at best. Who publishes again later than that stores it again.
    fn dedup_window(&self) -> Duration;

    /// The most messages that [`Publish::publish_all`] takes.
    fn max_together(&self) -> usize {
        1_000
    }
}
