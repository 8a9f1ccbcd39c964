//! Why a broker does nothing any more.

use super::store::DiskError;
use crate::BrokerError;

/// The end of a broker.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum Ended {
    /// It was closed, or dropped.
    #[error("the broker is closed")]
    Closed,
    /// A commit failed. What the store holds then is known only after it was opened anew.
    #[error("an earlier write failed, and the store has to be opened anew")]
    Broken(#[source] DiskError),
}

impl Ended {
    /// The error for who asks `what` after the end.
    pub(super) fn refuse(&self, what: &'static str) -> BrokerError {
        BrokerError::fatal(what, self.clone())
    }
}
