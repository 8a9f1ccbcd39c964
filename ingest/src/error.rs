//! What can go wrong on the way to the broker.

use std::sync::Arc;
use std::time::Duration;

use wf_broker::BrokerError;
use wf_schema::{JobError, WireError};

use crate::SpoolError;

/// Why a batch was not published. All jobs of a batch share it, so it can be cloned.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The broker did not take it, also after the retries that [`crate::Patience`] allows.
    #[error("the broker did not take the jobs")]
    Broker(#[source] Arc<BrokerError>),
    /// The batch is larger than the broker takes and could not be split.
    #[error("the batch could not be split to fit the broker")]
    Split(#[source] WireError),
    /// The broker could not be reached for a while, so it was not asked: nothing was stored.
    #[error("the broker cannot be reached; try again in {} s", .retry_after.as_secs())]
    Unreachable {
        /// How long to wait before trying again.
        retry_after: Duration,
        /// What happened when it was last asked.
        #[source]
        source: Option<Arc<BrokerError>>,
    },
    /// The spool does not take it, and the broker cannot be reached or has to be given first what waits in the spool.
    #[error("the spool, where jobs wait for the broker, did not take them")]
    Spool(#[from] SpoolError),
    /// More messages than the broker stores all-or-nothing.
    #[error("{messages} messages cannot be stored all-or-nothing; the broker takes at most {limit}")]
    TooMany {
        /// The messages there were.
        messages: usize,
        /// The broker's limit.
        limit: usize,
    },
    /// The task that published it ended before the broker answered: the program is being torn down. Whether the
    /// batch is stored is not known.
    #[error("publishing was broken off")]
    Lost,
}

impl PublishError {
    pub(crate) fn broker(error: BrokerError) -> Self {
        Self::Broker(Arc::new(error))
    }

    /// Whether the same batch may be taken later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Broker(error) => error.is_retryable(),
            Self::Unreachable { .. } => true,
            Self::Spool(error) => !matches!(error, SpoolError::Closed),
            _ => false,
        }
    }
}

/// Why a job was not enqueued.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum EnqueueError {
    /// It is no job that can be run.
    #[error(transparent)]
    Invalid(#[from] JobError),
    /// More comes in than goes out, and there was no room for it within [`crate::ProducerOptions::room_timeout`].
    #[error("no room: more jobs come in than the broker takes; try again in {} s", .retry_after.as_secs())]
    Busy {
        /// How long to wait before trying again.
        retry_after: Duration,
    },
    /// The producer was closed.
    #[error("this producer is closed")]
    Closed,
    /// The batch that the job travelled in was not published.
    #[error(transparent)]
    Publish(#[from] PublishError),
}

impl EnqueueError {
    /// Whether the same job may be taken later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Busy { .. } => true,
            Self::Publish(error) => error.is_retryable(),
            Self::Invalid(_) | Self::Closed => false,
        }
    }
}
