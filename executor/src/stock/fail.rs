//! A job that fails as it is told to.

use serde::{Deserialize, Serialize};

use crate::{JobContext, JobFailure};

/// How to fail.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fail {
    /// How many attempts fail, from the first on; later ones succeed. Unset, all fail.
    #[serde(default)]
    pub times: Option<u32>,
    /// Whether trying again is pointless.
    #[serde(default)]
    pub permanent: bool,
    /// What to say.
    #[serde(default)]
    pub message: Option<String>,
    /// Whether to panic instead.
    #[serde(default)]
    pub panic: bool,
}

/// Fails.
///
/// # Errors
/// `failed_on_purpose`, as the args say.
///
/// # Panics
/// When the args say so.
#[allow(clippy::panic, reason = "panics are what some come here for")]
pub async fn fail(context: JobContext, args: Fail) -> Result<(), JobFailure> {
    if args.times.is_some_and(|times| context.attempt() > times) {
        return Ok(());
    }
    let message = args.message.unwrap_or_else(|| format!("attempt {} failed on purpose", context.attempt()));
    match (args.panic, args.permanent) {
        (true, _) => panic!("{message}"),
        (false, true) => Err(JobFailure::permanent("failed_on_purpose", message)),
        (false, false) => Err(JobFailure::retryable("failed_on_purpose", message)),
    }
}
