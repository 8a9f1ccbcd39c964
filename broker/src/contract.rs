//! The contract between the pipeline and whatever stores and delivers its messages.
//!
//! Message-level: a broker sees bytes, lanes and ids, never jobs. What is deliberately absent: ordering,
//! exactly-once, expiry by the broker, priorities of messages, delivery counts as attempts, delays and times to live
//! below a second, global counters. A trait a file; this file has the words they share.

mod consume;
mod control;
mod dead;
mod outcome_log;
mod publish;
mod records;
mod schedule;
mod trace;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

pub use consume::{Consume, Delivery, DeliverySource, Fired, Identity, Lease};
pub use control::{Control, LaneStats, Unserved};
pub use dead::{Buried, DeadLetters, DeadPage, DeadStats};
pub use outcome_log::{Hint, LogEnd, LoggedRecord, LoggedRun, OutcomeLog, RunLog, Version};
pub use publish::{Message, Publish, Stored};
pub use records::{Entry, KeyedRecords, Revision};
pub use schedule::{Cron, Schedule, Scheduled};
pub use trace::{TRACE_SLACK, Trace, Traced, Traces};

use crate::Result;

/// A boxed future of a broker's answer. One a batch, so the box costs nothing a job would notice.
pub type BoxFuture<'a, T> = futures::future::BoxFuture<'a, Result<T>>;

/// A whole broker: every role of the contract. Chosen once, shared as `Arc<dyn Broker>`.
pub trait Broker: Publish + Schedule + Traces + Consume + OutcomeLog + KeyedRecords + DeadLetters + Control {
    /// One round trip to the broker and back: how long it took.
    ///
    /// # Errors
    /// `Retryable` when no answer came within the broker's request timeout.
    fn ping(&self) -> BoxFuture<'_, Duration>;

    /// Waits until everything that was acknowledged or released is confirmed, then closes. Whatever is asked
    /// afterwards is `Fatal`. Deliveries still owned are left to their lease.
    ///
    /// # Errors
    /// `Retryable` when confirmations were still missing when the broker's own deadline passed.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// A name inside the broker: of a schedule, or of a keyed record. 1 to 200 of `A-Z a-z 0-9 _ - .`, neither starting
/// nor ending with a dot and without two dots in a row, so that it can be part of a subject.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<str>);

impl Key {
    /// The longest key, in bytes.
    pub const MAX_LEN: usize = 200;

    /// The key `text`.
    ///
    /// # Errors
    /// When `text` is not of the form said above.
    pub fn new(text: &str) -> Result<Self, KeyError> {
        let fits = (1..=Self::MAX_LEN).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
            && !text.starts_with('.')
            && !text.ends_with('.')
            && !text.contains("..");
        if fits { Ok(Self(text.into())) } else { Err(KeyError(text.chars().take(80).collect())) }
    }

    /// The key's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Key {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        Self::new(text)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// A text that cannot be a [`Key`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("key `{0}` is not valid: expected 1 to 200 characters of A-Z a-z 0-9 _ - . (no dot first, last or doubled)")]
pub struct KeyError(String);
