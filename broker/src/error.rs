//! What can go wrong at a broker, sorted by what the caller should do about it.

use std::time::Duration;

use wf_schema::Lane;

/// The result of asking something of a broker.
pub type Result<T, E = BrokerError> = std::result::Result<T, E>;

/// The cause behind a [`BrokerError`], for people; never matched on.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why a broker did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BrokerError {
    /// It may work later: the broker is away, slow or restarting. Whether it was done is not known.
    #[error("the broker did not {what}")]
    Retryable {
        /// What was asked, as a verb: "store the batch".
        what: &'static str,
        /// What happened instead.
        #[source]
        source: Cause,
    },
    /// The lane, or the whole store, has no room. Nothing was stored; other lanes may have room.
    #[error("lane {lane} is full; try again in {} s", .retry_after.as_secs())]
    Full {
        /// The lane that has no room.
        lane: Lane,
        /// How long to wait before trying again.
        retry_after: Duration,
    },
    /// The broker's disk has no room for it. Nothing was stored.
    #[error("the broker's disk has no room to {what}: make some; try again in {} s", .retry_after.as_secs())]
    NoRoom {
        /// What was asked, as a verb.
        what: &'static str,
        /// How long to wait before trying again.
        retry_after: Duration,
    },
    /// A compare-and-set found another value than the one expected: somebody else was here first.
    #[error("somebody else has written since")]
    Fenced,
    /// The message is larger than the broker takes.
    #[error("the message has {size} bytes; the broker takes at most {limit}")]
    TooLarge {
        /// The message's size in bytes.
        size: usize,
        /// The broker's limit in bytes.
        limit: usize,
    },
    /// The broker knows who asks and does not allow it.
    #[error("the broker does not allow to {what}")]
    Denied {
        /// What was asked, as a verb.
        what: &'static str,
        /// What the broker said.
        #[source]
        source: Cause,
    },
    /// It will not work by trying again: the store is damaged, the layout is wrong, the broker is closed.
    #[error("the broker cannot {what}")]
    Fatal {
        /// What was asked, as a verb.
        what: &'static str,
        /// Why it cannot.
        #[source]
        source: Cause,
    },
}

impl BrokerError {
    /// A [`BrokerError::Retryable`].
    pub fn retryable(what: &'static str, source: impl Into<Cause>) -> Self {
        Self::Retryable { what, source: source.into() }
    }

    /// A [`BrokerError::Denied`].
    pub fn denied(what: &'static str, source: impl Into<Cause>) -> Self {
        Self::Denied { what, source: source.into() }
    }

    /// A [`BrokerError::Fatal`].
    pub fn fatal(what: &'static str, source: impl Into<Cause>) -> Self {
        Self::Fatal { what, source: source.into() }
    }

    /// Whether the same request may succeed later without anybody changing anything.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Retryable { .. } | Self::Full { .. } | Self::NoRoom { .. })
    }
}
