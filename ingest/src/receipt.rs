//! What became of a batch, for everybody who has a job in it.

use std::fmt;
use std::future::IntoFuture;
use std::sync::{Arc, OnceLock};

use futures::future::BoxFuture;
use tokio::sync::Notify;

use crate::{EnqueueError, PublishError};

/// Where jobs are that were taken. Both are on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum StoredIn {
    /// The broker has them.
    #[default]
    Broker,
    /// They are in the spool: the broker could not be reached, and gets them as soon as it can.
    Spool,
}

impl StoredIn {
    /// `broker` or `spool`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Broker => "broker",
            Self::Spool => "spool",
        }
    }
}

/// A receipt for jobs that travel in one batch: tells once the batch is durable, or that it is not. One a batch, not
/// one a job; cheap to clone. Await it.
#[derive(Clone, Default)]
pub struct Receipt(Arc<Fate>);

#[derive(Default)]
struct Fate {
    result: OnceLock<Result<StoredIn, EnqueueError>>,
    settled: Notify,
}

impl Receipt {
    /// Waits until the batch is durable: where it is.
    ///
    /// # Errors
    /// When it was not published.
    pub async fn stored(&self) -> Result<StoredIn, EnqueueError> {
        loop {
            // First in line, then look: what is settled in between is seen by one or the other.
            let settled = self.0.settled.notified();
            if let Some(result) = self.peek() {
                return result;
            }
            settled.await;
        }
    }

    /// What became of the batch, if that is known.
    pub fn peek(&self) -> Option<Result<StoredIn, EnqueueError>> {
        self.0.result.get().cloned()
    }

    pub(crate) fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    fn settle(&self, result: Result<StoredIn, EnqueueError>) {
        if self.0.result.set(result).is_ok() {
            self.0.settled.notify_waiters();
        }
    }
}

impl IntoFuture for Receipt {
    type Output = Result<StoredIn, EnqueueError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { self.stored().await })
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Receipt").field(&self.0.result.get()).finish()
    }
}

/// The duty to settle a receipt. Whoever drops it settles the receipt as lost, so that nobody waits for ever.
pub(crate) struct Duty(pub(crate) Receipt);

impl Duty {
    pub(crate) fn settle(self, result: Result<StoredIn, EnqueueError>) {
        self.0.settle(result);
    }
}

impl Drop for Duty {
    fn drop(&mut self) {
        self.0.settle(Err(PublishError::Lost.into()));
    }
}
