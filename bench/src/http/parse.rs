//! What parsing costs alone: the floor under every HTTP handler.

use std::borrow::Cow;
use std::hint::black_box;

use serde::Deserialize;
use serde_json::value::RawValue;
use wf_schema::{Job, Limits};

/// A job's JSON form, as wf-schema reads it; its own is nobody else's business. Borrows what can be borrowed, so it is
/// the fastest that serde_json makes of it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "it is read from JSON, and that is all")]
pub(super) struct Form<'a> {
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    args: &'a RawValue,
    queue: Option<String>,
    priority: Option<String>,
    max_attempts: Option<u32>,
    timeout: Option<String>,
    backoff: Option<Backoff>,
    expires_in: Option<String>,
    delay: Option<String>,
    run_at: Option<String>,
    store_result: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "it is read from JSON, and that is all")]
struct Backoff {
    min: Option<String>,
    max: Option<String>,
}

/// Reads each line of `body` into a [`Form`]: the number of jobs.
///
/// # Errors
/// When a line is no job.
pub(super) fn serde_json(body: &[u8]) -> anyhow::Result<u64> {
    each_line(body, |line| {
        black_box(serde_json::from_slice::<Form<'_>>(line)?);
        Ok(())
    })
}

/// The same with the reader that ingest has, checks and all.
///
/// # Errors
/// When a line is no job.
pub(super) fn ours(body: &[u8]) -> anyhow::Result<u64> {
    let limits = Limits::default();
    each_line(body, |line| {
        black_box(Job::from_json(line, &limits)?);
        Ok(())
    })
}

fn each_line(body: &[u8], mut read: impl FnMut(&[u8]) -> anyhow::Result<()>) -> anyhow::Result<u64> {
    let mut jobs = 0;
    for line in body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        read(line)?;
        jobs += 1;
    }
    Ok(jobs)
}
