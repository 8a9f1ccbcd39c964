//! `/healthz`: this process runs. `/readyz`: it can do its work.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use wf_broker::BrokerError;

use super::HttpState;
use super::problem::Problem;
use crate::{Spool, SpoolStats};

pub(super) async fn healthz() -> Response {
    Json(json!({ "status": "ok" })).into_response()
}

/// Asks the broker, also while it counts as unreachable: an answer ends that.
pub(super) async fn readyz(State(state): State<HttpState>) -> Result<Response, Problem> {
    if state.stopping.is_cancelled() {
        return Err(Problem::closing());
    }
    let publisher = state.producer.publisher();
    let answer = match publisher.breaker() {
        Some(breaker) => breaker.probe().await,
        None => state.broker().ping().await,
    };
    let spool = publisher.spool().map(Spool::stats);
    let error = match answer {
        Ok(rtt) => {
            let mut body = json!({ "status": "ok", "broker_rtt_ms": rtt.as_secs_f64() * 1_000.0 });
            add(&mut body, spool);
            return Ok(Json(body).into_response());
        }
        Err(error) => error,
    };
    match spool {
        Some(spool) if matches!(error, BrokerError::Retryable { .. }) => {
            if spool.bytes >= spool.limit {
                return Err(tell(crate::SpoolError::Full { limit: spool.limit }).with("spool", shown(&spool)));
            }
            let mut body = json!({ "status": "ok", "broker": "unreachable" });
            add(&mut body, Some(spool));
            Ok(Json(body).into_response())
        }
        _ => {
            let open = publisher.breaker().is_some_and(|breaker| breaker.is_open());
            Err(Problem::from(error).with("breaker", if open { "open" } else { "closed" }))
        }
    }
}

fn tell(full: crate::SpoolError) -> Problem {
    crate::PublishError::from(full).into()
}

fn add(body: &mut Value, spool: Option<SpoolStats>) {
    if let Some(spool) = spool {
        body["spool"] = shown(&spool);
    }
}

fn shown(spool: &SpoolStats) -> Value {
    let oldest = spool.oldest.map(|age| age.as_secs());
    json!({ "jobs": spool.jobs, "bytes": spool.bytes, "limit": spool.limit, "oldest_s": oldest })
}
