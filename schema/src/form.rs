//! A job as people write it: a JSON object.

use std::borrow::Cow;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{Backoff, Format, Job, JobError, Kind, Lane, Limits, Millis, Policy, Priority, Queue, now};

/// The JSON form. Field by field in docs/http-api.md.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Form<'a> {
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    args: &'a RawValue,
    queue: Option<String>,
    priority: Option<Priority>,
    max_attempts: Option<u32>,
    timeout: Option<Text>,
    backoff: Option<BackoffForm>,
    expires_in: Option<Text>,
    delay: Option<Text>,
    run_at: Option<String>,
    store_result: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BackoffForm {
    min: Option<Text>,
    max: Option<Text>,
}

/// A length of time as text. A bare number is refused, for nobody knows its unit.
struct Text(Duration);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Text;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a length of time with its unit, e.g. \"30s\", \"1500ms\", \"2h\"")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Text, E> {
                humantime::parse_duration(text).map(Text).map_err(|_| E::invalid_value(serde::de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

impl<'a> Job<'a> {
    /// Reads a job from JSON: `{"kind": .., "args": ..}` and, if wanted, `queue`, `priority`, `max_attempts`, `timeout`,
    /// `backoff`, `expires_in`, `delay` or `run_at`, `store_result`.
    ///
    /// Borrows the kind and the args from `json`.
    ///
    /// # Errors
    /// When it is not such an object, or a value is outside its limits; the message names the field.
    pub fn from_json(json: &'a [u8], limits: &Limits) -> Result<Self, JobError> {
        let form: Form<'a> = serde_json::from_slice(json).map_err(|error| JobError::Form(explain(&error)))?;
        Kind::check(&form.kind)?;
        let args = form.args.get().as_bytes();
        if args.len() > limits.args_bytes {
            let limit = format!("at most {} bytes: put large inputs elsewhere and pass where they are", limits.args_bytes);
            return Err(JobError::limit("args", format!("{} bytes long", args.len()), limit));
        }
        if args.len() > 2 * MAX_DEPTH && depth(args) > MAX_DEPTH {
            return Err(JobError::limit("args", "nested too deeply", format!("at most {MAX_DEPTH} levels")));
        }
        let queue = form.queue.as_deref().map(Queue::new).transpose()?.unwrap_or_default();
        let run_at = run_at(form.delay.as_ref(), form.run_at.as_deref())?;
        Ok(Self {
            kind: form.kind,
            args: Cow::Borrowed(args),
            format: Format::Json,
            policy: policy(form.max_attempts, form.timeout, form.backoff, form.expires_in, form.store_result)?,
            lane: Lane::new(queue, form.priority.unwrap_or_default()),
            run_at,
        })
    }
}

fn policy(
    max_attempts: Option<u32>,
    timeout: Option<Text>,
    backoff: Option<BackoffForm>,
    expires_in: Option<Text>,
    store_result: Option<bool>,
) -> Result<Policy, JobError> {
    let mut policy = Policy::default();
    if let Some(attempts) = max_attempts {
        if !(1..=Policy::MAX_ATTEMPTS).contains(&attempts) {
            return Err(JobError::limit("max_attempts", attempts, format!("from 1 (no retries) to {}", Policy::MAX_ATTEMPTS)));
        }
        policy.max_attempts = attempts;
    }
    if let Some(timeout) = timeout {
        policy.timeout_ms = within("timeout", timeout, Duration::from_millis(1), Policy::MAX_TIMEOUT)?;
    }
    if let Some(form) = backoff {
        let min = form.min.map(|min| within("backoff.min", min, Duration::ZERO, Policy::MAX_BACKOFF)).transpose()?;
        let max = form.max.map(|max| within("backoff.max", max, Duration::ZERO, Policy::MAX_BACKOFF)).transpose()?;
        let min_ms = min.unwrap_or_else(|| policy.backoff.min_ms.min(max.unwrap_or(u64::MAX)));
        policy.backoff = Backoff { min_ms, max_ms: max.unwrap_or_else(|| policy.backoff.max_ms.max(min_ms)) };
        if policy.backoff.max_ms < min_ms {
            return Err(JobError::limit(
                "backoff.max",
                format!("{} ms", policy.backoff.max_ms),
                format!("at least backoff.min, {min_ms} ms"),
            ));
        }
    }
    if let Some(expires_in) = expires_in {
        policy.expires_in_ms = Some(within("expires_in", expires_in, Duration::from_millis(1), MAX_AHEAD)?);
    }
    if let Some(store) = store_result {
        policy.store_result = store;
    }
    Ok(policy)
}

/// How far ahead a job may be scheduled, or expire: ten years.
const MAX_AHEAD: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

fn run_at(delay: Option<&Text>, run_at: Option<&str>) -> Result<Option<Millis>, JobError> {
    let at = match (delay, run_at) {
        (None, None) => return Ok(None),
        (Some(_), Some(text)) => return Err(JobError::limit("run_at", text, "not together with delay: give one of them")),
        (Some(Text(delay)), None) => now().saturating_add(delay.as_millis().try_into().unwrap_or(u64::MAX)),
        (None, Some(text)) => {
            let time = chrono::DateTime::parse_from_rfc3339(text)
                .map_err(|_| JobError::limit("run_at", text, "expected RFC 3339, e.g. 2026-11-22T09:30:00Z"))?;
            time.timestamp_millis().max(0) as Millis
        }
    };
    let latest = now() + MAX_AHEAD.as_millis() as u64;
    if at > latest {
        return Err(JobError::limit("run_at", at, "more than ten years ahead"));
    }
    Ok(Some(at))
}

fn within(field: &'static str, Text(span): Text, min: Duration, max: Duration) -> Result<u64, JobError> {
    if span < min || span > max {
        let limit = format!("from {} to {}", humantime::format_duration(min), humantime::format_duration(max));
        return Err(JobError::limit(field, humantime::format_duration(span), limit));
    }
    Ok(span.as_millis() as u64)
}

/// The deepest that args may be nested: what serde_json reads, so that the handler can.
const MAX_DEPTH: usize = 127;

/// How deeply `json`, which parses, is nested.
fn depth(json: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_text, mut escaped) = (0usize, 0, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'[' | b'{' if !in_text => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// serde_json's message, with what a newcomer needs added, and without a text of any length that it quotes.
fn explain(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let what = text.strip_suffix(&format!(" at line {} column {}", error.line(), error.column())).unwrap_or(&text);
    let what = match what.char_indices().nth(MAX_TEXT) {
        Some((cut, _)) => format!("{}...", &what[..cut]),
        None if what == "missing field `args`" => format!("{what} (a kind that takes nothing is given {{}})"),
        None => what.to_owned(),
    };
    // Most jobs are one line of many: its number is the reader's to tell, and "line 1" would only mislead.
    match error.line() {
        0 => what,
        1 => format!("{what}, at column {}", error.column()),
        line => format!("{what}, at line {line} column {}", error.column()),
    }
}

/// The longest message about a form, in characters.
const MAX_TEXT: usize = 400;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<Job<'_>, JobError> {
        Job::from_json(json.as_bytes(), &Limits { args_bytes: 32, ..Limits::default() })
    }

    #[test]
    fn a_job_borrows_from_its_json() {
        let job = parse(r#"{"kind":"math_add","args":{"a":1,"b":2}}"#).unwrap();
        assert!(matches!(job.kind, Cow::Borrowed("math_add")));
        assert!(matches!(job.args, Cow::Borrowed(br#"{"a":1,"b":2}"#)));
        assert_eq!(job.lane.to_string(), "default.normal");
        assert_eq!(job.policy, Policy::default());
    }

    #[test]
    fn every_field_arrives() {
        let job = parse(
            r#"{"kind":"k","args":[],"queue":"mail","priority":"low","max_attempts":3,"timeout":"90s",
                "backoff":{"min":"2s","max":"1m"},"expires_in":"1h","run_at":"2026-11-22T09:30:00Z","store_result":true}"#,
        )
        .unwrap();
        assert_eq!(job.lane.to_string(), "mail.low");
        assert_eq!(job.run_at, Some(1_795_339_800_000));
        assert_eq!(
            job.policy,
            Policy {
                max_attempts: 3,
                timeout_ms: 90_000,
                backoff: Backoff { min_ms: 2_000, max_ms: 60_000 },
                expires_in_ms: Some(3_600_000),
                store_result: true
            }
        );
    }

    #[test]
    fn args_are_as_deep_as_a_handler_can_read() {
        let limits = Limits::default();
        let nested = |levels: usize| format!(r#"{{"kind":"k","args":{}"[[{{\""{}}}"#, "[".repeat(levels), "]".repeat(levels));
        for (levels, good) in [(1, true), (MAX_DEPTH, true), (MAX_DEPTH + 1, false), (100_000, false)] {
            let json = nested(levels);
            let job = Job::from_json(json.as_bytes(), &limits);
            assert_eq!(job.is_ok(), good, "{levels}");
            if let Ok(job) = job {
                serde_json::from_slice::<serde_json::Value>(&job.args).unwrap();
            }
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let long = format!(r#"{{"kind":"k","args":"{}"}}"#, "x".repeat(40));
        for (json, says) in [
            (r#"{"kind":"k"}"#, "missing field `args`"),
            (r#"{"args":1}"#, "missing field `kind`"),
            (r#"{"kind":"k","args":1,"colour":1}"#, "unknown field `colour`"),
            (r#"{"kind":7,"args":1}"#, "invalid type: integer `7`"),
            (r#"{"kind":"a b","args":1}"#, "kind `a b` is not valid"),
            (r#"{"kind":"k","args":1,"queue":"a.b"}"#, "queue `a.b` is not valid"),
            (r#"{"kind":"k","args":1,"priority":"urgent"}"#, "unknown variant `urgent`"),
            (r#"{"kind":"k","args":1,"timeout":30}"#, "a length of time with its unit"),
            (r#"{"kind":"k","args":1,"timeout":"2 days"}"#, "timeout is 2days; from 1ms to 1day"),
            (r#"{"kind":"k","args":1,"max_attempts":0}"#, "max_attempts is 0; from 1"),
            (r#"{"kind":"k","args":1,"backoff":{"min":"2s","max":"1s"}}"#, "backoff.max is 1000 ms; at least backoff.min"),
            (r#"{"kind":"k","args":1,"run_at":"soon"}"#, "run_at is soon; expected RFC 3339"),
            (r#"{"kind":"k","args":1,"run_at":"2026-11-22T09:30:00Z","delay":"1s"}"#, "not together with delay"),
            (long.as_str(), "args is 42 bytes long; at most 32"),
            ("", "EOF"),
            ("[]", "invalid length 0"),
            (&format!(r#"{{"kind":"k","args":1,"{}":1}}"#, "ü".repeat(500)), "ü..., at column"),
        ] {
            let error = parse(json).unwrap_err().to_string();
            assert!(error.contains(says), "{json}: {error}");
        }
    }
}
