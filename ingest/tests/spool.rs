//! The spool behind a producer and behind HTTP: what is accepted while the broker is away, what is told, and that it
//! arrives, once and in order, also after a restart.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use reqwest::StatusCode;
use serde_json::json;
use support::http::{Answer, Site};
use support::{Fault, Op, Puppet};
use wf_ingest::{
    EnqueueError, HttpOptions, Patience, Producer, ProducerOptions, PublishError, Spool, SpoolError, SpoolOptions, StoredIn,
};
use wf_schema::{Batch, Job, JobId, Lane, Limits, Queue};

/// How long a broker is silent before it counts as unreachable here.
const SILENCE: Duration = Duration::from_millis(100);

async fn spool(path: &Path, bytes: u64) -> Spool {
    Spool::open(SpoolOptions { path: path.to_owned(), bytes }).await.unwrap()
}

fn options(spool: &Spool) -> ProducerOptions {
    ProducerOptions {
        unreachable_after: SILENCE,
        spool: Some(spool.clone()),
        patience: Patience { full: Duration::ZERO, away: Duration::from_secs(10) },
        ..support::http::options()
    }
}

async fn site(broker: &Arc<Puppet>, spool: &Spool) -> Site {
    Site::with(broker.clone(), options(spool), HttpOptions::default()).await
}

