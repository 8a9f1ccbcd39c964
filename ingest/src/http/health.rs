//! `/healthz`: this process runs. `/readyz`: it can do its work.

use std::error::Error as _;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use wf_broker::BrokerError;

use super::HttpState;
use super::problem::Problem;
use crate::breaker::Breaker;
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
    let open = publisher.breaker().filter(|breaker| breaker.is_open());
    let answer = match (open, publisher.breaker()) {
        (None, Some(breaker)) => breaker.probe().await,
        _ => Err(open.and_then(Breaker::failure).unwrap_or_else(|| Arc::new(silent()))),
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
        Some(spool) if matches!(*error, BrokerError::Retryable { .. }) => {
            if spool.bytes >= spool.limit {
                return Err(tell(crate::SpoolError::Full { limit: spool.limit }).with("spool", shown(&spool)));
            }
            let mut body = json!({ "status": "ok", "broker": "unreachable", "why": why(&error) });
            add(&mut body, Some(spool));
            Ok(Json(body).into_response())
        }
        _ => {
            Err(Problem::broker(&error).with("breaker", if open.is_some() { "open" } else { "closed" }).with("why", why(&error)))
        }
    }
}

/// What is known of a broker that has not answered yet.
fn silent() -> BrokerError {
    BrokerError::retryable("answer for a while", "it is asked again and again")
}

/// What stands behind an error, for people.
fn why(error: &BrokerError) -> String {
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
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
