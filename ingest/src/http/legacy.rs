//! `POST /jobs/add|subtract|multiply|divide`: the API of the system before this one, so that its callers go on as
//! they are.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use wf_schema::Job;

use super::body::BodyReader;
use super::jobs::take;
use super::problem::Problem;
use super::{HttpState, idempotency, media};

/// Its jobs. Members it does not know were ignored then, and are now.
#[derive(Debug, Serialize, Deserialize)]
struct Pair {
    a: f64,
    b: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
}

/// The largest body, in bytes.
const BODY: u64 = 16 << 10;

pub(super) async fn post(
    State(state): State<HttpState>,
    Path(operation): Path<String>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let kind = match operation.as_str() {
        "add" => "math_add",
        "subtract" => "math_subtract",
        "multiply" => "math_multiply",
        "divide" => "math_divide",
        _ => return Err(super::unknown_path(&uri)),
    };
    media::json(&headers)?;
    let key = idempotency::key(&headers)?;
    let body = BodyReader::new(&state, &headers, body, BODY)?.whole().await?;
    let pair: Pair = serde_json::from_slice(&body).map_err(|error| {
        let detail = format!("{error}; expected {{\"a\": number, \"b\": number, \"request_id\": text if wanted}}");
        Problem::new(StatusCode::BAD_REQUEST, "invalid-job", "Not a job", detail)
    })?;
    let job = Job::new(kind, &pair).map_err(|error| Problem::job(&error))?;
    let mut taken = take(&state, uri.path(), &headers, key, &body, &job).await?;
    taken.request_id = pair.request_id;
    // Its answers are as they always were.
    taken.stored = None;
    Ok(taken.into_response())
}
