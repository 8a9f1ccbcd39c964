//! One job, by `POST /v1/jobs` and by the API of the system before.

use reqwest::StatusCode;
use serde_json::json;
use wf_schema::{Batch, JobId, Lane, Limits, now};

use crate::support::http::{Answer, Site};
use crate::support::{Fault, Op, Puppet};

const JOB: &str = r#"{"kind":"math_add","args":{"a":2,"b":3}}"#;

#[tokio::test]
async fn a_job_is_accepted_once_it_is_durable() {
    let broker = Puppet::new();
    let site = Site::new(broker.clone()).await;
    let answer = site.job(JOB).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    assert_eq!(answer.header("location"), Some(format!("/v1/jobs/{}", answer.id()).as_str()));
    let id: JobId = answer.id().parse().unwrap();
    assert_eq!(broker.jobs(), [(id, "math_add".into(), r#"{"a":2,"b":3}"#.into())]);
}

#[tokio::test]
async fn every_field_travels() {
    let broker = Puppet::new();
    let site = Site::new(broker.clone()).await;
    let answer = site
        .job(r#"{"kind":"k","args":null,"queue":"mail","priority":"high","max_attempts":3,"timeout":"90s","backoff":{"min":"2s"},"store_result":true}"#)
        .await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    let message = &broker.messages()[0];
    assert_eq!(message.lane.to_string(), "mail.high");
    let batch = Batch::decode(&message.bytes, &Limits::default()).unwrap();
    let policy = batch.get(0).unwrap().policy();
    assert_eq!((policy.max_attempts, policy.timeout_ms, policy.backoff.min_ms, policy.store_result), (3, 90_000, 2_000, true));

    let answer = site.job(r#"{"kind":"k","args":null,"delay":"1h"}"#).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    let scheduled = &broker.scheduled()[0];
    assert!(scheduled.due > now() + 3_500_000 && scheduled.due.is_multiple_of(1_000));
}

#[tokio::test]
async fn what_is_wrong_is_named_with_field_and_limit() {
    let site = Site::new(Puppet::new()).await;
    let long = format!(r#"{{"kind":"k","args":"{}"}}"#, "x".repeat(257 << 10));
    let longer = format!(r#"{{"kind":"k","args":"{}"}}"#, "x".repeat(300 << 10));
    for (body, status, code, says) in [
        ("", 400, "invalid-job", json!(null)),
        (r#"{"kind":"k","args":1"#, 400, "invalid-job", json!(null)),
        ("[]", 400, "invalid-job", json!(null)),
        (r#"{"kind":"k"}"#, 400, "invalid-job", json!("args")),
        (r#"{"kind":"k","args":1,"colour":2}"#, 400, "invalid-job", json!("colour")),
        (r#"{"kind":"a b","args":1}"#, 400, "invalid-job", json!("kind")),
        (r#"{"kind":"k","args":1,"queue":"a.b"}"#, 400, "invalid-job", json!("queue")),
        (r#"{"kind":"k","args":1,"max_attempts":0}"#, 400, "invalid-job", json!("max_attempts")),
        (long.as_str(), 413, "invalid-job", json!("args")),
        (longer.as_str(), 413, "too-large", json!(null)),
    ] {
        let answer = site.job(body).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (status, code), "{answer:?}");
        assert_eq!(answer.body["field"], says, "{answer:?}");
    }
    let answer = site.job(r#"{"kind":"k","args":1,"timeout":"2 days"}"#).await;
    assert_eq!(answer.body["limit"], "from 1ms to 1day");
}

#[tokio::test]
async fn other_paths_methods_and_types_are_told_what_there_is() {
    let site = Site::new(Puppet::new()).await;
    let answer = Answer::of(site.get("/v2/jobs")).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::NOT_FOUND, "not-found"));
    let answer = Answer::of(site.get("/v1/jobs")).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed"));
    assert_eq!(answer.header("allow"), Some("POST"));
    let answer = Answer::of(site.post("/v1/jobs", "application/x-www-form-urlencoded", JOB)).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type"));
    assert_eq!(answer.body["accepted"], json!(["application/json"]));
    let answer = Answer::of(site.post("/v1/jobs", "application/json", JOB).header("content-encoding", "br")).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-encoding"));
    assert_eq!(answer.header("accept-encoding"), Some("gzip, zstd, identity"));
    let answer = Answer::of(site.get("/healthz")).await;
    assert_eq!(answer.status, StatusCode::OK);
    let plain = site.client.post(site.url("/v1/jobs")).body(JOB);
    assert_eq!(Answer::of(plain).await.status, StatusCode::ACCEPTED, "who says nothing means JSON");
}

#[tokio::test]
async fn who_asks_for_it_is_answered_early() {
    let broker = Puppet::new();
    broker.hold();
    let site = Site::new(broker.clone()).await;
    let answer = Answer::of(site.post("/v1/jobs", "application/json", JOB).header("prefer", "respond-async")).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    assert_eq!(answer.header("preference-applied"), Some("respond-async"));
    assert!(broker.messages().is_empty());
    broker.let_go(1);
    site.producer.flush().await.unwrap();
    assert_eq!(broker.jobs()[0].0.to_string(), answer.id());
}

#[tokio::test]
async fn a_trace_travels_with_a_job_that_is_alone() {
    let broker = Puppet::new();
    let site = Site::new(broker.clone()).await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let answer = Answer::of(site.post("/v1/jobs", "application/json", JOB).header("traceparent", trace)).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    let batch = Batch::decode(&broker.messages()[0].bytes, &Limits::default()).unwrap();
    assert_eq!(batch.header().trace.as_deref(), Some(trace));
}

#[tokio::test]
async fn a_broker_in_trouble_is_told_apart() {
    let broker = Puppet::new();
    let site = Site::new(broker.clone()).await;
    broker.set_full(&Lane::default(), true);
    let answer = site.job(JOB).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::SERVICE_UNAVAILABLE, "full"));
    assert_eq!(answer.header("retry-after"), Some("7"));
    broker.set_full(&Lane::default(), false);

    broker.set_away(true);
    let answer = site.job(JOB).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::SERVICE_UNAVAILABLE, "unconfirmed"), "it was asked");
    assert!(answer.header("retry-after").is_some());
    let answer = Answer::of(site.get("/readyz")).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::SERVICE_UNAVAILABLE, "broker-unreachable"));
    assert_eq!(Answer::of(site.get("/healthz")).await.status, StatusCode::OK);
    broker.set_away(false);
    assert_eq!(Answer::of(site.get("/readyz")).await.status, StatusCode::OK);

    broker.fail(Op::Publish, [Some(Fault::NoRoom)]);
    let answer = site.job(JOB).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::INSUFFICIENT_STORAGE, "broker-disk-full"));
    assert_eq!(answer.header("retry-after"), Some("5"));

    broker.fail(Op::Publish, [Some(Fault::Denied)]);
    let answer = site.job(JOB).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::INTERNAL_SERVER_ERROR, "internal"));
    assert_eq!(site.job(JOB).await.status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn too_many_jobs_are_refused_with_429() {
    let broker = Puppet::new();
    broker.hold();
    let mut options = crate::support::http::options();
    options.room = 64 << 10;
    options.window = wf_ingest::Window { bytes: 64 << 10, messages: 1 };
    let site = Site::with(broker.clone(), options, Default::default()).await;
    let job = format!(r#"{{"kind":"k","args":"{}"}}"#, (0..30_000).map(|_| fastrand::alphanumeric()).collect::<String>());
    let early = || Answer::of(site.post("/v1/jobs", "application/json", job.clone()).header("prefer", "respond-async"));
    let mut accepted = 0;
    let refused = loop {
        let answer = early().await;
        if answer.status != StatusCode::ACCEPTED {
            break answer;
        }
        accepted += 1;
        assert!(accepted < 20);
    };
    assert_eq!((refused.status, refused.code()), (StatusCode::TOO_MANY_REQUESTS, "busy"));
    assert_eq!(refused.header("retry-after"), Some("1"));
    broker.open_up();
    site.producer.flush().await.unwrap();
    assert_eq!(broker.jobs().len(), accepted);
}

#[tokio::test]
async fn the_old_api_goes_on() {
    let broker = Puppet::new();
    let site = Site::new(broker.clone()).await;
    for (operation, kind) in
        [("add", "math_add"), ("subtract", "math_subtract"), ("multiply", "math_multiply"), ("divide", "math_divide")]
    {
        let body = r#"{"a":6,"b":3.5,"request_id":"r-1","whatever":true}"#;
        let answer = Answer::of(site.post(&format!("/jobs/{operation}"), "application/json", body)).await;
        assert_eq!((answer.status, &answer.body["request_id"]), (StatusCode::ACCEPTED, &json!("r-1")));
        let (id, stored, args) = broker.jobs().pop().unwrap();
        assert_eq!((id.to_string().as_str(), stored.as_str()), (answer.id(), kind));
        assert_eq!(args, r#"{"a":6.0,"b":3.5,"request_id":"r-1"}"#);
    }
    let answer = Answer::of(site.post("/jobs/add", "application/json", r#"{"a":1,"b":2}"#)).await;
    assert_eq!(answer.body, json!({ "id": answer.id() }));
    let answer = Answer::of(site.post("/jobs/power", "application/json", r#"{"a":1,"b":2}"#)).await;
    assert_eq!(answer.code(), "not-found");
    let answer = Answer::of(site.post("/jobs/add", "application/json", r#"{"a":"1","b":2}"#)).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::BAD_REQUEST, "invalid-job"));
}
