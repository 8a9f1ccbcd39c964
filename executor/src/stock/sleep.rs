//! A job that takes its time.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{JobContext, JobFailure};

/// How long to sleep: one of the two.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sleep {
    /// In milliseconds.
    #[serde(default)]
    pub ms: Option<u64>,
    /// As text with its unit: `2s`, `1m 30s`.
    #[serde(default, rename = "for")]
    pub time: Option<String>,
}

/// Sleeps.
///
/// # Errors
/// `bad_args`, permanent, when both fields are given, or none, or `for` is no length of time.
pub async fn sleep(_: JobContext, args: Sleep) -> Result<(), JobFailure> {
    let bad = |message: &str| JobFailure::permanent("bad_args", message);
    let time = match (args.ms, args.time.as_deref()) {
        (Some(ms), None) => Duration::from_millis(ms),
        (None, Some(text)) => humantime::parse_duration(text)
            .map_err(|_| bad("`for`: expected a length of time with its unit, e.g. \"2s\" or \"1500ms\""))?,
        _ => return Err(bad("expected one of `ms` and `for`, e.g. {\"ms\": 20} or {\"for\": \"2s\"}")),
    };
    tokio::time::sleep(time).await;
    Ok(())
}
