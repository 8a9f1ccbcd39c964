//! Connections: slow, silent, too many, and told to go.

use std::time::Duration;

use reqwest::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use wf_ingest::{HttpOptions, HttpState, ServeError, Server};
use wf_schema::BatchId;

use crate::support::Puppet;
use crate::support::http::{Answer, Site, options};

const SHORT: Duration = Duration::from_millis(100);

/// Sends `bytes` and reads until the server ends the connection.
async fn raw(site: &Site, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(site.addr).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    // A reset is an end too.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn who_is_silent_is_let_go() {
    let http = HttpOptions { header_timeout: SHORT, idle_timeout: SHORT, ..HttpOptions::default() };
    let site = Site::with(Puppet::new(), options(), http).await;
    // Nothing at all; a letter that might be HTTP/2; a head that does not end; a body that does not come.
    assert_eq!(raw(&site, b"").await, "");
    assert_eq!(raw(&site, b"P").await, "");
    raw(&site, b"POST /v1/jobs HTTP/1.1\r\nhost: x\r\n").await;
    let answer = raw(&site, b"POST /v1/jobs HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{").await;
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("problem:timeout"), "{answer}");
}

#[tokio::test]
async fn who_waits_for_an_outcome_may_be_silent() {
    let http = HttpOptions { header_timeout: SHORT, idle_timeout: SHORT, ..HttpOptions::default() };
    let site = Site::with(Puppet::new(), options(), http).await;
    let answer = Answer::of(site.get(&format!("/v1/jobs/{}-0?wait=500ms", BatchId::new()))).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn no_more_connections_are_served_than_allowed() {
    let http = HttpOptions { connections: 1, ..HttpOptions::default() };
    let site = Site::with(Puppet::new(), options(), http).await;
    let mut first = TcpStream::connect(site.addr).await.unwrap();
    first.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut piece = [0; 12];
    first.read_exact(&mut piece).await.unwrap();
    assert_eq!(&piece, b"HTTP/1.1 200");
    let second = tokio::spawn(Answer::of(site.get("/healthz")));
    // While the first is held the second cannot be answered, however long one waits; once it is gone, it is.
    drop(first);
    assert_eq!(second.await.unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn told_to_stop_it_answers_what_is_under_way() {
    let broker = Puppet::new();
    broker.hold();
    let site = Site::new(broker.clone()).await;
    let job = site.post("/v1/jobs", "application/json", r#"{"kind":"k","args":0}"#);
    let posting = tokio::spawn(Answer::of(job));
    let waiting = tokio::spawn(Answer::of(site.get(&format!("/v1/jobs/{}-0?wait=60s", BatchId::new()))));
    broker.under_way(1).await;
    while broker.watchers() == 0 {
        tokio::task::yield_now().await;
    }
    site.stop.cancel();
    assert_eq!(waiting.await.unwrap().status, StatusCode::ACCEPTED, "who waits is answered at once");
    broker.open_up();
    assert_eq!(posting.await.unwrap().status, StatusCode::ACCEPTED, "what was begun is done");
    site.served.await.unwrap();
    site.producer.close().await.unwrap();
    assert_eq!(broker.jobs().len(), 1);
    assert!(TcpStream::connect(site.addr).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn what_does_not_end_in_time_is_cut_off() {
    let broker = Puppet::new();
    broker.hold();
    let http = HttpOptions { drain_deadline: SHORT, ..HttpOptions::default() };
    let site = Site::with(broker.clone(), options(), http).await;
    let posting = tokio::spawn(site.post("/v1/jobs", "application/json", r#"{"kind":"k","args":0}"#).send());
    broker.under_way(1).await;
    site.stop.cancel();
    site.served.await.unwrap();
    assert!(posting.await.unwrap().is_err(), "its connection is gone");
    broker.open_up();
}

#[tokio::test]
async fn an_address_that_is_taken_is_an_error() {
    let site = Site::new(Puppet::new()).await;
    let state = HttpState::new(site.producer.clone(), HttpOptions::default());
    let error = Server::bind(site.addr, state).await.unwrap_err();
    assert!(matches!(&error, ServeError::Bind { addr, .. } if *addr == site.addr));
    assert!(std::error::Error::source(&error).is_some());
}