/// Waits until nothing is in the spool.
async fn shipped(spool: &Spool) {
    while spool.stats().batches > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn job(n: usize) -> String {
    format!(r#"{{"kind":"k","args":{n}}}"#)
}

/// The numbers of all jobs at the broker, in the order in which they came.
fn numbers(broker: &Puppet) -> Vec<usize> {
    broker.jobs().into_iter().map(|(_, _, args)| args.parse().unwrap()).collect()
}

#[tokio::test]
async fn what_comes_while_the_broker_is_away_arrives_in_order_under_its_ids() {
    let (broker, folder) = (Puppet::new(), tempfile::tempdir().unwrap());
    let spool = spool(folder.path(), 1 << 30).await;
    let site = site(&broker, &spool).await;
    let answer = site.job(&job(0)).await;
    assert_eq!((answer.status, &answer.body["stored"]), (StatusCode::ACCEPTED, &json!("broker")));

    broker.set_away(true);
    let mut ids = vec![answer.id().to_owned()];
    for n in 1..40 {
        let answer = site.job(&job(n)).await;
        assert_eq!((answer.status, &answer.body["stored"]), (StatusCode::ACCEPTED, &json!("spool")));
        ids.push(answer.id().to_owned());
    }
    let ready = Answer::of(site.get("/readyz")).await;
    assert_eq!((ready.status, &ready.body["broker"]), (StatusCode::OK, &json!("unreachable")));
    assert_eq!((&ready.body["spool"]["jobs"], &ready.body["spool"]["limit"]), (&json!(39), &json!(1 << 30)));
    let stats = site.producer.stats();
    assert_eq!((stats.spooled, stats.spool.unwrap().jobs), (39, 39));
    assert!(stats.spool.unwrap().oldest.is_some());

    broker.set_away(false);
    shipped(&spool).await;
    assert_eq!(broker.jobs().iter().map(|(id, ..)| id.to_string()).collect::<Vec<_>>(), ids);
    assert_eq!((spool.stats().shipped, spool.stats().bytes, spool.stats().unconfirmed), (39, 0, 0));
    assert_eq!(site.job(&job(40)).await.body["stored"], "broker", "nothing is in its way any more");
    assert_eq!(numbers(&broker), (0..41).collect::<Vec<_>>());
}

#[tokio::test]
async fn it_survives_its_process_and_is_shipped_by_the_next() {
    let (broker, folder) = (Puppet::new(), tempfile::tempdir().unwrap());
    broker.set_away(true);
    let mut ids = Vec::new();
    for round in 0..3 {
        let spool = spool(folder.path(), 1 << 30).await;
        let producer = Producer::new(broker.clone(), options(&spool));
        for n in 0..10 {
            let queue = Queue::new(["a", "b"][n % 2]).unwrap();
            let submitted = producer.submit(Job::new("k", &(round * 10 + n)).unwrap().queue(queue)).await.unwrap();
            assert_eq!(submitted.stored.stored().await.unwrap(), StoredIn::Spool);
            ids.push(submitted.id);
        }
        assert_eq!(spool.stats().jobs, 10 * (round as u64 + 1));
        producer.close().await.unwrap();
        spool.close().await.unwrap();
    }
    broker.set_away(false);
    let spool = spool(folder.path(), 1 << 30).await;
    let _producer = Producer::new(broker.clone(), options(&spool));
    shipped(&spool).await;
    let stored: Vec<JobId> = broker.jobs().into_iter().map(|(id, ..)| id).collect();
    assert_eq!(stored.len(), 30);
    assert_eq!(stored.iter().collect::<HashSet<_>>(), ids.iter().collect());
    for queue in ["a.normal", "b.normal"] {
        let lane: Lane = queue.parse().unwrap();
        let of_lane: Vec<_> = broker.messages().into_iter().filter(|m| m.lane == lane).map(|m| m.id).collect();
        let mut sorted = of_lane.clone();
        sorted.sort();
        assert_eq!(of_lane, sorted, "batch ids grow with time");
    }
}

#[tokio::test]
async fn what_was_on_its_way_is_sent_again_under_its_id() {
    let (broker, folder) = (Puppet::new(), tempfile::tempdir().unwrap());
    let spool = spool(folder.path(), 1 << 30).await;
    let producer = Producer::new(broker.clone(), options(&spool));
    // One is stored and its answer lost; one hangs.
    broker.fail(Op::Publish, [Some(Fault::AnswerLost)]);
    let first = producer.submit(Job::new("k", &1).unwrap()).await.unwrap();
    while broker.jobs().is_empty() {
        tokio::task::yield_now().await;
    }
    broker.set_away(true);
    broker.hold();
    assert_eq!(first.stored.stored().await.unwrap(), StoredIn::Spool);
    assert_eq!(spool.stats().unconfirmed, 1);
    let second = producer.submit(Job::new("k", &2).unwrap()).await.unwrap();
    assert_eq!(second.stored.stored().await.unwrap(), StoredIn::Spool);
    assert_eq!(spool.stats().unconfirmed, 1, "that one was never sent");
    broker.set_away(false);
    broker.open_up();
    shipped(&spool).await;
    assert_eq!(numbers(&broker), [1, 2], "the broker knew the first by its id");
    // Had the broker forgotten it, that one would be there twice, and only that one.
    assert!(broker.calls(Op::Publish) >= 3);
}

#[tokio::test]
async fn a_full_spool_is_507_and_says_when_to_come_back() {
    let (broker, folder) = (Puppet::new(), tempfile::tempdir().unwrap());
    let spool = spool(folder.path(), 2_000).await;
    let site = site(&broker, &spool).await;
    broker.set_away(true);
    let mut accepted = 0;
    let refused = loop {
        let answer = site.job(&job(accepted)).await;
        if answer.status != StatusCode::ACCEPTED {
            break answer;
        }
        accepted += 1;
        assert!(accepted < 20);
    };
    assert!(accepted > 2);
    assert_eq!((refused.status, refused.code()), (StatusCode::INSUFFICIENT_STORAGE, "spool-full"));
    assert_eq!(refused.header("retry-after"), Some("30"));
    assert!(refused.body["detail"].as_str().unwrap().contains("2000 bytes"), "{refused:?}");
    let error = site.producer.enqueue(Job::new("k", &0).unwrap()).await.unwrap_err();
    assert!(error.is_retryable());
    assert!(matches!(&error, EnqueueError::Publish(PublishError::Spool(SpoolError::Full { limit: 2_000 }))), "{error:?}");
    broker.set_away(false);
    shipped(&spool).await;
    assert_eq!(numbers(&broker), (0..accepted).collect::<Vec<_>>());
    assert_eq!(site.job(&job(99)).await.status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn bulks_later_jobs_and_all_or_nothing_are_taken_and_keys_are_not() {
    let (broker, folder) = (Puppet::new(), tempfile::tempdir().unwrap());
    let spool = spool(folder.path(), 1 << 30).await;
    let site = site(&broker, &spool).await;
    broker.set_away(true);
    let lines: String = (0..5_000).map(|n| job(n) + "\n").collect();
    let bulk = site.lines(lines.clone()).await;
    assert_eq!((bulk.status, &bulk.body["accepted"]), (StatusCode::ACCEPTED, &json!(5_000)));
    assert_eq!((&bulk.body["stored"], &bulk.body["spooled"]), (&json!("spool"), &json!(5_000)));
    let atomic = Answer::of(site.post("/v1/jobs/batch?atomic=true", "application/x-ndjson", lines.clone())).await;
    assert_eq!((atomic.status, &atomic.body["stored"]), (StatusCode::ACCEPTED, &json!("spool")));
    let later = site.job(r#"{"kind":"k","args":7,"delay":"1h"}"#).await;
    assert_eq!((later.status, &later.body["stored"]), (StatusCode::ACCEPTED, &json!("spool")));
    let early = Answer::of(site.post("/v1/jobs", "application/json", job(8)).header("prefer", "respond-async")).await;
    assert_eq!((early.status, early.body.get("stored")), (StatusCode::ACCEPTED, None));
    let keyed = Answer::of(site.post("/v1/jobs", "application/json", job(9)).header("idempotency-key", "k")).await;
    assert_eq!((keyed.status, keyed.code()), (StatusCode::SERVICE_UNAVAILABLE, "broker-unreachable"));
    assert!(keyed.header("retry-after").is_some());
    assert!(keyed.body["hint"].as_str().unwrap().contains("Idempotency-Key"), "{keyed:?}");
    broker.set_away(false);
    shipped(&spool).await;
    assert_eq!(broker.jobs().len(), 10_002);
    let scheduled = broker.scheduled();
    assert_eq!((scheduled.len(), scheduled[0].key.to_string()), (1, later.id().split('-').next().unwrap().to_owned()));
}

#[tokio::test]
async fn a_full_lane_is_no_business_of_the_spool() {
    let (broker, folder) = (Puppet::new(), tempfile::tempdir().unwrap());
    let spool = spool(folder.path(), 1 << 30).await;
    let site = site(&broker, &spool).await;
    let full: Lane = "full.normal".parse().unwrap();
    let post = || site.job(r#"{"kind":"k","args":1,"queue":"full"}"#);
    broker.set_full(&full, true);
    let answer = post().await;
    assert_eq!((answer.status, answer.code()), (StatusCode::SERVICE_UNAVAILABLE, "full"));
    // What is in the spool when its lane turns out to be full stays there, and holds up no other.
    broker.set_away(true);
    assert_eq!(post().await.body["stored"], "spool");
    assert_eq!(site.job(&job(2)).await.body["stored"], "spool");
    broker.set_away(false);
    while numbers(&broker) != [2] {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let answer = loop {
        // Refused as soon as the shipper has heard that it is full.
        let answer = post().await;
        if answer.status != StatusCode::ACCEPTED {
            break answer;
        }
    };
    assert_eq!((answer.status, answer.code()), (StatusCode::SERVICE_UNAVAILABLE, "full"));
    assert_eq!(site.job(&job(3)).await.body["stored"], "broker");
    broker.set_full(&full, false);
}

#[tokio::test]
async fn a_crowd_through_an_outage_loses_nothing() {
    let (broker, folder) = (Puppet::new(), tempfile::tempdir().unwrap());
    let spool = spool(folder.path(), 1 << 30).await;
    let producer = Producer::new(broker.clone(), ProducerOptions { room_timeout: Duration::from_secs(60), ..options(&spool) });
    let callers = (0..16).map(|caller| {
        let producer = producer.clone();
        tokio::spawn(async move {
            for n in 0..60 {
                let queue = Queue::new(&format!("q{}", caller % 3)).unwrap();
                producer.enqueue(Job::new("k", &(caller * 60 + n)).unwrap().queue(queue)).await.unwrap();
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
    });
    let going = tokio::spawn(join_all(callers));
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(40)).await;
        broker.set_away(true);
        tokio::time::sleep(2 * SILENCE).await;
        broker.set_away(false);
    }
    going.await.unwrap().into_iter().for_each(|caller| caller.unwrap());
    shipped(&spool).await;
    let mut all = numbers(&broker);
    all.sort_unstable();
    assert_eq!(all, (0..960).collect::<Vec<_>>());
}

/// An entry that the broker was given before an outage, and that has run since, is not given again, although the broker
/// has forgotten its id.
#[tokio::test]
async fn what_has_run_meanwhile_is_not_shipped_again() {
    let (broker, folder) = (Puppet::new(), tempfile::tempdir().unwrap());
    let spool = spool(folder.path(), 1 << 30).await;
    let producer = Producer::new(broker.clone(), options(&spool));
    broker.fail(Op::Publish, [Some(Fault::AnswerLost)]);
    let first = producer.submit(Job::new("k", &1).unwrap()).await.unwrap();
    while broker.jobs().is_empty() {
        tokio::task::yield_now().await;
    }
    broker.set_away(true);
    assert_eq!(first.stored.stored().await.unwrap(), StoredIn::Spool);
    let second = producer.submit(Job::new("k", &2).unwrap()).await.unwrap();
    assert_eq!(second.stored.stored().await.unwrap(), StoredIn::Spool);
    broker.run_all();
    broker.forget_ids();
    broker.set_away(false);
    shipped(&spool).await;
    assert_eq!(numbers(&broker), [2], "only the one that was never given");
    // What comes by way of the spool can be traced, however long it takes.
    let batch = Batch::decode(&broker.messages()[0].bytes, &Limits::default()).unwrap();
    assert_eq!(batch.header().remember, 86_400);
}
