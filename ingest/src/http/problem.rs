//! Errors as people's programs read them: RFC 9457, `application/problem+json`.

use std::error::Error as _;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use wf_broker::BrokerError;
use wf_schema::JobError;

use crate::{EnqueueError, PublishError, SpoolError};

/// An error on its way to the caller. Boxed: there are many results of it, and few of them are errors.
#[derive(Debug)]
pub(super) struct Problem(Box<Inner>);

#[derive(Debug)]
struct Inner {
    status: StatusCode,
    /// What sort of problem, for programs: the end of its `type`.
    code: &'static str,
    title: &'static str,
    detail: String,
    more: Map<String, Value>,
    headers: HeaderMap,
}

impl Problem {
    pub(super) fn new(status: StatusCode, code: &'static str, title: &'static str, detail: impl Into<String>) -> Self {
        Self(Box::new(Inner { status, code, title, detail: detail.into(), more: Map::new(), headers: HeaderMap::new() }))
    }

    /// The request is not what it must be.
    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid-request", "The request is not valid", detail)
    }

    pub(super) fn too_large(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "Too large", detail)
    }

    pub(super) fn internal(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "Something is wrong here", detail)
    }

    /// The broker cannot be reached: nothing of this request was stored.
    pub(super) fn unreachable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "broker-unreachable", "The broker cannot be reached", detail)
            .retry_after(Duration::from_secs(5))
    }

    /// The jobs were given away, and nobody has confirmed that it has them.
    pub(super) fn unconfirmed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unconfirmed", "It is not known whether the jobs are stored", detail)
            .retry_after(Duration::from_secs(5))
    }

    /// Whether jobs may be stored all the same.
    pub(super) fn is_unconfirmed(&self) -> bool {
        self.0.code == "unconfirmed"
    }

    /// Jobs wait for the broker, and the spool takes no more.
    fn spool(error: &SpoolError) -> Self {
        if error.is_full() {
            let detail = format!("jobs wait for the broker, and {error}");
            return Self::new(StatusCode::INSUFFICIENT_STORAGE, "spool-full", "The spool is full", detail)
                .retry_after(SpoolError::RETRY_AFTER);
        }
        let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
        let detail = format!("jobs wait for the broker, and {error}{cause}");
        if matches!(error, SpoolError::Closed) { Self::unreachable(detail) } else { Self::unconfirmed(detail) }
    }

    pub(super) fn closing() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "closing", "Shutting down", "this server takes no more jobs; another may")
            .retry_after(Duration::from_secs(5))
    }

    /// Why a job could not be read.
    pub(super) fn job(error: &JobError) -> Self {
        let status = if is_too_large(error) { StatusCode::PAYLOAD_TOO_LARGE } else { StatusCode::BAD_REQUEST };
        let mut problem = Self::new(status, "invalid-job", "Not a job", error.to_string());
        if let Some(field) = field(error) {
            problem = problem.with("field", field);
        }
        if let JobError::Limit { limit, .. } = error {
            problem = problem.with("limit", limit.as_str());
        }
        problem
    }

    /// What the broker said to a request that was not a publish.
    pub(super) fn broker(error: &BrokerError) -> Self {
        match error {
            BrokerError::Full { retry_after, .. } => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "full", "The lane is full", error.to_string())
                    .retry_after(*retry_after)
            }
            BrokerError::NoRoom { retry_after, .. } => {
                let detail =
                    "the broker's disk has no room for more jobs: make some, and it goes on by itself; nothing was stored";
                Self::new(StatusCode::INSUFFICIENT_STORAGE, "broker-disk-full", "The broker's disk is full", detail)
                    .retry_after(*retry_after)
            }
            BrokerError::Retryable { .. } => Self::unreachable(error.to_string()),
            BrokerError::TooLarge { .. } => Self::too_large(error.to_string()),
            _ => {
                let cause = error.source().map(ToString::to_string).unwrap_or_default();
                tracing::error!(error = %error, cause, "the broker refused");
                Self::internal(error.to_string())
            }
        }
    }

    /// Adds a member.
    pub(super) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.more.insert(name.to_owned(), value.into());
        self
    }

    /// Adds a header.
    pub(super) fn header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.0.headers.insert(name, value);
        }
        self
    }

    /// Says when to come back: in whole seconds, at least one.
    pub(super) fn retry_after(self, after: Duration) -> Self {
        let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
        self.header(header::RETRY_AFTER, &seconds.max(1).to_string())
    }

    /// What it says, as a JSON value.
    pub(super) fn body(&self) -> Value {
        let inner = &*self.0;
        let mut body = json!({
            "type": format!("urn:work-factory:problem:{}", inner.code),
            "title": inner.title,
            "status": inner.status.as_u16(),
            "detail": inner.detail,
        });
        if let Value::Object(members) = &mut body {
            members.extend(inner.more.clone());
        }
        body
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = self.body().to_string();
        let mut response = (self.0.status, body).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        response.headers_mut().extend(self.0.headers);
        response
    }
}

impl From<EnqueueError> for Problem {
    fn from(error: EnqueueError) -> Self {
        match error {
            EnqueueError::Invalid(error) => Self::job(&error),
            EnqueueError::Busy { retry_after } => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "busy", "Too busy", EnqueueError::Busy { retry_after }.to_string())
                    .retry_after(retry_after)
            }
            EnqueueError::Closed => Self::closing(),
            EnqueueError::Publish(error) => error.into(),
        }
    }
}

impl From<PublishError> for Problem {
    fn from(error: PublishError) -> Self {
        match &error {
            PublishError::Broker(cause) if matches!(**cause, BrokerError::Retryable { .. }) => {
                Self::unconfirmed(format!("{cause}: whether the jobs are stored is not known"))
            }
            PublishError::Broker(cause) => Self::broker(cause),
            PublishError::Unreachable { retry_after, source } => {
                let why = source.as_ref().and_then(|source| source.source()).map(|why| format!(" ({why})")).unwrap_or_default();
                let detail = format!("the broker has not answered for a while{why}: nothing was stored");
                Self::unreachable(detail).retry_after(*retry_after)
            }
            PublishError::Spool(cause) => Self::spool(cause),
            PublishError::Split(cause) => Self::too_large(format!("{error}: {cause}")),
            PublishError::TooMany { .. } => Self::too_large(error.to_string()),
            PublishError::Lost => Self::unconfirmed(error.to_string()),
        }
    }
}

impl From<BrokerError> for Problem {
    fn from(error: BrokerError) -> Self {
        Self::broker(&error)
    }
}

/// The field of a job that is wrong, if it is one.
pub(super) fn field(error: &JobError) -> Option<String> {
    match error {
        JobError::Limit { field, .. } => Some((*field).to_owned()),
        // "kind `a b` is not valid: ..."
        JobError::Name(error) => error.to_string().split(' ').next().map(str::to_owned),
        // "missing field `args` ...", "unknown field `colour`, expected ..."
        JobError::Form(text) => text.split_once("field `")?.1.split_once('`').map(|(field, _)| field.to_owned()),
        _ => None,
    }
}

/// Whether the job is well-formed but larger than allowed.
pub(super) fn is_too_large(error: &JobError) -> bool {
    matches!(error, JobError::Limit { field: "args", .. })
}
