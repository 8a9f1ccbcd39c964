//! From HTTP to a delivery, over the embedded broker: what is accepted can be taken from its lane.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::HashMap;
use std::sync::Arc;

use reqwest::StatusCode;
use serde_json::json;
use support::http::{Answer, Site};
use wf_broker::{Broker, Delivery, DeliverySource, Embedded, EmbeddedOptions, RunLog, Version};
use wf_schema::{Batch, JobId, Kind, Lane, Limits, Priority, Queue, RecordBuilder, RecordHeader, now};

fn broker() -> Arc<dyn Broker> {
    Embedded::memory(EmbeddedOptions::default()).unwrap()
}

async fn open(broker: &Arc<dyn Broker>, lane: Lane) -> Box<dyn DeliverySource> {
    let mut source = broker.lane(lane).await.unwrap();
    source.grant(1_000, 64 << 20);
    source
}

/// The next `count` jobs of a lane.
async fn take(source: &mut Box<dyn DeliverySource>, count: usize) -> HashMap<JobId, (String, Delivery)> {
    let mut taken = HashMap::new();
    while taken.len() < count {
        let delivery = source.next().await.unwrap();
        let batch = Batch::decode(&delivery.bytes, &Limits::default()).unwrap();
        for job in batch.iter() {
            let args = String::from_utf8(job.args().to_vec()).unwrap();
            assert!(taken.insert(job.id(), (args, delivery.clone())).is_none());
        }
        // It stays owned: only of what is stored, outcomes are recorded.
    }
    taken
}

#[tokio::test]
async fn jobs_go_from_http_to_their_lanes_and_their_outcomes_come_back() {
    let broker = broker();
    let site = Site::new(broker.clone()).await;
    let mut mail = open(&broker, Lane::new(Queue::new("mail").unwrap(), Priority::High)).await;
    let posted =
        site.job(r#"{"kind":"math_add","args":{"a":2,"b":3},"queue":"mail","priority":"high","store_result":true}"#).await;
    assert_eq!(posted.status, StatusCode::ACCEPTED);
    let id: JobId = posted.id().parse().unwrap();
    let taken = take(&mut mail, 1).await;
    let (args, delivery) = &taken[&id];
    assert_eq!(args, r#"{"a":2,"b":3}"#);

    let path = format!("/v1/jobs/{id}");
    assert_eq!(Answer::of(site.get(&path)).await.status, StatusCode::NOT_FOUND);
    let waiting = tokio::spawn(Answer::of(site.get(&format!("{path}?wait=30s"))));
    let header = RecordHeader {
        batch: id.batch,
        run: delivery.run,
        step: 0,
        writer: 1,
        executor: "e1".into(),
        at: now(),
        lane: delivery.lane.clone(),
        format: Default::default(),
        cut: 1 << 18,
    };
    let mut record = RecordBuilder::new(header);
    assert!(record.completed(0, 1, &Kind::new("math_add").unwrap(), b"5"));
    broker
        .append(RunLog { batch: id.batch, run: delivery.run, message: delivery.id.clone() }, Version::NONE, record.encode())
        .await
        .unwrap();
    let answer = waiting.await.unwrap();
    assert_eq!((answer.status, &answer.body["state"], &answer.body["result"]), (StatusCode::OK, &json!("completed"), &json!(5)));
    assert_eq!((&answer.body["queue"], &answer.body["priority"]), (&json!("mail"), &json!("high")));
}

#[tokio::test]
async fn a_bulk_request_comes_out_whole_also_when_it_is_atomic_keyed_or_for_later() {
    let broker = broker();
    let site = Site::new(broker.clone()).await;
    let mut lane = open(&broker, Lane::default()).await;
    let lines = |more: &str| -> String { (0..9_000).map(|n| format!("{{\"kind\":\"k\",\"args\":{n}{more}}}\n")).collect() };
    let post = |path: &str, body: String| site.post(path, "application/x-ndjson", body);
    for request in [
        post("/v1/jobs/batch", lines("")),
        post("/v1/jobs/batch?atomic=true", lines("")),
        post("/v1/jobs/batch", lines("")).header("idempotency-key", "k"),
        post("/v1/jobs/batch", lines(r#","delay":"1s""#)),
    ] {
        let answer = Answer::of(request).await;
        assert_eq!((answer.status, &answer.body["accepted"]), (StatusCode::ACCEPTED, &json!(9_000)), "{answer:?}");
        let taken = take(&mut lane, 9_000).await;
        let mut numbers: Vec<usize> = taken.values().map(|(args, _)| args.parse().unwrap()).collect();
        numbers.sort_unstable();
        assert!(numbers.into_iter().eq(0..9_000));
        taken.values().for_each(|(_, delivery)| delivery.lease.ack(None));
    }
    let again = Answer::of(post("/v1/jobs/batch", lines("")).header("idempotency-key", "k")).await;
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    let stats = broker.stats(Lane::default()).await.unwrap();
    assert_eq!((stats.pending, stats.in_flight), (0, 0), "the repeat stored nothing");
    assert_eq!(Answer::of(site.get("/readyz")).await.status, StatusCode::OK);
}
