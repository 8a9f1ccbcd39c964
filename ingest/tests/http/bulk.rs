//! Many jobs, by `POST /v1/jobs/batch`.

use std::convert::Infallible;
use std::io::Cursor;

use async_compression::tokio::bufread::{GzipEncoder, ZstdEncoder};
use bytes::Bytes;
use futures::stream;
use reqwest::{Body, StatusCode};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use wf_ingest::HttpOptions;
use wf_schema::{BatchId, JobId, Lane, Priority, Queue};

use crate::support::http::{Answer, Site, options};
use crate::support::{Fault, Op, Puppet};

fn lines(count: usize) -> String {
    (0..count).map(|n| format!("{{\"kind\":\"math_add\",\"args\":{{\"a\":{n},\"b\":1}}}}\n")).collect()
}

fn array(count: usize) -> String {
    format!("[{}]", lines(count).trim_end().replace('\n', ",\n"))
}

/// What the answer says of each job: its place in the request, and its id.
fn ids(answer: &Answer) -> Vec<(u64, JobId)> {
    let mut ids = Vec::new();
    for range in answer.body["ids"].as_array().unwrap() {
        let number = |name: &str| range[name].as_u64().unwrap();
        let batch: BatchId = range["batch"].as_str().unwrap().parse().unwrap();
        ids.extend((0..number("count")).map(|n| (number("index") + n, JobId { batch, index: (number("first") + n) as u32 })));
    }
    ids.sort_unstable();
    ids
}

/// Checks that the stored jobs are those of `wanted` (place in the request and the number in its args), under the ids
/// that the answer gives.
fn assert_stored(broker: &Puppet, answer: &Answer, wanted: impl Iterator<Item = (u64, usize)>) {
    let stored: std::collections::HashMap<_, _> = broker.jobs().into_iter().map(|(id, _, args)| (id, args)).collect();
    let told = ids(answer);
    let wanted: Vec<_> = wanted.collect();
    assert_eq!(told.iter().map(|(place, _)| *place).collect::<Vec<_>>(), wanted.iter().map(|w| w.0).collect::<Vec<_>>());
    for ((_, id), (_, n)) in told.iter().zip(&wanted) {
        assert_eq!(stored[id], format!(r#"{{"a":{n},"b":1}}"#));
    }
    assert_eq!(stored.len(), wanted.len());
    assert_eq!(answer.body["accepted"], wanted.len());
}

#[tokio::test]
async fn lines_and_arrays_are_stored_with_their_ids() {
    for (kind, body) in [
        ("application/x-ndjson", lines(5_000)),
        ("application/jsonl; charset=utf-8", lines(5_000)),
        ("application/json", array(5_000)),
    ] {
        let broker = Puppet::new();
        let site = Site::new(broker.clone()).await;
        let answer = Answer::of(site.post("/v1/jobs/batch", kind, body)).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
        assert_stored(&broker, &answer, (0..5_000).map(|n| (n as u64, n)));
        assert_eq!((&answer.body["rejected"], &answer.body["errors"]), (&json!(0), &json!([])));
        assert!(broker.messages().len() < 20, "{} messages", broker.messages().len());
    }
}

#[tokio::test]
async fn compressed_bodies_are_unpacked() {
    let body = lines(3_000);
    let mut gzip = Vec::new();
    GzipEncoder::new(Cursor::new(body.clone())).read_to_end(&mut gzip).await.unwrap();
    // Two members in a row, as `cat a.gz b.gz` makes them.
    let mut zstd = Vec::new();
    ZstdEncoder::new(Cursor::new(body[..body.len() / 2].to_owned())).read_to_end(&mut zstd).await.unwrap();
    ZstdEncoder::new(Cursor::new(body[body.len() / 2..].to_owned())).read_to_end(&mut zstd).await.unwrap();
    for (coding, packed) in [("gzip", gzip), ("zstd", zstd)] {
        let broker = Puppet::new();
        let site = Site::new(broker.clone()).await;
        let request = site.post("/v1/jobs/batch", "application/x-ndjson", packed.clone()).header("content-encoding", coding);
        let answer = Answer::of(request).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
        assert_stored(&broker, &answer, (0..3_000).map(|n| (n as u64, n)));

        let cut = packed[..packed.len() / 3].to_vec();
        let request = site.post("/v1/jobs/batch?atomic=true", "application/x-ndjson", cut).header("content-encoding", coding);
        let answer = Answer::of(request).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::BAD_REQUEST, "broken-body"));
    }
}

