//! How a handler says that an attempt failed.

use std::fmt::{self, Write};

use wf_schema::Failure;

/// Why an attempt failed, and whether another may succeed.
///
/// Any error becomes a retryable failure of type `error` through `?`, its causes in its message; so this type is no
/// error itself. What trying again cannot mend should say so:
///
/// ```
/// use wf_executor::JobFailure;
///
/// fn parse(text: &str) -> Result<u32, JobFailure> {
///     if text.is_empty() {
///         return Err(JobFailure::permanent("empty", "there is nothing to parse"));
///     }
///     Ok(text.parse()?)
/// }
///
/// assert!(parse("").is_err_and(|failure| failure.is_permanent()));
/// assert!(parse("x").is_err_and(|failure| !failure.is_permanent()));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobFailure {
    failure: Failure,
    permanent: bool,
}

impl JobFailure {
    /// A failure that another attempt may not meet. `kind` is a word for machines, `message` a sentence for people;
    /// both are cut to what [`Failure`] keeps.
    pub fn retryable(kind: impl Into<String>, message: impl Into<String>) -> Self {
        Self { failure: Failure::new(kind, message), permanent: false }
    }

    /// A failure that every other attempt would meet too: the job is discarded at once.
    pub fn permanent(kind: impl Into<String>, message: impl Into<String>) -> Self {
        Self { failure: Failure::new(kind, message), permanent: true }
    }

    /// Whether another attempt is pointless.
    pub fn is_permanent(&self) -> bool {
        self.permanent
    }

    /// The failure's type and message.
    pub fn failure(&self) -> &Failure {
        &self.failure
    }

    pub(crate) fn into_failure(self) -> Failure {
        self.failure
    }
}

impl<E: std::error::Error> From<E> for JobFailure {
    fn from(error: E) -> Self {
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            // Writing to a string cannot fail.
            let _ = write!(message, ": {error}");
            cause = error.source();
        }
        Self::retryable("error", message)
    }
}

impl fmt::Display for JobFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.failure, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the invoice cannot be printed")]
    struct Outer(#[source] std::fmt::Error);

    #[test]
    fn an_error_is_retryable_and_tells_its_causes() {
        let failure = JobFailure::from(Outer(std::fmt::Error));
        assert!(!failure.is_permanent());
        assert_eq!(failure.failure().kind, "error");
        assert!(failure.failure().message.starts_with("the invoice cannot be printed: "));
    }
}
