//! `Idempotency-Key`: whatever is lost on the way, the jobs are stored once.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use reqwest::StatusCode;
use serde_json::json;
use wf_ingest::{HttpOptions, Patience, ProducerOptions};
use wf_schema::{Batch, Limits};

use crate::support::http::{Answer, Site, options};
use crate::support::{Fault, Op, Puppet};

const JOB: &str = r#"{"kind":"math_add","args":{"a":2,"b":3}}"#;

async fn site() -> (Arc<Puppet>, Site) {
    let broker = Puppet::new();
    let site = Site::new(broker.clone()).await;
    (broker, site)
}

async fn keyed(site: &Site, key: &str, body: &str) -> Answer {
    Answer::of(site.post("/v1/jobs", "application/json", body.to_owned()).header("idempotency-key", key)).await
}

fn many(count: usize) -> String {
    (0..count).map(|n| format!("{{\"kind\":\"math_add\",\"args\":{{\"a\":{n},\"b\":1}}}}\n")).collect()
}

async fn keyed_lines(site: &Site, key: &str, body: &str) -> Answer {
    Answer::of(site.post("/v1/jobs/batch", "application/x-ndjson", body.to_owned()).header("idempotency-key", key)).await
}

#[tokio::test]
async fn a_repeat_gets_the_same_ids_and_stores_nothing() {
    let (broker, site) = site().await;
    let first = keyed(&site, "order-17", JOB).await;
    assert_eq!((first.status, first.header("idempotency-replayed")), (StatusCode::ACCEPTED, None));
    // Not even after a restart of the broker.
    broker.forget_ids();
    let again = keyed(&site, "\"order-17\"", JOB).await;
    assert_eq!((again.status, again.header("idempotency-replayed")), (StatusCode::ACCEPTED, Some("true")));
    assert_eq!((again.id(), again.header("location")), (first.id(), first.header("location")));
    assert_eq!(broker.jobs().len(), 1);
    let other = keyed(&site, "order-18", JOB).await;
    assert_ne!(other.id(), first.id());
    assert_eq!(broker.jobs().len(), 2);
}