#[tokio::test]
async fn a_compression_bomb_stops_at_the_limit_in_flat_memory() {
    let http = HttpOptions { body_limit: 50 << 20, ..HttpOptions::default() };
    let broker = Puppet::new();
    let site = Site::with(broker.clone(), options(), http).await;
    let mut bomb = Vec::new();
    let blanks = tokio::io::BufReader::new(tokio::io::repeat(b' ').take(60 << 20));
    ZstdEncoder::new(blanks).read_to_end(&mut bomb).await.unwrap();
    assert!(bomb.len() < 100 << 10);
    let request = site.post("/v1/jobs/batch", "application/x-ndjson", bomb).header("content-encoding", "zstd");
    let answer = Answer::of(request).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::PAYLOAD_TOO_LARGE, "too-large"), "{answer:?}");
    assert!(site.state.most_held() < 1 << 20, "{} bytes held", site.state.most_held());
}

#[tokio::test]
async fn what_is_wrong_with_one_job_takes_no_other_along() {
    let broker = Puppet::new();
    let site = Site::new(broker.clone()).await;
    let body = r#"{"kind":"k","args":{"a":0,"b":1}}

{"kind":"k","args":
{"kind":"k","args":{"a":3,"b":1},"queue":"a b"}
nope
{"kind":"k","args":{"a":5,"b":1}}"#;
    let answer = site.lines(body).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    assert_stored(&broker, &answer, [(0, 0), (4, 5)].into_iter());
    let errors = answer.body["errors"].as_array().unwrap();
    let told: Vec<_> = errors.iter().map(|e| (e["index"].as_u64().unwrap(), e["line"].as_u64().unwrap(), &e["field"])).collect();
    assert_eq!(told, [(1, 3, &Value::Null), (2, 4, &json!("queue")), (3, 5, &Value::Null)]);
    assert_eq!(answer.body["rejected"], 3);
}

#[tokio::test]
async fn atomic_is_all_or_nothing() {
    let broker = Puppet::new();
    let site = Site::new(broker.clone()).await;
    let atomic = |body: String| Answer::of(site.post("/v1/jobs/batch?atomic=true", "application/x-ndjson", body));
    let broken = lines(10) + "{\"kind\":\n" + &lines(3);
    let answer = atomic(broken).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::UNPROCESSABLE_ENTITY, "nothing-accepted"));
    assert_eq!((&answer.body["accepted"], &answer.body["errors"][0]["line"]), (&json!(0), &json!(11)));
    assert!(broker.messages().is_empty());

    let answer = atomic(lines(9_000)).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
    assert_stored(&broker, &answer, (0..9_000).map(|n| (n as u64, n)));
    assert_eq!((broker.calls(Op::PublishAll), broker.calls(Op::Publish)), (1, 0));

    broker.fail(Op::PublishAll, [Some(Fault::Full)]);
    let answer = atomic(lines(9_000)).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::SERVICE_UNAVAILABLE, "full"));

    // More than the broker takes together.
    let lanes: String = (0..51).map(|n| format!("{{\"kind\":\"k\",\"args\":0,\"queue\":\"q{n}\"}}\n")).collect();
    assert_eq!(atomic(lanes).await.status, StatusCode::PAYLOAD_TOO_LARGE);
    // For later, at different times.
    let later = r#"{"kind":"k","args":0,"delay":"1h"}"#.to_owned() + "\n" + r#"{"kind":"k","args":0}"#;
    assert_eq!(atomic(later).await.code(), "not-atomic");
    assert_eq!(atomic(r#"{"kind":"k","args":0,"delay":"1h"}"#.into()).await.status, StatusCode::ACCEPTED);
    let answer = Answer::of(site.post("/v1/jobs/batch?atomc=true", "application/x-ndjson", lines(1))).await;
    assert_eq!(answer.code(), "invalid-request", "a mistyped option is not ignored");
}

#[tokio::test]
async fn a_body_without_jobs_is_told_what_it_lacks() {
    let site = Site::new(Puppet::new()).await;
    let post = |kind: &'static str, body: &'static str| Answer::of(site.post("/v1/jobs/batch", kind, body));
    for (kind, body, status, code) in [
        ("application/json", "", 400, "broken-body"),
        ("application/json", "[]", 400, "invalid-request"),
        ("application/json", r#"{"kind":"k","args":1}"#, 400, "broken-body"),
        ("application/json", "[1", 400, "broken-body"),
        ("application/x-ndjson", "\n\n", 400, "invalid-request"),
        ("application/x-ndjson", "1\n2\n", 422, "nothing-accepted"),
        ("text/csv", "k,1", 415, "unsupported-media-type"),
    ] {
        let answer = post(kind, body).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (status, code), "{kind} {body}: {answer:?}");
    }
}

#[tokio::test]
async fn an_array_that_breaks_off_keeps_what_came_before() {
    let broker = Puppet::new();
    let site = Site::new(broker.clone()).await;
    let body = array(3).trim_end_matches(']').to_owned() + ",\n\n}";
    let answer = Answer::of(site.post("/v1/jobs/batch", "application/json", body)).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
    assert_eq!((&answer.body["accepted"], &answer.body["stopped"]["status"]), (&json!(3), &json!(400)), "{answer:?}");
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_before_it_is_read_if_it_says_so() {
    let http = HttpOptions { body_limit: 10_000, ..HttpOptions::default() };
    let broker = Puppet::new();
    let site = Site::with(broker.clone(), options(), http).await;
    let answer = site.lines(lines(1_000)).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::PAYLOAD_TOO_LARGE, "too-large"));
    assert!(broker.messages().is_empty());
    // A body that does not say how long it is: what came before the limit is taken, and the answer says where it stopped.
    let pieces = stream::iter((0..100).map(|_| Ok::<_, Infallible>(Bytes::from(lines(10)))));
    let answer = site.lines(Body::wrap_stream(pieces)).await;
    assert_eq!((answer.status, &answer.body["stopped"]["status"]), (StatusCode::ACCEPTED, &json!(413)), "{answer:?}");
    assert_eq!(answer.body["accepted"].as_u64().unwrap(), broker.jobs().len() as u64);
}

