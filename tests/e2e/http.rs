//! `wf serve` over HTTP: what is taken runs, and what is not is named.

use async_compression::tokio::write::{GzipEncoder, ZstdEncoder};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use wf_nats::testing::{ServerOptions, TestServer};

use crate::support::{JSON, NDJSON, Process, Stage, Web, echoes};

const SERVE: &str = "serve --listen 127.0.0.1:0";

struct Served {
    web: Web,
    process: Process,
    stage: Stage,
}

async fn served(more: &str) -> Served {
    let stage = Stage::new();
    let mut process = stage.start(&format!("{SERVE} {more}"));
    let web = Web::of(&mut process).await;
    Served { web, process, stage }
}

fn id(reply: &Value) -> String {
    reply["id"].as_str().unwrap_or_else(|| panic!("no id: {reply}")).to_owned()
}

/// The ids in a bulk answer, by the place of their jobs in the request.
fn ids(reply: &Value) -> Vec<(u64, String)> {
    let rows = reply["ids"].as_array().unwrap_or_else(|| panic!("no ids: {reply}"));
    let number = |row: &Value, key: &str| row[key].as_u64().unwrap();
    let ids = rows.iter().flat_map(|row| {
        let batch = row["batch"].as_str().unwrap();
        (0..number(row, "count")).map(move |n| (number(row, "index") + n, format!("{batch}-{}", number(row, "first") + n)))
    });
    ids.collect()
}

/// Jobs that say their numbers, with results kept.
fn numbers(range: std::ops::Range<u64>) -> String {
    echoes(range, ",\"store_result\":true")
}

/// Waits for the outcomes of jobs that say their numbers.
async fn assert_ran(web: &Web, ids: &[(u64, String)]) {
    for (n, id) in ids {
        let outcome = web.outcome(id).await;
        assert_eq!((&outcome["state"], &outcome["result"]), (&json!("completed"), &json!({ "n": n })), "{outcome}");
    }
}

