//! Asking a running program over HTTP.

use reqwest::{Client, Method};
use serde_json::Value;

use super::{PATIENCE, Process, until};

/// JSON, as a content type.
pub(crate) const JSON: (&str, &str) = ("content-type", "application/json");
/// A job a line, as a content type.
pub(crate) const NDJSON: (&str, &str) = ("content-type", "application/x-ndjson");

/// The HTTP side of a process.
#[derive(Clone)]
pub(crate) struct Web {
    base: String,
    client: Client,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    headers: reqwest::header::HeaderMap,
    pub(crate) body: String,
}

impl Reply {
    /// Fails unless it has this status.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }

    /// Fails unless it is a problem of this status, whose text contains each of `texts`.
    #[track_caller]
    pub(crate) fn problem(self, status: u16, texts: &[&str]) -> Self {
        let reply = self.expect(status);
        assert_eq!(reply.header("content-type").as_deref(), Some("application/problem+json"), "{reply:?}");
        assert_eq!(reply.json()["status"], status, "{reply:?}");
        for text in texts {
            assert!(reply.body.contains(text), "`{text}` is not in {}", reply.body);
        }
        reply
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> Option<String> {
        Some(self.headers.get(name)?.to_str().unwrap().to_owned())
    }
}

impl Web {
    /// Of a process that says where it listens, once it is ready.
    pub(crate) async fn of(process: &mut Process) -> Self {
        let line = process.says("taking jobs on http://").await;
        let base = line.split("taking jobs on ").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
        let web = Self { base, client: Client::builder().timeout(PATIENCE).build().unwrap() };
        until("readiness", async || web.try_send(Method::GET, "/readyz", &[], "").await.ok().filter(|r| r.status == 200)).await;
        web
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.try_send(Method::GET, path, &[], "").await.unwrap()
    }

    pub(crate) async fn post(&self, path: &str, headers: &[(&str, &str)], body: impl Into<reqwest::Body>) -> Reply {
        self.try_send(Method::POST, path, headers, body).await.unwrap()
    }

    /// An answer, or why there is none.
    pub(crate) async fn try_send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<reqwest::Body>,
    ) -> reqwest::Result<Reply> {
        let mut request = self.client.request(method, format!("{}{path}", self.base)).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Ok(Reply { status, headers, body: response.text().await? })
    }

    /// Waits for the outcome of a job.
    pub(crate) async fn outcome(&self, id: &str) -> Value {
        let what = format!("an outcome of {id}");
        until(&what, async || {
            let reply = self.try_send(Method::GET, &format!("/v1/jobs/{id}?wait=10s"), &[], "").await.ok()?;
            if reply.status != 200 {
                return None;
            }
            let outcome = reply.json();
            ["completed", "discarded", "expired", "cancelled"].iter().any(|end| outcome["state"] == *end).then_some(outcome)
        })
        .await
    }
}
