//! `GET /v1/jobs/{id}`: what became of a job.

use std::time::{Duration, UNIX_EPOCH};

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;
use wf_schema::{Failure, Format, JobId, Kind, Millis, Priority, Queue, State as JobState};

use super::HttpState;
use super::problem::Problem;
use crate::{Outcome, outcome, wait_for_outcome};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Options {
    wait: Option<String>,
}

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
        let found = outcome(&**state.broker(), id).await?;
        return found.map(answer).ok_or_else(|| {
            Problem::new(StatusCode::NOT_FOUND, "no-record", "No record", format!("job {id}: {NO_RECORD}"))
                .with("id", id.to_string())
        });
    };
    let wait = humantime::parse_duration(&wait)
        .map_err(|_| Problem::bad_request("wait must be a time with its unit, e.g. ?wait=30s").with("field", "wait"))?;
    let found = wait_for(&state, id, wait.min(state.options.wait_limit)).await?;
    Ok(found.map_or_else(
        || (StatusCode::ACCEPTED, Json(json!({ "id": id, "state": "unknown", "detail": NO_RECORD }))).into_response(),
        answer,
    ))
}

/// Waits until `id` has come to an end, the time is over, or the server stops: the latest that is known then.
async fn wait_for(state: &HttpState, id: JobId, wait: Duration) -> Result<Option<Outcome>, Problem> {
    let Ok(_place) = state.waiters.try_acquire() else {
        let detail = "too many callers wait for outcomes; ask again without ?wait";
        return Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, "busy", "Too busy", detail).retry_after(Duration::from_secs(1)));
    };
    let broker = &**state.broker();
    let waiting = state.stopping.run_until_cancelled(wait_for_outcome(broker, id, wait));
    Ok(match waiting.await {
        Some(found) => found?,
        None => outcome(broker, id).await?,
    })
}

#[derive(Serialize)]
struct Answer {
    id: JobId,
    kind: Kind,
    queue: Queue,
    priority: Priority,
    state: &'static str,
    attempts: u32,
    at: String,
    executor: String,
    /// As it was written: it goes into the answer without being read.
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Failure>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_at: Option<String>,
}

fn answer(outcome: Outcome) -> Response {
    let state = match outcome.state {
        // It waits for another executor.
        JobState::Moved => "available",
        state => state.as_str(),
    };
    let result = outcome.result.and_then(|result| match outcome.format {
        Format::Json => serde_json::from_slice(&result).ok(),
        // Typed Rust producers know what it is; here it is only bytes.
        Format::Postcard => serde_json::value::to_raw_value(&json!({ "postcard": &result[..] })).ok(),
    });
    Json(Answer {
        id: outcome.id,
        kind: outcome.kind,
        queue: outcome.lane.queue,
        priority: outcome.lane.priority,
        state,
        attempts: outcome.attempts,
        at: rfc3339(outcome.at),
        executor: outcome.executor,
        result,
        error: outcome.failure,
        retry_at: outcome.retry_at.map(rfc3339),
    })
    .into_response()
}

/// A time for people: RFC 3339, in UTC, to the millisecond.
fn rfc3339(millis: Millis) -> String {
    // The last moment that can be written: the end of the year 9999.
    let millis = millis.min(253_402_300_799_999);
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(millis)).to_string()
}