#[tokio::test]
async fn a_single_job_and_its_outcome() {
    let Served { web, process: _process, stage: _stage } = served("").await;
    let reply =
        web.post("/v1/jobs", &[JSON], r#"{"kind":"math_add","args":{"a":2,"b":3},"store_result":true}"#).await.expect(202);
    let id = id(&reply.json());
    assert_eq!(reply.header("location"), Some(format!("/v1/jobs/{id}")));
    let outcome = web.get(&format!("/v1/jobs/{id}?wait=30s")).await.expect(200).json();
    assert_eq!((&outcome["id"], &outcome["kind"], &outcome["queue"]), (&json!(id), &json!("math_add"), &json!("default")));
    assert_eq!((&outcome["state"], &outcome["attempts"], &outcome["result"]), (&json!("completed"), &json!(1), &json!(5.0)));
    // One that fails says why, also when nobody asked for its result.
    let reply = web.post("/v1/jobs", &[JSON], r#"{"kind":"math_divide","args":{"a":1,"b":0}}"#).await.expect(202).json();
    let outcome = web.outcome(reply["id"].as_str().unwrap()).await;
    assert_eq!((&outcome["state"], &outcome["error"]["type"]), (&json!("discarded"), &json!("division_by_zero")));
}

#[tokio::test]
async fn waiting_for_what_takes_longer_gives_up_in_time() {
    let Served { web, process: _process, stage: _stage } = served("").await;
    let job = r#"{"kind":"sleep","args":{"for":"10m"},"store_result":true}"#;
    let id = id(&web.post("/v1/jobs", &[JSON], job).await.expect(202).json());
    assert_eq!(web.get(&format!("/v1/jobs/{id}?wait=50ms")).await.expect(202).json()["state"], "unknown");
    web.get(&format!("/v1/jobs/{id}")).await.problem(404, &[&id]);
    web.get(&format!("/v1/jobs/{id}?wait=50")).await.problem(400, &["wait"]);
    web.get("/v1/jobs/nonsense").await.problem(400, &["nonsense"]);
    web.get("/v1/jobs/01JDB6K3Q2M8X7Z9V4T5R6W1YC-3").await.problem(404, &[]);
}

#[tokio::test]
async fn bulk_as_lines_as_an_array_and_compressed() {
    let Served { web, process: _process, stage: _stage } = served("").await;
    let lines = numbers(0..2_000);
    let array = format!("[{}]", lines.trim_end().replace('\n', ","));
    let mut gzip = GzipEncoder::new(Vec::new());
    gzip.write_all(lines.as_bytes()).await.unwrap();
    gzip.shutdown().await.unwrap();
    let mut zstd = ZstdEncoder::new(Vec::new());
    zstd.write_all(array.as_bytes()).await.unwrap();
    zstd.shutdown().await.unwrap();
    let (gzip_header, zstd_header) = (("content-encoding", "gzip"), ("content-encoding", "zstd"));
    for (headers, body) in [
        (vec![NDJSON], lines.into_bytes()),
        (vec![JSON], array.into_bytes()),
        (vec![NDJSON, gzip_header], gzip.into_inner()),
        (vec![JSON, zstd_header], zstd.into_inner()),
    ] {
        let reply = web.post("/v1/jobs/batch", &headers, body).await.expect(202).json();
        assert_eq!((&reply["accepted"], &reply["rejected"]), (&json!(2_000), &json!(0)), "{headers:?}");
        let ids = ids(&reply);
        assert_eq!(ids.len(), 2_000);
        // Each id is that of its own job, so a few tell of all.
        assert_ran(&web, &[&ids[..3], &ids[997..1_003], &ids[1_997..]].concat()).await;
    }
}

#[tokio::test]
async fn what_is_wrong_in_a_bulk_is_named_and_the_others_are_taken() {
    let Served { web, process: _process, stage: _stage } = served("").await;
    let good = |n: u64| numbers(n..n + 1);
    let body = format!("{}{{broken\n\n{}{{\"kind\":\"echo\"}}\n{}", good(0), good(2), good(4));
    let reply = web.post("/v1/jobs/batch", &[NDJSON], body.clone()).await.expect(202).json();
    assert_eq!((&reply["accepted"], &reply["rejected"]), (&json!(3), &json!(2)), "{reply}");
    let errors = reply["errors"].as_array().unwrap();
    assert_eq!((&errors[0]["index"], &errors[0]["line"]), (&json!(1), &json!(2)), "{reply}");
    assert_eq!((&errors[1]["index"], &errors[1]["line"]), (&json!(3), &json!(5)), "{reply}");
    assert!(errors[1]["message"].as_str().unwrap().contains("args"), "{reply}");
    assert_ran(&web, &ids(&reply)).await;

    // All or nothing, if that is wanted.
    let problem = web.post("/v1/jobs/batch?atomic=true", &[NDJSON], body).await.problem(422, &["index"]).json();
    assert_eq!(problem["accepted"], 0);
    let reply = web.post("/v1/jobs/batch?atomic=true", &[NDJSON], numbers(0..50)).await.expect(202).json();
    assert_ran(&web, &ids(&reply)[..5]).await;
}

#[tokio::test]
async fn a_request_with_a_key_is_done_once() {
    let Served { web, mut process, stage } = served("").await;
    let key = ("idempotency-key", "order-17");
    let body = numbers(0..100);
    let first = web.post("/v1/jobs/batch", &[NDJSON, key], body.clone()).await.expect(202);
    assert_eq!(first.header("idempotency-replayed"), None);
    let again = web.post("/v1/jobs/batch", &[NDJSON, key], body.clone()).await.expect(202);
    assert_eq!(again.header("idempotency-replayed").as_deref(), Some("true"));
    assert_eq!(first.json()["ids"], again.json()["ids"]);
    web.post("/v1/jobs/batch", &[NDJSON, key], numbers(1..100)).await.problem(422, &["Idempotency-Key"]);
    // The same over the end of the process, however it ended.
    process.kill().await;
    let mut process = stage.start(SERVE);
    let web = Web::of(&mut process).await;
    let after = web.post("/v1/jobs/batch", &[NDJSON, key], body).await.expect(202);
    assert_eq!(first.json()["ids"], after.json()["ids"]);
    web.post("/v1/jobs", &[JSON, key], r#"{"kind":"noop","args":1}"#).await.problem(422, &[]);
    // Also for a single one.
    let (key, job) = (("idempotency-key", "\"order-18\""), r#"{"kind":"noop","args":1}"#);
    let one = id(&web.post("/v1/jobs", &[JSON, key], job).await.expect(202).json());
    assert_eq!(id(&web.post("/v1/jobs", &[JSON, key], job).await.expect(202).json()), one);
    assert_ran(&web, &ids(&first.json())[..3]).await;
}

#[tokio::test]
async fn the_old_api_still_works() {
    let Served { web, process: _process, stage: _stage } = served("").await;
    for (path, kind) in
        [("add", "math_add"), ("subtract", "math_subtract"), ("multiply", "math_multiply"), ("divide", "math_divide")]
    {
        let body = r#"{"a":1,"b":0,"request_id":"r-1"}"#;
        let reply = web.post(&format!("/jobs/{path}"), &[JSON], body).await.expect(202).json();
        assert_eq!(reply["request_id"], "r-1");
        if path == "divide" {
            let outcome = web.outcome(&id(&reply)).await;
            assert_eq!((&outcome["kind"], &outcome["error"]["type"]), (&json!(kind), &json!("division_by_zero")));
        }
    }
    web.post("/jobs/power", &[JSON], r#"{"a":1,"b":2}"#).await.problem(404, &["/jobs/power"]);
    web.post("/jobs/add", &[JSON], r#"{"a":1}"#).await.problem(400, &["b"]);
    web.post("/jobs/add", &[JSON], r#"{"a":1,"b":"2"}"#).await.problem(400, &[]);
}

#[tokio::test]
async fn what_is_no_request_is_a_problem() {
    let Served { web, mut process, stage: _stage } = served("--ingest-body-limit 64KiB --ingest-args-limit 1KiB").await;
    let large = format!("{{\"kind\":\"echo\",\"args\":\"{}\"}}\n", "x".repeat(900));
    web.post("/v1/jobs/batch", &[NDJSON], large.repeat(100)).await.problem(413, &["65536"]);
    // Of a body that does not say how large it is, what came before the limit is taken, and it is said where it ended.
    let pieces = futures::stream::iter((0..100).map(move |_| Ok::<_, std::io::Error>(large.clone())));
    let reply = web.post("/v1/jobs/batch", &[NDJSON], reqwest::Body::wrap_stream(pieces)).await.expect(202).json();
    assert_eq!(reply["stopped"]["status"], 413, "{reply}");
    let accepted = reply["accepted"].as_u64().unwrap();
    assert!((1..100).contains(&accepted), "{reply}");
    let body = "x".repeat(100_000);
    web.post("/v1/jobs", &[JSON], body.clone()).await.problem(413, &[]);
    web.post("/v1/jobs/batch", &[JSON], format!("[\"{body}\"]")).await.problem(413, &[]);
    let args = format!("{{\"kind\":\"echo\",\"args\":\"{}\"}}", "x".repeat(1_100));
    web.post("/v1/jobs", &[JSON], args).await.problem(413, &["args", "1024"]);
    let text = ("content-type", "text/csv");
    web.post("/v1/jobs", &[text], "a,b").await.problem(415, &["text/csv", "application/json"]);
    web.post("/v1/jobs/batch", &[text], "a,b").await.problem(415, &["application/x-ndjson"]);
    web.post("/v1/jobs/batch", &[NDJSON, ("content-encoding", "br")], "x").await.problem(415, &["gzip"]);
    web.post("/v1/jobs/batch", &[NDJSON, ("content-encoding", "gzip")], "no gzip").await.problem(400, &[]);
    web.post("/v1/jobs", &[JSON], "{").await.problem(400, &[]);
    web.post("/v1/jobs", &[JSON], "").await.problem(400, &[]);
    web.post("/v1/jobs", &[JSON], r#"{"kind":"echo","args":1,"colour":"red"}"#).await.problem(400, &["colour"]);
    web.post("/v1/jobs", &[JSON], r#"{"kind":"echo"}"#).await.problem(400, &["args"]);
    web.post("/v1/jobs", &[JSON], r#"{"kind":"echo","args":1,"priority":"urgent"}"#).await.problem(400, &["urgent"]);
    web.post("/v1/jobs/batch", &[JSON], "{\"kind\":\"echo\",\"args\":1}").await.problem(400, &["/v1/jobs"]);
    web.post("/v1/jobs/batch", &[JSON], "").await.problem(400, &[]);
    web.post("/v1/jobs/batch?colour=red", &[JSON], "[]").await.problem(400, &["colour"]);
    web.get("/v1/nowhere").await.problem(404, &["/v1/nowhere"]);
    web.get("/v1/jobs").await.problem(405, &["GET"]);
    // A kind nobody knows is taken: which kinds there are, the executors know.
    let id = id(&web.post("/v1/jobs", &[JSON], r#"{"kind":"no_such_kind","args":1}"#).await.expect(202).json());
    assert_eq!(web.outcome(&id).await["state"], "discarded");
    assert_eq!(web.get("/healthz").await.expect(200).json()["status"], "ok");
    assert_eq!(web.get("/readyz").await.expect(200).json()["status"], "ok");
    assert!(process.is_running());
}

#[tokio::test]
async fn an_early_answer_is_given_when_it_is_asked_for() {
    let Served { web, process: _process, stage: _stage } = served("").await;
    let prefer = ("prefer", "respond-async");
    let reply = web.post("/v1/jobs", &[JSON, prefer], r#"{"kind":"echo","args":1,"store_result":true}"#).await.expect(202);
    assert_eq!(reply.header("preference-applied").as_deref(), Some("respond-async"));
    assert_eq!(web.outcome(&id(&reply.json())).await["result"], 1);
    let reply = web.post("/v1/jobs/batch", &[NDJSON, prefer], numbers(0..10)).await.expect(202);
    assert_eq!(reply.header("preference-applied").as_deref(), Some("respond-async"));
    assert_ran(&web, &ids(&reply.json())).await;
}

#[tokio::test]
async fn what_was_taken_runs_after_a_crash() {
    let Served { web, mut process, stage } = served("--concurrency 1").await;
    // One that holds up the others.
    let slow = r#"{"kind":"sleep","args":{"for":"1s"},"priority":"high","store_result":true}"#;
    let mut taken = vec![id(&web.post("/v1/jobs", &[JSON], slow).await.expect(202).json())];
    let singles = (0..20).map(|n| {
        let web = web.clone();
        async move { id(&web.post("/v1/jobs", &[JSON], numbers(n..n + 1)).await.expect(202).json()) }
    });
    taken.extend(futures::future::join_all(singles).await);
    let bulk = web.post("/v1/jobs/batch", &[NDJSON], numbers(0..5_000)).await.expect(202).json();
    process.kill().await;

    let mut process = stage.start(SERVE);
    let web = Web::of(&mut process).await;
    for id in &taken {
        assert_eq!(web.outcome(id).await["state"], "completed");
    }
    let ids = ids(&bulk);
    assert_eq!(ids.len(), 5_000);
    assert_ran(&web, &[&ids[..3], &ids[4_997..]].concat()).await;
    process.signal("TERM");
    process.wait().await.expect(0);
}

#[tokio::test]
async fn a_large_body_passes_in_flat_memory() {
    const JOBS: u64 = 100_000;
    let Served { web, process, stage: _stage } = served("").await;
    // 100 MB, and as much again as results if they were kept.
    let job = format!("{{\"kind\":\"echo\",\"args\":\"{}\"}}\n", "x".repeat(1_000));
    let pieces = futures::stream::iter((0..JOBS / 100).map(move |_| Ok::<_, std::io::Error>(job.repeat(100))));
    let reply = web.post("/v1/jobs/batch", &[NDJSON], reqwest::Body::wrap_stream(pieces)).await.expect(202).json();
    assert_eq!((&reply["accepted"], &reply["rejected"]), (&json!(JOBS), &json!(0)));
    let peak = process.peak_memory().unwrap();
    eprintln!("{JOBS} jobs in one body: {} MiB at most", peak >> 20);
    assert!(peak < 160 << 20, "{} MiB", peak >> 20);
}

#[tokio::test]
async fn serve_over_jetstream() {
    let server = TestServer::start(ServerOptions::new());
    let Served { web, mut process, stage: _stage } = served(&format!("--broker {}", server.url())).await;
    let reply = web.post("/v1/jobs/batch", &[NDJSON], numbers(0..1_000)).await.expect(202).json();
    assert_ran(&web, &ids(&reply)[990..]).await;
    let key = ("idempotency-key", "once");
    let first = web.post("/v1/jobs/batch", &[NDJSON, key], numbers(0..10)).await.expect(202).json();
    let again = web.post("/v1/jobs/batch", &[NDJSON, key], numbers(0..10)).await.expect(202).json();
    assert_eq!(first["ids"], again["ids"]);
    assert_ran(&web, &ids(&first)).await;
    process.signal("TERM");
    process.wait().await.expect(0);
}

#[tokio::test]
async fn two_servers_do_not_share_an_address() {
    let Served { mut process, stage, .. } = served("").await;
    let address = process.says("taking jobs on http://").await;
    let address = address.split("http://").nth(1).unwrap().trim().to_owned();
    let ended = stage.run(&format!("serve --broker embedded:other --listen {address}")).await.expect(2);
    ended.says(&[&address, "ingest.listen"]);
}
