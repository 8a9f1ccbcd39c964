//! `POST /v1/jobs`: one job.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use wf_schema::{Job, JobId};

use super::body::BodyReader;
use super::problem::Problem;
use super::{HttpState, idempotency, media};
use crate::StoredIn;

/// What a job's JSON takes beside its args, at most, in bytes.
pub(super) const FORM: usize = 16 << 10;

pub(super) async fn post(State(state): State<HttpState>, uri: Uri, headers: HeaderMap, body: Body) -> Result<Response, Problem> {
    media::json(&headers)?;
    let key = idempotency::key(&headers)?;
    let producer = &state.producer;
    let limit = producer.limits().args_bytes + FORM;
    let body = BodyReader::new(&state, &headers, body, limit as u64)?.whole().await?;
    let job = Job::from_json(&body, producer.limits()).map_err(|error| Problem::job(&error))?;
    take(&state, uri.path(), &headers, key, &body, &job).await.map(|taken| taken.into_response())
}

/// A job that was taken.
pub(super) struct Taken {
    pub(super) id: JobId,
    early: bool,
    /// Where it is, if the answer says so.
    pub(super) stored: Option<StoredIn>,
    replayed: bool,
    /// What the answer says beside the id.
    pub(super) request_id: Option<String>,
}

/// Takes `job`, which was read from `body` sent to `path`.
pub(super) async fn take(
    state: &HttpState,
    path: &str,
    headers: &HeaderMap,
    key: Option<idempotency::IdempotencyKey>,
    body: &[u8],
    job: &Job<'_>,
) -> Result<Taken, Problem> {
    if let Some(key) = key {
        let incoming = [state.producer.admit_one(job)?];
        let once = idempotency::publish_once(state, &key, path, body, false, &incoming).await?;
        let first = once.parcel.ids().into_iter().next().ok_or_else(|| Problem::internal("a parcel without a job"))?;
        let id = JobId { batch: first.batch, index: first.first };
        return Ok(Taken { id, early: false, stored: Some(StoredIn::Broker), replayed: once.replayed, request_id: None });
    }
    let early = media::wants_early_answer(headers);
    let submitted = state.producer.submit_traced(job, media::trace(headers)).await?;
    let stored = if early { None } else { Some(submitted.stored.stored().await?) };
    Ok(Taken { id: submitted.id, early, stored, replayed: false, request_id: None })
}

impl IntoResponse for Taken {
    fn into_response(self) -> Response {
        let mut body = json!({ "id": self.id });
        if let Some(stored) = self.stored {
            body["stored"] = stored.as_str().into();
        }
        if let Some(request_id) = self.request_id {
            body["request_id"] = request_id.into();
        }
        let mut response = (StatusCode::ACCEPTED, Json(body)).into_response();
        let headers = response.headers_mut();
        if let Ok(location) = HeaderValue::try_from(format!("/v1/jobs/{}", self.id)) {
            headers.insert(header::LOCATION, location);
        }
        mark(headers, self.early, self.replayed);
        response
    }
}

/// Says how the request was answered, if it was in another way than usual.
pub(super) fn mark(headers: &mut HeaderMap, early: bool, replayed: bool) {
    if early {
        headers.insert(HeaderName::from_static("preference-applied"), HeaderValue::from_static("respond-async"));
    }
    if replayed {
        headers.insert(HeaderName::from_static("idempotency-replayed"), HeaderValue::from_static("true"));
    }
}
