//! A broker that cannot be reached, without a spool: who comes is told at once, who was first is not lied to, and it ends
//! by itself.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use reqwest::StatusCode;
use support::http::{Answer, Site};
use support::{Op, Puppet};
use tokio::time::Instant;
use wf_ingest::{EnqueueError, HttpOptions, Patience, Producer, ProducerOptions, PublishError};
use wf_schema::Job;

const SILENCE: Duration = Duration::from_secs(3);

fn options() -> ProducerOptions {
    ProducerOptions {
        unreachable_after: SILENCE,
        patience: Patience { full: Duration::ZERO, away: Duration::from_secs(10) },
        room_timeout: Duration::from_secs(5),
        ..support::http::options()
    }
}

fn producer(broker: &Arc<Puppet>) -> Producer {
    Producer::new(broker.clone(), options())
}

fn job(n: usize) -> Job<'static> {
    Job::new("k", &n).unwrap()
}

fn is_unreachable(error: &EnqueueError) -> bool {
    matches!(error, EnqueueError::Publish(PublishError::Unreachable { .. })) && error.is_retryable()
}

#[tokio::test(start_paused = true)]
async fn who_comes_later_does_not_wait_in_vain() {
    let broker = Puppet::new();
    let producer = producer(&broker);
    broker.set_away(true);
    let began = Instant::now();
    let first = producer.submit(job(0)).await.unwrap();
    tokio::time::sleep(SILENCE + Duration::from_secs(1)).await;
    let (tried, now) = (broker.calls(Op::Publish), Instant::now());
    for n in 0..100 {
        let error = producer.enqueue(job(n)).await.unwrap_err();
        assert!(is_unreachable(&error), "{error:?}");
    }
    assert_eq!((broker.calls(Op::Publish), now.elapsed()), (tried, Duration::ZERO), "nobody was asked");
    // The first was tried: it has the patience that it was promised, and is told what happened to it.
    let EnqueueError::Publish(PublishError::Broker(_)) = first.stored.stored().await.unwrap_err() else { panic!() };
    assert!(began.elapsed() <= Duration::from_secs(10));
    // One probe at a time, further and further apart.
    let probes = broker.calls(Op::Ping);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!((12..=30).contains(&(broker.calls(Op::Ping) - probes)), "{}", broker.calls(Op::Ping) - probes);
    broker.set_away(false);
    tokio::time::sleep(Duration::from_secs(6)).await;
    producer.enqueue(job(1)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_was_on_its_way_is_resolved_by_the_answer_that_comes() {
    let broker = Puppet::new();
    let producer = producer(&broker);
    broker.hold();
    let hanging = producer.submit(job(0)).await.unwrap();
    broker.under_way(1).await;
    broker.set_away(true);
    tokio::time::sleep(2 * SILENCE).await;
    assert!(is_unreachable(&producer.enqueue(job(1)).await.unwrap_err()));
    assert!(hanging.stored.peek().is_none(), "nobody can know yet");
    broker.open_up();
    hanging.stored.stored().await.unwrap();
    assert_eq!(broker.jobs().len(), 1);
    // It was answered, so the broker is there: no probe is needed to know that.
    broker.set_away(false);
    producer.enqueue(job(2)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_waits_in_front_of_the_window_was_never_sent() {
    let broker = Puppet::new();
    broker.hold();
    let window = wf_ingest::Window { bytes: 1 << 20, messages: 1 };
    let producer = Producer::new(broker.clone(), ProducerOptions { window, ..options() });
    let sent = producer.submit(job(0)).await.unwrap();
    broker.under_way(1).await;
    let waiting = producer.submit(job(1).queue(wf_schema::Queue::new("other").unwrap())).await.unwrap();
    broker.set_away(true);
    let error = waiting.stored.stored().await.unwrap_err();
    assert!(is_unreachable(&error), "{error:?}");
    broker.open_up();
    sent.stored.stored().await.unwrap();
    assert_eq!(broker.jobs().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_restart_that_is_short_is_waited_for() {
    let broker = Puppet::new();
    let producer = producer(&broker);
    broker.set_away(true);
    let submitted = producer.submit(job(0)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let meanwhile = producer.submit(job(1)).await.unwrap();
    broker.set_away(false);
    submitted.stored.stored().await.unwrap();
    meanwhile.stored.stored().await.unwrap();
}

#[tokio::test]
async fn over_http_it_is_503_with_a_time_and_readyz_tells() {
    let broker = Puppet::new();
    let quick = ProducerOptions { unreachable_after: Duration::from_millis(100), ..options() };
    let site = Site::with(broker.clone(), quick, HttpOptions::default()).await;
    broker.set_away(true);
    let job = r#"{"kind":"k","args":1}"#;
    // It waits its time; meanwhile others are told.
    let first = tokio::spawn(Answer::of(site.post("/v1/jobs", "application/json", job)));
    let answer = loop {
        let answer = Answer::of(site.get("/readyz")).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::SERVICE_UNAVAILABLE, "broker-unreachable"));
        if answer.body["breaker"] == "open" {
            break site.job(job).await;
        }
    };
    assert_eq!((answer.status, answer.code()), (StatusCode::SERVICE_UNAVAILABLE, "broker-unreachable"));
    assert!(answer.body["detail"].as_str().unwrap().contains("nothing was stored"), "{answer:?}");
    assert!(answer.header("retry-after").is_some());
    for (path, key) in [("/v1/jobs", "a"), ("/v1/jobs/batch?atomic=true", "b"), ("/v1/jobs/batch", "c")] {
        let body = if path == "/v1/jobs" { job.to_owned() } else { format!("[{job}]") };
        let request = site.post(path, "application/json", body);
        let answer = Answer::of(if key == "b" { request } else { request.header("idempotency-key", key) }).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::SERVICE_UNAVAILABLE, "broker-unreachable"), "{path}");
    }
    broker.set_away(false);
    assert_eq!(first.await.unwrap().status, StatusCode::ACCEPTED, "it came back in time");
    assert_eq!(Answer::of(site.get("/readyz")).await.status, StatusCode::OK);
    assert_eq!(site.job(job).await.status, StatusCode::ACCEPTED);
}
