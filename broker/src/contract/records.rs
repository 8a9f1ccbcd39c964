//! Small keyed records with a time to live: claims, heartbeats, settings, cursors.

use std::time::Duration;

use bytes::Bytes;

use super::{BoxFuture, Key};

/// Which writing of a record this is. Grows with each; never used twice for the same key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

/// A record as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it says.
    pub bytes: Bytes,
    /// Which writing of it this is.
    pub revision: Revision,
}

/// Keeps small records, each changed by compare-and-set. Times to live are whole seconds (rounded up, at least one);
/// `None` keeps the record until it is deleted.
pub trait KeyedRecords: Send + Sync + 'static {
    /// Writes `key`, if there is no such record.
    ///
    /// # Errors
    /// `Fenced` when there is one.
    fn create(&self, key: Key, bytes: Bytes, ttl: Option<Duration>) -> BoxFuture<'_, Revision>;

    /// Replaces `key`, if it stands at `revision`; its time to live starts anew.
    ///
    /// # Errors
    /// `Fenced` when it stands elsewhere or is gone.
    fn update(&self, key: Key, revision: Revision, bytes: Bytes, ttl: Option<Duration>) -> BoxFuture<'_, Revision>;

    /// Removes `key`, if it stands at `revision`.
    ///
    /// # Errors
    /// `Fenced` when it stands elsewhere or is gone.
    fn delete(&self, key: Key, revision: Revision) -> BoxFuture<'_, ()>;

    /// The record, if there is one.
    ///
    /// # Errors
    /// `Retryable` when no answer came.
    fn get(&self, key: Key) -> BoxFuture<'_, Option<Entry>>;

    /// Waits until `key` is no longer at `seen` (`None`: absent): the record as it then stands, `None` once it is
    /// gone or has outlived its time. Answers at once if that is so already. May miss states that did not last.
    ///
    /// # Errors
    /// `Retryable` when the watch broke; ask again.
    fn watch_key(&self, key: Key, seen: Option<Revision>) -> BoxFuture<'_, Option<Entry>>;
}
