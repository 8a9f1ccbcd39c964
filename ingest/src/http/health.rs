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

/// While the broker counts as unreachable, this says so at once: whoever asks may be in a hurry, and probes are under way
/// already.
pub(super) async fn readyz(State(state): State<HttpState>) -> Result<Response, Problem> {
    if state.stopping.is_cancelled() {
        return Err(Problem::closing());
    }
    let publisher = state.producer.publisher();
    let breaker = publisher.breaker().filter(|breaker| !breaker.is_open());
    let answer = match breaker {
        Some(breaker) => breaker.probe().await,
        None => Err(BrokerError::retryable("answer for a while", "it is asked again and again")),
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
        _ => Err(Problem::from(error).with("breaker", if breaker.is_none() { "open" } else { "closed" })),
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