#[tokio::test]
async fn another_request_under_the_same_key_is_refused() {
    let (broker, site) = site().await;
    keyed(&site, "k", JOB).await;
    let answer = keyed(&site, "k", r#"{"kind":"math_add","args":{"a":2,"b":4}}"#).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::UNPROCESSABLE_ENTITY, "key-reused"));
    // The same body means another job on another path.
    let old = |operation: &str| {
        let request = site.post(&format!("/jobs/{operation}"), "application/json", r#"{"a":1,"b":2}"#);
        Answer::of(request.header("idempotency-key", "old"))
    };
    assert_eq!(old("add").await.status, StatusCode::ACCEPTED);
    assert_eq!(old("subtract").await.code(), "key-reused");
    assert_eq!(broker.jobs().len(), 2);
    for bad in ["", &"x".repeat(256)] {
        assert_eq!(keyed(&site, bad, JOB).await.code(), "invalid-request");
    }
}

#[tokio::test]
async fn a_keyed_request_shares_no_batch() {
    let (broker, site) = site().await;
    broker.hold();
    let plain = site.post("/v1/jobs", "application/json", JOB).header("prefer", "respond-async");
    for _ in 0..3 {
        Answer::of(plain.try_clone().unwrap()).await;
    }
    broker.open_up();
    let answer = keyed(&site, "k", JOB).await;
    site.producer.flush().await.unwrap();
    let batch = answer.id().split_once('-').unwrap().0;
    let mates = broker.jobs().iter().filter(|(id, _, _)| id.batch.to_string() == batch).count();
    assert_eq!((mates, answer.id()), (1, format!("{batch}-0").as_str()));
}

/// A crash after any step: the answer to the claim is lost, the publish is lost, its answer is lost, the mark is lost.
#[tokio::test]
async fn whatever_is_lost_a_repeat_mends_it() {
    for (op, fault) in [
        (Op::Create, Fault::Away),
        (Op::Create, Fault::AnswerLost),
        (Op::Publish, Fault::Away),
        (Op::Publish, Fault::AnswerLost),
        (Op::Publish, Fault::Full),
        (Op::Get, Fault::Away),
    ] {
        let (broker, site) = site().await;
        broker.fail(op, [Some(fault)]);
        if op == Op::Get {
            // The look at the record that a repeat does.
            broker.fail(Op::Publish, [Some(Fault::AnswerLost)]);
            assert_eq!(keyed(&site, "k", JOB).await.status, StatusCode::SERVICE_UNAVAILABLE);
        }
        let first = keyed(&site, "k", JOB).await;
        assert_eq!(first.status, StatusCode::SERVICE_UNAVAILABLE, "{op:?} {fault:?}");
        assert!(first.header("retry-after").is_some());
        let second = keyed(&site, "k", JOB).await;
        let third = keyed(&site, "k", JOB).await;
        assert_eq!((second.status, third.header("idempotency-replayed")), (StatusCode::ACCEPTED, Some("true")));
        assert_eq!(second.id(), third.id());
        assert_eq!(broker.jobs().len(), 1, "{op:?} {fault:?}");
    }
}

#[tokio::test]
async fn a_mark_that_is_lost_is_made_by_the_repeat() {
    let (broker, site) = site().await;
    broker.fail(Op::Update, [Some(Fault::Away); 3]);
    let first = keyed(&site, "k", JOB).await;
    assert_eq!(first.status, StatusCode::ACCEPTED, "the job is stored, and that is what was asked");
    let again = keyed(&site, "k", JOB).await;
    assert_eq!((again.id(), broker.calls(Op::Publish), broker.calls(Op::Trace)), (first.id(), 1, 1));
    assert_eq!(broker.jobs().len(), 1, "found, and not published again");
    // Now it is marked: the broker is not asked again.
    keyed(&site, "k", JOB).await;
    assert_eq!((broker.calls(Op::Publish), broker.calls(Op::Trace)), (1, 1));
}

#[tokio::test]
async fn a_request_that_never_works_leaves_the_key_free() {
    let (broker, site) = site().await;
    broker.fail(Op::Publish, [Some(Fault::Denied)]);
    assert_eq!(keyed(&site, "k", JOB).await.status, StatusCode::INTERNAL_SERVER_ERROR);
    let other = r#"{"kind":"math_add","args":{"a":9,"b":9}}"#;
    assert_eq!(keyed(&site, "k", other).await.status, StatusCode::ACCEPTED);
    assert_eq!(keyed(&site, "k2", "nope").await.status, StatusCode::BAD_REQUEST);
    assert_eq!(keyed(&site, "k2", other).await.status, StatusCode::ACCEPTED, "what is no job claims nothing");
}

#[tokio::test]
async fn the_same_request_many_times_at_once_is_one() {
    let (broker, site) = site().await;
    let answers = join_all((0..20).map(|_| keyed(&site, "k", JOB))).await;
    let ids: HashSet<&str> = answers.iter().map(|answer| answer.id()).collect();
    assert_eq!((ids.len(), broker.jobs().len()), (1, 1));
}

#[tokio::test]
async fn many_jobs_under_a_key_are_published_together_and_repeated_with_their_ids() {
    let (broker, site) = site().await;
    let body = many(9_000) + "nope\n";
    broker.fail(Op::PublishAll, [Some(Fault::AnswerLost)]);
    assert_eq!(keyed_lines(&site, "k", &body).await.status, StatusCode::SERVICE_UNAVAILABLE);
    let first = keyed_lines(&site, "k", &body).await;
    let again = keyed_lines(&site, "k", &body).await;
    assert_eq!(first.status, StatusCode::ACCEPTED, "{first:?}");
    assert_eq!((&first.body["accepted"], &first.body["rejected"]), (&json!(9_000), &json!(1)));
    assert_eq!((&again.body, again.header("idempotency-replayed")), (&first.body, Some("true")));
    assert_eq!(broker.jobs().len(), 9_000);
    assert_eq!(broker.calls(Op::PublishAll), 1, "found, and not published again");
    assert_eq!(keyed_lines(&site, "k", &many(9_000)).await.code(), "key-reused");
}

#[tokio::test]
async fn a_delay_counts_from_the_first_time() {
    let (broker, site) = site().await;
    let body = r#"{"kind":"k","args":0,"delay":"1h"}"#;
    broker.fail(Op::Update, [Some(Fault::Away); 3]);
    let first = keyed(&site, "k", body).await;
    let due = broker.scheduled()[0].due;
    let again = keyed(&site, "k", body).await;
    assert_eq!(again.id(), first.id());
    assert_eq!(broker.scheduled().iter().map(|scheduled| scheduled.due).collect::<Vec<_>>(), [due]);
}

/// The broker's window is minutes and a key holds for a day: what has run meanwhile, and whose id is forgotten, is not
/// published again.
#[tokio::test]
async fn what_has_run_is_not_published_again() {
    for (op, faults) in [(Op::Publish, vec![Some(Fault::AnswerLost)]), (Op::Update, vec![Some(Fault::Away); 3])] {
        let (broker, site) = site().await;
        broker.fail(op, faults);
        keyed(&site, "k", JOB).await;
        let ids: Vec<_> = broker.jobs().into_iter().map(|(id, ..)| id.to_string()).collect();
        broker.run_all();
        broker.forget_ids();
        let again = keyed(&site, "k", JOB).await;
        assert_eq!((again.status, again.header("idempotency-replayed")), (StatusCode::ACCEPTED, Some("true")));
        assert_eq!(ids, [again.id()]);
        assert_eq!((broker.jobs().len(), broker.calls(Op::Publish)), (0, 1), "{op:?}");
    }
}

/// The answer to a publish is lost, and the server restarts and forgets the id, for the jobs have run: the same request
/// tries again, and must find them.
#[tokio::test]
async fn a_restart_within_a_request_stores_nothing_twice() {
    let broker = Puppet::new();
    let patience = Patience { full: Duration::ZERO, away: Duration::from_secs(20) };
    let options = ProducerOptions { patience, ..options() };
    let site = Site::with(broker.clone(), options, HttpOptions::default()).await;
    broker.fail(Op::Publish, [Some(Fault::AnswerLost)]);
    let (answer, ()) = tokio::join!(keyed(&site, "k", JOB), async {
        while broker.jobs().is_empty() {
            tokio::task::yield_now().await;
        }
        broker.run_all();
        broker.forget_ids();
    });
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
    assert_eq!((broker.calls(Op::Publish), broker.jobs().len()), (1, 0), "found, and not stored again");
}

/// The broker's store is rolled back to before the claim while the jobs are on their way: the key is claimed anew, for
/// the ids that the jobs have.
#[tokio::test]
async fn a_claim_that_was_rolled_back_is_made_again() {
    let (broker, site) = site().await;
    broker.hold();
    let (first, ()) = tokio::join!(keyed(&site, "k", JOB), async {
        while broker.calls(Op::Publish) == 0 {
            tokio::task::yield_now().await;
        }
        broker.forget_records();
        broker.open_up();
    });
    assert_eq!(first.status, StatusCode::ACCEPTED, "{first:?}");
    let again = keyed(&site, "k", JOB).await;
    assert_eq!((again.id(), again.header("idempotency-replayed")), (first.id(), Some("true")));
    assert_eq!(broker.jobs().len(), 1, "the repeat stores nothing");
}

/// Of a request whose jobs are for now and for later, each message is looked for by itself; those for now stand for one
/// another, for they are stored together or not at all.
#[tokio::test]
async fn what_is_missing_of_a_request_is_published_and_nothing_else() {
    let (broker, site) = site().await;
    let line = |kind: &str, more: &str| format!("{{\"kind\":\"{kind}\",\"args\":0{more}}}\n");
    let body = [
        line("now", ""),
        line("now", r#","queue":"other""#),
        line("later", r#","delay":"1h""#),
        line("later", r#","queue":"other","delay":"2h""#),
    ]
    .concat();
    broker.fail(Op::PublishAt, [None, Some(Fault::Away)]);
    assert_eq!(keyed_lines(&site, "k", &body).await.code(), "unconfirmed");
    assert_eq!(broker.jobs().len(), 3);
    broker.run_all();
    broker.forget_ids();
    let again = keyed_lines(&site, "k", &body).await;
    assert_eq!((again.status, &again.body["accepted"]), (StatusCode::ACCEPTED, &json!(4)));
    assert_eq!((broker.jobs().len(), broker.scheduled().len()), (1, 1), "only the one that was never stored");

    // None of those for now: then all of them are missing.
    broker.fail(Op::PublishAll, [Some(Fault::Away)]);
    assert_eq!(keyed_lines(&site, "k2", &body).await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(keyed_lines(&site, "k2", &body).await.status, StatusCode::ACCEPTED);
    assert_eq!(broker.jobs().len(), 5);
}

#[tokio::test]
async fn where_it_cannot_be_told_nothing_is_published() {
    let (broker, site) = site().await;
    broker.fail(Op::Publish, [Some(Fault::AnswerLost)]);
    let first = keyed(&site, "k", JOB).await;
    broker.run_all();
    broker.forget_ids();
    // `Denied` stands for a broker that cannot tell, `Away` for one that does not answer.
    for fault in [Fault::Denied, Fault::Away, Fault::Denied] {
        broker.fail(Op::Trace, [Some(fault)]);
        let answer = keyed(&site, "k", JOB).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::SERVICE_UNAVAILABLE, "unconfirmed"), "{answer:?}");
        assert!(answer.header("retry-after").is_some());
        assert_eq!(answer.body["ids"], first.body["ids"], "{answer:?}");
        assert_eq!(answer.body["ids"][0]["count"], 1);
    }
    assert_eq!(keyed(&site, "k", r#"{"kind":"other","args":1}"#).await.code(), "key-reused", "the key stays claimed");
    let told = keyed(&site, "k", JOB).await;
    let batch = first.body["ids"][0]["batch"].as_str().unwrap();
    assert_eq!((told.status, told.id()), (StatusCode::ACCEPTED, format!("{batch}-0").as_str()));
    assert_eq!(broker.jobs().len(), 0);
}

/// A key is left to another request only if nothing of this one is stored.
#[tokio::test]
async fn a_key_whose_jobs_are_stored_in_part_stays_claimed() {
    let (broker, site) = site().await;
    let body = "{\"kind\":\"now\",\"args\":0}\n{\"kind\":\"later\",\"args\":0,\"delay\":\"1h\"}\n";
    broker.fail(Op::PublishAt, [Some(Fault::Denied)]);
    assert_eq!(keyed_lines(&site, "k", body).await.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(broker.jobs().len(), 1);
    let again = keyed_lines(&site, "k", body).await;
    assert_eq!((again.status, again.header("idempotency-replayed")), (StatusCode::ACCEPTED, Some("true")));
    assert_eq!(broker.jobs().len(), 2);
}

/// The broker is asked to remember the runs of keyed requests for as long as the key holds, and of no others.
#[tokio::test]
async fn runs_of_keyed_requests_are_remembered() {
    let (broker, site) = site().await;
    keyed(&site, "k", JOB).await;
    keyed_lines(&site, "k2", &many(3)).await;
    site.job(JOB).await;
    let remembered = |message: wf_broker::Message| Batch::decode(&message.bytes, &Limits::default()).unwrap().header().remember;
    let remembered: Vec<u32> = broker.messages().into_iter().map(remembered).collect();
    assert_eq!(remembered, [86_400, 86_400, 0]);
}
