//! What became of a job, by `GET /v1/jobs/{id}`.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::json;
use wf_ingest::HttpOptions;
use wf_schema::{BatchId, Failure, Format, Kind, State};

use crate::support::Puppet;
use crate::support::http::{Answer, Site, options};

fn kind() -> Kind {
    Kind::new("math_divide").unwrap()
}

#[tokio::test]
async fn an_outcome_is_told_as_it_was_recorded() {
    let broker = Puppet::new();
    let site = Site::new(broker.clone()).await;
    let batch = BatchId::new();
    broker
        .record(batch, 1, Format::Json, |record| {
            assert!(record.completed(0, 1, &kind(), b"2.50"));
            let failure = Failure::new("bad_args", "division by zero");
            assert!(record.failed(1, 1, &kind(), State::Discarded, Some(failure), None));
            assert!(record.failed(
                2,
                1,
                &kind(),
                State::Retryable,
                Some(Failure::new("timeout", "60 s")),
                Some(1_795_323_700_000)
            ));
            assert!(record.failed(3, 1, &kind(), State::Moved, None, None));
            assert!(record.completed(4, 1, &kind(), b""));
        })
        .await;
    let get = async |index: u32| Answer::of(site.get(&format!("/v1/jobs/{batch}-{index}"))).await;
    let answer = get(0).await;
    assert_eq!(answer.status, StatusCode::OK);
    let wanted = json!({
        "id": format!("{batch}-0"), "kind": "math_divide", "queue": "default", "priority": "normal", "state": "completed",
        "attempts": 1, "at": "2026-11-22T05:01:12.000Z", "executor": "e1", "result": 2.50,
    });
    assert_eq!(answer.body, wanted);
    let answer = get(1).await;
    assert_eq!(answer.body["state"], "discarded");
    assert_eq!(answer.body["error"], json!({ "type": "bad_args", "message": "division by zero" }));
    let answer = get(2).await;
    assert_eq!((&answer.body["state"], &answer.body["retry_at"]), (&json!("retryable"), &json!("2026-11-22T05:01:40.000Z")));
    assert_eq!(get(3).await.body["state"], "available", "it waits for another executor");
    assert!(get(4).await.body.get("result").is_none(), "none was asked to be stored");
    let answer = get(5).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::NOT_FOUND, "no-record"));
    assert!(answer.body["detail"].as_str().unwrap().contains("past retention"));
}

#[tokio::test]
async fn the_latest_attempt_counts_whichever_run_it_was_in() {
    let broker = Puppet::new();
    let site = Site::new(broker.clone()).await;
    let batch = BatchId::new();
    let failed = |attempt| {
        move |record: &mut wf_schema::RecordBuilder| {
            assert!(record.failed(0, attempt, &kind(), State::Retryable, None, None));
        }
    };
    // Read in any order.
    broker.record(batch, 3, Format::Json, |record| assert!(record.completed(0, 3, &kind(), b"1"))).await;
    broker.record(batch, 1, Format::Json, failed(1)).await;
    broker.record(batch, 2, Format::Json, failed(2)).await;
    let answer = Answer::of(site.get(&format!("/v1/jobs/{batch}-0"))).await;
    assert_eq!((&answer.body["state"], &answer.body["attempts"]), (&json!("completed"), &json!(3)));
}

#[tokio::test]
async fn who_waits_is_answered_when_it_is_done() {
    let broker = Puppet::new();
    let site = Site::new(broker.clone()).await;
    let batch = BatchId::new();
    let waiting = tokio::spawn(Answer::of(site.get(&format!("/v1/jobs/{batch}-0?wait=30s"))));
    while broker.watchers() == 0 {
        tokio::task::yield_now().await;
    }
    broker.record(batch, 1, Format::Json, |record| assert!(record.failed(0, 1, &kind(), State::Retryable, None, None))).await;
    assert!(!waiting.is_finished());
    broker.record(batch, 2, Format::Json, |record| assert!(record.completed(0, 2, &kind(), b"7"))).await;
    let answer = waiting.await.unwrap();
    assert_eq!((answer.status, &answer.body["result"]), (StatusCode::OK, &json!(7)));
}

#[tokio::test]
async fn a_wait_that_is_over_says_what_is_known() {
    let broker = Puppet::new();
    let http = HttpOptions { wait_limit: Duration::from_millis(50), ..HttpOptions::default() };
    let site = Site::with(broker.clone(), options(), http).await;
    let batch = BatchId::new();
    let answer = Answer::of(site.get(&format!("/v1/jobs/{batch}-0?wait=1h"))).await;
    assert_eq!((answer.status, &answer.body["state"]), (StatusCode::ACCEPTED, &json!("unknown")));
    broker.record(batch, 1, Format::Json, |record| assert!(record.failed(0, 1, &kind(), State::Retryable, None, None))).await;
    let answer = Answer::of(site.get(&format!("/v1/jobs/{batch}-0?wait=20ms"))).await;
    assert_eq!((answer.status, &answer.body["state"]), (StatusCode::OK, &json!("retryable")));
}

#[tokio::test]
async fn what_is_no_id_or_no_time_is_refused() {
    let broker = Puppet::new();
    let http = HttpOptions { waiters: 0, ..HttpOptions::default() };
    let site = Site::with(broker.clone(), options(), http).await;
    let id = format!("{}-0", BatchId::new());
    assert_eq!(Answer::of(site.get("/v1/jobs/17")).await.code(), "invalid-id");
    assert_eq!(Answer::of(site.get(&format!("/v1/jobs/{id}?wait=30"))).await.code(), "invalid-request");
    assert_eq!(Answer::of(site.get(&format!("/v1/jobs/{id}?wiat=30s"))).await.code(), "invalid-request");
    let answer = Answer::of(site.get(&format!("/v1/jobs/{id}?wait=30s"))).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::TOO_MANY_REQUESTS, "busy"), "all places are taken");
    broker.set_away(true);
    assert_eq!(Answer::of(site.get(&format!("/v1/jobs/{id}"))).await.code(), "broker-unreachable");
}
