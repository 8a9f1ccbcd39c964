//! `/healthz`: this process runs. `/readyz`: it can do its work.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::HttpState;
use super::problem::Problem;

/// How long the broker may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);

pub(super) async fn healthz() -> Response {
    Json(json!({ "status": "ok" })).into_response()
}

pub(super) async fn readyz(State(state): State<HttpState>) -> Result<Response, Problem> {
    if state.stopping.is_cancelled() {
        return Err(Problem::closing());
    }
    match tokio::time::timeout(PATIENCE, state.broker().ping()).await {
        Ok(Ok(rtt)) => Ok(Json(json!({ "status": "ok", "broker_rtt_ms": rtt.as_secs_f64() * 1_000.0 })).into_response()),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(Problem::unreachable(format!("the broker did not answer a ping within {} s", PATIENCE.as_secs()))),
    }
}
