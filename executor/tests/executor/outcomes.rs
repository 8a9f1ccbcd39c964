//! What becomes of jobs.

use std::time::Duration;

use serde_json::json;
use wf_executor::{JobContext, JobFailure, Registry, stock};
use wf_schema::{Backoff, Job, State};

use crate::yard::{Yard, within};

fn job(kind: &str, args: serde_json::Value) -> Job<'_> {
    Job::new(kind, &args).unwrap().store_result()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_sort_of_end_is_an_outcome() {
    let yard = Yard::new(Duration::from_secs(30));
    let registry = stock::register(Registry::new()).register_blocking("block", |_: JobContext, text: String| Ok(text.len()));
    let executor = yard.start(registry, 10);
    let jobs = [
        job("math_divide", json!({"a": 3, "b": 2, "request_id": "r-1"})),
        job("math_divide", json!({"a": 3, "b": 0})),
        job("math_add", json!({"a": 3})),
        job("nobody", json!({})),
        job("fail", json!({"panic": true})).max_attempts(1),
        job("sleep", json!({"for": "1h"})).max_attempts(1).timeout(Duration::from_millis(20)),
        job("noop", json!({})).expires_in(Duration::ZERO),
        job("echo", json!({"deep": [1, null]})),
        job("block", json!("four")),
        Job::new("noop", &json!({})).unwrap(),
    ];
    let batch = yard.publish(&jobs).await;
    let records = yard.until_final(batch, jobs.len()).await;
    let expected = [
        (State::Completed, "1.5"),
        (State::Discarded, "division_by_zero"),
        (State::Discarded, "bad_args"),
        (State::Discarded, "no_handler"),
        (State::Discarded, "panic"),
        (State::Discarded, "timeout"),
        (State::Expired, "expired"),
        (State::Completed, r#"{"deep":[1,null]}"#),
        (State::Completed, "4"),
        (State::Completed, ""),
    ];
    for (index, (state, text)) in expected.into_iter().enumerate() {
        assert_eq!(records[&(index as u32, 1)], (state, text.to_owned()), "job {index}");
    }
    within("the drain", executor.drain(None)).await;
    let stats = executor.stats();
    assert_eq!((stats.completed, stats.discarded, stats.expired, stats.acked), (4, 5, 1, 1));
    assert_eq!(yard.dead_jobs().await.iter().map(|batch| batch.len()).sum::<usize>(), 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_is_tried_until_it_succeeds_or_has_no_attempts_left() {
    let yard = Yard::new(Duration::from_secs(30));
    let executor = yard.start(stock::register(Registry::new()), 10);
    let quickly = Backoff { min_ms: 10, max_ms: 20 };
    let jobs = [
        job("fail", json!({"times": 2})).max_attempts(5).backoff(quickly),
        job("fail", json!({"message": "never"})).max_attempts(3).backoff(quickly),
        job("fail", json!({"times": 1})).max_attempts(2).backoff(Backoff { min_ms: 0, max_ms: 0 }),
    ];
    let batch = yard.publish(&jobs).await;
    let records = yard.until_final(batch, 3).await;
    let ends: Vec<_> = records.iter().filter(|(_, (state, _))| state.is_final()).map(|(id, (state, _))| (*id, *state)).collect();
    assert_eq!(ends, [((0, 3), State::Completed), ((1, 3), State::Discarded), ((2, 2), State::Completed)]);
    within("the drain", executor.drain(None)).await;
    let dead = yard.dead_jobs().await;
    let history = dead[0].get(0).unwrap().history();
    assert_eq!(history.iter().map(|past| past.attempt).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(history.iter().all(|past| past.failure.message == "never"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_json_runs_and_what_is_for_later_comes_later() {
    let yard = Yard::new(Duration::from_secs(30));
    let executor = yard.start(stock::register(Registry::new()), 10);
    let message = concat!(
        r#"{"kind":"math_add","args":{"a":2,"b":3},"store_result":true}"#,
        "\n{\"kind\":\"math_add\"}\n",
        r#"{"kind":"echo","args":7,"store_result":true,"delay":"300ms"}"#
    );
    let lane = wf_schema::Lane::default();
    let message = wf_broker::Message { lane, id: "json".into(), bytes: message.into() };
    let mut hint = yard.broker.watch_all().await.unwrap();
    yard.broker.publish(message).await.unwrap();
    let batch = within("a record", async {
        loop {
            if let Some(batch) = hint.changed().await.unwrap() {
                return batch;
            }
        }
    })
    .await;
    let records = yard.until_final(batch, 3).await;
    assert_eq!(records[&(0, 1)], (State::Completed, "5.0".to_owned()));
    assert_eq!(records[&(1, 1)], (State::Discarded, "undecodable".to_owned()));
    assert_eq!(records[&(2, 1)], (State::Completed, "7".to_owned()));
    within("the drain", executor.drain(None)).await;
    assert_eq!(executor.stats().moved, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_that_is_too_large_is_refused_with_advice() {
    let yard = Yard::new(Duration::from_secs(30));
    let registry = Registry::new().register("long", |_: JobContext, n: usize| async move { Ok::<_, JobFailure>("x".repeat(n)) });
    let executor = yard.start(registry, 10);
    let batch = yard.publish(&[job("long", json!(100)), job("long", json!(300 * 1024))]).await;
    let records = yard.until_final(batch, 2).await;
    assert_eq!(records[&(0, 1)].0, State::Completed);
    assert_eq!(records[&(1, 1)], (State::Discarded, "result_too_large".to_owned()));
    within("the drain", executor.drain(None)).await;
}
