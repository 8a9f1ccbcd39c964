//! A server on a port of its own, and what to ask it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use wf_broker::Broker;
use wf_ingest::{BatchOptions, HttpOptions, HttpState, Patience, Producer, ProducerOptions, Server, Window};

pub struct Site {
    pub addr: SocketAddr,
    pub client: Client,
    pub producer: Producer,
    pub state: HttpState,
    pub stop: CancellationToken,
    pub served: JoinHandle<()>,
}

/// Options under which a test need not wait long for a refusal.
pub fn options() -> ProducerOptions {
    ProducerOptions {
        batch: BatchOptions { linger: Duration::from_millis(1), ..BatchOptions::default() },
        window: Window::default(),
        room: 4 << 20,
        room_timeout: Duration::from_millis(200),
        patience: Patience { full: Duration::ZERO, away: Duration::ZERO },
        ..ProducerOptions::default()
    }
}

impl Site {
    pub async fn new(broker: Arc<dyn Broker>) -> Self {
        Self::with(broker, options(), HttpOptions::default()).await
    }

    pub async fn with(broker: Arc<dyn Broker>, producer: ProducerOptions, http: HttpOptions) -> Self {
        let producer = Producer::new(broker, producer);
        let state = HttpState::new(producer.clone(), http);
        let server = Server::bind(([127, 0, 0, 1], 0).into(), state.clone()).await.unwrap();
        let addr = server.local_addr();
        let stop = CancellationToken::new();
        let served = tokio::spawn(server.serve(stop.clone()));
        Self { addr, client: Client::new(), producer, state, stop, served }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    pub fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(self.url(path))
    }

    pub fn post(&self, path: &str, kind: &str, body: impl Into<reqwest::Body>) -> RequestBuilder {
        self.client.post(self.url(path)).header("content-type", kind).body(body)
    }

    pub async fn job(&self, body: &str) -> Answer {
        Answer::of(self.post("/v1/jobs", "application/json", body.to_owned())).await
    }

    pub async fn lines(&self, body: impl Into<reqwest::Body>) -> Answer {
        Answer::of(self.post("/v1/jobs/batch", "application/x-ndjson", body)).await
    }
}

/// An answer, read whole.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: reqwest::header::HeaderMap,
    pub body: Value,
}

impl Answer {
    pub async fn of(request: RequestBuilder) -> Self {
        let response: Response = request.send().await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let text = response.text().await.unwrap();
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Self { status, headers, body }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub fn code(&self) -> &str {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        assert_eq!(self.body["status"], self.status.as_u16());
        assert!(self.body["title"].is_string() && self.body["detail"].is_string());
        self.body["type"].as_str().unwrap().strip_prefix("urn:work-factory:problem:").unwrap()
    }

    pub fn id(&self) -> &str {
        self.body["id"].as_str().unwrap_or_else(|| panic!("no id: {self:?}"))
    }
}