#[tokio::test]
async fn jobs_that_the_broker_does_not_take_are_told_with_their_places() {
    let broker = Puppet::new();
    let site = Site::new(broker.clone()).await;
    broker.set_full(&Lane::new(Queue::new("full").unwrap(), Priority::Normal), true);
    let body: String = (0..20)
        .map(|n| {
            let queue = if n < 5 { "full" } else { "other" };
            format!("{{\"kind\":\"k\",\"args\":{{\"a\":{n},\"b\":1}},\"queue\":\"{queue}\"}}\n")
        })
        .collect();
    let answer = site.lines(body).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    assert_stored(&broker, &answer, (5..20).map(|n| (n as u64, n)));
    let error = &answer.body["errors"][0];
    assert_eq!((&error["index"], &error["count"], &answer.body["rejected"]), (&json!(0), &json!(5), &json!(5)));
    assert!(error["message"].as_str().unwrap().contains("full"), "{error}");

    broker.set_full(&Lane::new(Queue::new("other").unwrap(), Priority::Normal), true);
    let answer = site.lines("{\"kind\":\"k\",\"args\":0,\"queue\":\"other\"}").await;
    assert_eq!((answer.status, answer.code()), (StatusCode::SERVICE_UNAVAILABLE, "full"));
    assert_eq!(answer.header("retry-after"), Some("7"));
}

#[tokio::test]
async fn errors_are_listed_up_to_a_thousand_and_then_counted() {
    let site = Site::new(Puppet::new()).await;
    let answer = site.lines("nope\n".repeat(1_500) + &lines(1)).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    assert_eq!(answer.body["errors"].as_array().unwrap().len(), 1_000);
    assert_eq!((&answer.body["rejected"], &answer.body["errors_omitted"]), (&json!(1_500), &json!(500)));
}

#[tokio::test]
async fn jobs_that_nobody_confirmed_are_told_as_such() {
    let broker = Puppet::new();
    let site = Site::new(broker.clone()).await;
    broker.set_away(true);
    let answer = site.lines(lines(3)).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::SERVICE_UNAVAILABLE, "unconfirmed"));
    let error = &answer.body["errors"][0];
    assert_eq!((&error["type"], &error["count"]), (&answer.body["type"], &json!(3)), "{answer:?}");
}

#[tokio::test]
async fn an_early_answer_has_the_ids_already() {
    let broker = Puppet::new();
    broker.hold();
    let site = Site::new(broker.clone()).await;
    let request = site.post("/v1/jobs/batch", "application/x-ndjson", lines(100)).header("prefer", "respond-async");
    let answer = Answer::of(request).await;
    assert_eq!(answer.header("preference-applied"), Some("respond-async"));
    broker.open_up();
    site.producer.flush().await.unwrap();
    assert_stored(&broker, &answer, (0..100).map(|n| (n as u64, n)));
}

/// What a 1 GB body is in small: 200 MB, of which never more than the room and some pieces are in memory.
#[tokio::test]
async fn a_body_of_any_size_passes_in_flat_memory() {
    const PIECES: usize = 3_200;
    let broker = Puppet::new();
    broker.discard();
    let site = Site::new(broker.clone()).await;
    let piece = Bytes::from(format!("{{\"kind\":\"echo\",\"args\":\"{}\"}}\n", "x".repeat(4_000)).repeat(16));
    let pieces = stream::iter((0..PIECES).map(move |_| Ok::<_, Infallible>(piece.clone())));
    let answer = site.lines(Body::wrap_stream(pieces)).await;
    assert_eq!((answer.status, &answer.body["accepted"]), (StatusCode::ACCEPTED, &json!(16 * PIECES)), "{answer:?}");
    assert!(site.state.most_held() < 2 << 20, "{} bytes of the body held", site.state.most_held());
    assert!(site.producer.most_held() <= 4 << 20, "{} bytes of jobs held", site.producer.most_held());
}
