//! `GET /v1/jobs/{id}`: what became of a job.

use std::time::Duration;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::time::Instant;
use wf_schema::{Format, JobId, Limits, OutcomeView, Record, State as JobState};

use super::HttpState;
use super::problem::Problem;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Options {
    wait: Option<String>,
}

/// Hints that something was recorded may be lost, so the records are looked at this often without one.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

const NO_RECORD: &str = "no record: not finished yet, completed without a stored outcome, or past retention";

pub(super) async fn get(
    State(state): State<HttpState>,
    Path(id): Path<String>,
    options: Result<Query<Options>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(options) = options.map_err(|error| Problem::bad_request(error.body_text()))?;
    let id: JobId = id.parse().map_err(|error| {
        Problem::new(StatusCode::BAD_REQUEST, "invalid-id", "Not a job id", format!("{error}")).with("field", "id")
    })?;
    let Some(wait) = options.wait else {
        let found = look(&state, id).await?;
        return found.map(Latest::answer).ok_or_else(|| {
            Problem::new(StatusCode::NOT_FOUND, "no-record", "No record", format!("job {id}: {NO_RECORD}"))
                .with("id", id.to_string())
        });
    };
    let wait = humantime::parse_duration(&wait)
        .map_err(|_| Problem::bad_request("wait must be a time with its unit, e.g. ?wait=30s").with("field", "wait"))?;
    let limit = state.options.wait_limit;
    match wait_for(&state, id, wait.min(limit)).await? {
        Some(latest) => Ok(latest.answer()),
        None => {
            let body = json!({ "id": id, "state": "unknown", "detail": NO_RECORD });
            Ok((StatusCode::ACCEPTED, Json(body)).into_response())
        }
    }
}

/// Waits until `id` has come to an end, or the time is over: the latest that is known then.
async fn wait_for(state: &HttpState, id: JobId, wait: Duration) -> Result<Option<Latest>, Problem> {
    let until = Instant::now() + wait;
    let Ok(_place) = state.waiters.try_acquire() else {
        let detail = "too many callers wait for outcomes; ask again without ?wait";
        return Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, "busy", "Too busy", detail).retry_after(Duration::from_secs(1)));
    };
    // Watch, then read: what is recorded in between is seen by one or the other.
    let mut hints = state.producer.publisher().broker().watch(id.batch).await?;
    loop {
        let latest = look(state, id).await?;
        if latest.as_ref().is_some_and(|latest| latest.state.is_final()) {
            return Ok(latest);
        }
        let look_again = (Instant::now() + LOOK_AGAIN).min(until);
        tokio::select! {
            hint = hints.changed() => drop(hint?),
            () = tokio::time::sleep_until(look_again) => {}
            () = state.stopping.cancelled() => return Ok(latest),
        }
        if Instant::now() >= until {
            return look(state, id).await;
        }
    }
}

/// The latest outcome of a job.
struct Latest {
    state: JobState,
    body: Value,
    /// The result as it was written; put into the answer without being read.
    result: Option<Box<RawValue>>,
}

/// The latest outcome of `id`, over all runs of its batch.
async fn look(state: &HttpState, id: JobId) -> Result<Option<Latest>, Problem> {
    let logged = state.producer.publisher().broker().read(id.batch).await?;
    let mut latest: Option<((u32, u8, u64), Latest)> = None;
    for logged in logged {
        let record = match Record::decode(&logged.bytes, &Limits::default()) {
            Ok(record) => record,
            Err(error) => {
                tracing::error!(batch = %id.batch, run = %logged.run, error = %error, "a record cannot be read");
                continue;
            }
        };
        for outcome in record.iter().filter(|outcome| outcome.index() == id.index) {
            let rank = rank(&record, &outcome);
            if latest.as_ref().is_none_or(|(best, _)| rank >= *best) {
                latest = Some((rank, Latest::new(&record, &outcome)));
            }
        }
    }
    Ok(latest.map(|(_, latest)| latest))
}

/// Later attempts come after earlier ones, whatever the clocks say. A move is no attempt: the one that it carried on
/// comes after it.
fn rank(record: &Record, outcome: &OutcomeView<'_>) -> (u32, u8, u64) {
    let stage = match outcome.state() {
        JobState::Moved => 0,
        JobState::Retryable => 1,
        _ => 2,
    };
    (outcome.attempt(), stage, record.header().at)
}

impl Latest {
    fn new(record: &Record, outcome: &OutcomeView<'_>) -> Self {
        let header = record.header();
        let state = match outcome.state() {
            // It waits for another executor.
            JobState::Moved => "available",
            state => state.as_str(),
        };
        let mut body = json!({
            "id": outcome.id(),
            "kind": outcome.kind(),
            "queue": header.lane.queue,
            "priority": header.lane.priority,
            "state": state,
            "attempts": outcome.attempt(),
            "at": rfc3339(header.at),
            "executor": header.executor,
        });
        if let Some(failure) = outcome.failure() {
            body["error"] = json!(failure);
        }
        if let Some(at) = outcome.retry_at() {
            body["retry_at"] = rfc3339(at).into();
        }
        let result = match header.format {
            _ if outcome.result().is_empty() => None,
            Format::Json => serde_json::from_slice(outcome.result()).ok(),
            // Typed Rust producers know what it is; here it is only bytes.
            Format::Postcard => serde_json::value::to_raw_value(&json!({ "postcard": outcome.result() })).ok(),
        };
        Self { state: outcome.state(), body, result }
    }

    fn answer(self) -> Response {
        #[derive(serde::Serialize)]
        struct Answer {
            #[serde(flatten)]
            body: Value,
            #[serde(skip_serializing_if = "Option::is_none")]
            result: Option<Box<RawValue>>,
        }
        Json(Answer { body: self.body, result: self.result }).into_response()
    }
}

/// A time for people: RFC 3339, in UTC, to the millisecond.
fn rfc3339(millis: u64) -> String {
    let time = std::time::UNIX_EPOCH.checked_add(Duration::from_millis(millis)).unwrap_or(std::time::UNIX_EPOCH);
    humantime::format_rfc3339_millis(time).to_string()
}
