//! Jobs over HTTP: what is served where. A noun a file; docs/http-api.md is for those who call it.

mod body;
mod bulk;
mod health;
mod idempotency;
mod jobs;
mod legacy;
mod media;
mod problem;
mod server;
mod splitter;
mod status;
mod unread;

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use axum::Router;
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::from_fn;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use wf_broker::Broker;

use crate::{HttpOptions, Producer};

use body::Budget;
use problem::Problem;
pub use server::{ServeError, Server};

/// What every request is served with. Cheap to clone.
#[derive(Clone)]
pub struct HttpState {
    producer: Producer,
    options: Arc<HttpOptions>,
    /// Places for callers that wait for outcomes.
    waiters: Arc<Semaphore>,
    /// Who waits for long is answered at once when this is cancelled.
    stopping: CancellationToken,
    most_held: Arc<AtomicUsize>,
    /// Memory for bodies.
    bodies: Budget,
}

impl HttpState {
    /// Hands jobs to `producer`, and looks outcomes up at its broker.
    pub fn new(producer: Producer, options: HttpOptions) -> Self {
        Self {
            waiters: Arc::new(Semaphore::new(options.waiters)),
            bodies: Budget::new(options.body_memory, producer.options().room_timeout),
            options: Arc::new(options),
            stopping: CancellationToken::new(),
            most_held: Arc::default(),
            producer,
        }
    }

    /// The most bytes that a bulk body ever held in memory while it was read.
    pub fn most_held(&self) -> usize {
        self.most_held.load(Relaxed)
    }

    /// The most bytes that all bodies together ever held in memory.
    pub fn most_held_together(&self) -> usize {
        self.bodies.most()
    }

    fn broker(&self) -> &Arc<dyn Broker> {
        self.producer.publisher().broker()
    }

    fn note_held(&self, bytes: usize) {
        self.most_held.fetch_max(bytes, Relaxed);
    }
}

impl HttpState {
    /// What serves each request, without a connection: for the simulator.
    #[doc(hidden)]
    pub fn into_router(self) -> Router {
        router(self)
    }
}

/// Everything that is served.
fn router(state: HttpState) -> Router {
    Router::new()
        .route("/v1/jobs", post(jobs::post))
        .route("/v1/jobs/batch", post(bulk::post))
        .route("/v1/jobs/{id}", get(status::get))
        .route("/jobs/{operation}", post(legacy::post))
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .fallback(async |uri: Uri| unknown_path(&uri))
        .method_not_allowed_fallback(wrong_method)
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn(unread::see_to_it))
        .with_state(state)
}

fn unknown_path(uri: &Uri) -> Problem {
    let detail = format!("nothing is served at {}", uri.path().chars().take(200).collect::<String>());
    Problem::new(StatusCode::NOT_FOUND, "not-found", "Not found", detail)
}

async fn wrong_method(method: Method, uri: Uri) -> Problem {
    let detail = format!("{method} is not served at {}; see the header Allow", uri.path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "Method not allowed", detail)
}

/// A request must not take the others down; what happened is in the log.
fn panicked(cause: Box<dyn Any + Send>) -> Response {
    let cause = cause.downcast_ref::<&str>().map(ToString::to_string).or_else(|| cause.downcast_ref::<String>().cloned());
    tracing::error!(cause = cause.unwrap_or_default(), "a request panicked");
    Problem::internal("the request could not be served; whether its jobs were stored is not known").into_response()
}
