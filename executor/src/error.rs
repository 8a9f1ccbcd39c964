//! Why an executor does not start, or stops.

use std::sync::Arc;

use wf_broker::BrokerError;
use wf_schema::NameError;

/// Why an executor did not start, or stopped by itself.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ExecutorError {
    /// Handlers run on the tokio runtime of whoever starts the executor, and there is none.
    #[error("an executor is started from within a tokio runtime")]
    NoRuntime,
    /// A handler was registered for something that is no kind.
    #[error("a handler cannot be registered")]
    Kind(#[from] NameError),
    /// The threads that talk to the broker could not be started.
    #[error("the executor's own threads cannot be started")]
    Threads(#[source] Arc<std::io::Error>),
    /// The broker refused for good.
    #[error("the executor cannot go on with this broker")]
    Broker(#[source] Arc<BrokerError>),
}

impl ExecutorError {
    /// Whether starting anew may succeed without anybody changing anything. What is retryable at the broker is retried
    /// inside.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Threads(_))
    }
}
