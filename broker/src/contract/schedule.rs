//! Storing messages, to be delivered later or again and again.

use bytes::Bytes;
use wf_schema::{Lane, Millis};

use super::{BoxFuture, Key};

/// A message for later.
#[derive(Clone, Debug)]
pub struct Scheduled {
    /// Where it goes when it is due.
    pub lane: Lane,
    /// What it is called: another of the same key replaces it.
    pub key: Key,
    /// When it is due. A time that has passed means now.
    pub due: Millis,
    /// What it says.
    pub bytes: Bytes,
}

/// A message that is delivered again and again.
#[derive(Clone, Debug)]
pub struct Cron {
    /// What it is called: another of the same key replaces it.
    pub key: Key,
    /// When: six fields (second, minute, hour, day of month, month, day of week) or `@every 90s`, at least a second.
    pub spec: String,
    /// The IANA time zone that the fields are meant in; `None` is UTC.
    pub zone: Option<String>,
    /// Where each firing goes.
    pub lane: Lane,
    /// What each firing says.
    pub bytes: Bytes,
}

/// Stores messages for later.
pub trait Schedule: Send + Sync + 'static {
    /// Stores `scheduled`, to be delivered in its lane once it is due: never early, at least once, and perhaps
    /// together with others after an outage. Durable when the future is done. Delays below a second are the
    /// caller's to wait out.
    ///
    /// One with the key, the due time and the bytes of an earlier one, within the window in which ids are remembered,
    /// is taken for a repetition: it changes nothing, also when the earlier one has fired. Who repeats what it may
    /// have done before a crash does not make a job run twice. The first one of a key after a
    /// [`cancel_at`](Schedule::cancel_at) is never a repetition.
    ///
    /// # Errors
    /// `Full`, `TooLarge` and `Retryable` as for a publish.
    fn publish_at(&self, scheduled: Scheduled) -> BoxFuture<'_, ()>;

    /// Removes the message scheduled under `key`, if it is not due yet. No such message is success.
    ///
    /// # Errors
    /// `Retryable` when no answer came, `Denied` where the caller has no right to.
    fn cancel_at(&self, key: Key) -> BoxFuture<'_, ()>;

    /// Stores `cron`: from now on its message is delivered at each tick. After downtime it is delivered once, not
    /// once for each tick that was missed. Its deliveries carry [`super::Fired`].
    ///
    /// # Errors
    /// `Fatal` when the spec or the zone cannot be read; otherwise as [`Schedule::publish_at`].
    fn put_cron(&self, cron: Cron) -> BoxFuture<'_, ()>;

    /// Ends the cron called `key`. No such cron is success. What has fired already stays.
    ///
    /// # Errors
    /// As [`Schedule::cancel_at`].
    fn delete_cron(&self, key: Key) -> BoxFuture<'_, ()>;
}
