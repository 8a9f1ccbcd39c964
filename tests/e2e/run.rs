//! `wf run`: the same outcomes over every broker, and what it prints where.

use wf_nats::testing::{ServerOptions, TestServer};

use crate::support::{Ended, Mixed, Outcomes, Stage, sleeps};

/// As many as the factory is meant to show that brokers do not differ.
const JOBS: u64 = 100_000;

/// Runs a file of all sorts of jobs over `broker` and compares with what must become of them. Whatever passes here over
/// two brokers has the same outcomes over both.
async fn all_sorts(broker: &str) {
    let stage = Stage::new();
    let jobs = Mixed::new(JOBS);
    stage.file("jobs.ndjson", &jobs.lines);
    let ended = stage.run(&format!("run jobs.ndjson --broker {broker} --results out.ndjson -o json")).await.expect(1);
    Outcomes::in_file(&stage.path("out.ndjson")).assert_are(&jobs.expected);
    assert_eq!(ended.stdout, "", "outcomes go to the file only");
    let summary = ended.summary();
    let keys: Vec<&String> = summary.as_object().unwrap().keys().collect();
    let mut wanted = ["jobs", "completed", "discarded", "elapsed_s", "jobs_per_s", "unknown", "wire_bytes_per_job"];
    wanted.sort_unstable();
    assert_eq!(keys, wanted);
    assert_eq!(summary["jobs"], JOBS);
    assert_eq!(summary["completed"], jobs.completed);
    assert_eq!(summary["discarded"], JOBS - jobs.completed);
    assert!(summary["elapsed_s"].as_f64().unwrap() > 0.0 && summary["jobs_per_s"].as_f64().unwrap() > 0.0);
}

#[tokio::test]
async fn all_sorts_of_jobs_in_memory() {
    all_sorts("memory://").await;
}

#[tokio::test]
async fn all_sorts_of_jobs_over_the_embedded_broker() {
    all_sorts("embedded:store").await;
}

#[tokio::test]
async fn all_sorts_of_jobs_over_jetstream() {
    let server = TestServer::start(ServerOptions::new());
    all_sorts(&server.url()).await;
}

#[tokio::test]
async fn a_math_job_takes_at_most_twelve_bytes_on_the_wire() {
    let stage = Stage::new();
    let kinds = ["math_add", "math_subtract", "math_multiply", "math_divide"];
    let line = |n: usize| format!("{{\"kind\":\"{}\",\"args\":{{\"a\":{n},\"b\":{}}}}}\n", kinds[n % 4], n % 997 + 1);
    stage.file("jobs.ndjson", (0..20_000).map(line).collect::<String>());
    let ended = stage.run("run jobs.ndjson --broker memory:// -o json").await.expect(0);
    let bytes = ended.summary()["wire_bytes_per_job"].as_f64().unwrap();
    assert!(bytes > 1.0 && bytes <= 12.0, "{bytes} bytes a job");
}

async fn run_stdin(stage: &Stage, line: &str, input: &[u8]) -> Ended {
    use tokio::io::AsyncWriteExt;
    let mut process = stage.start_piped(line);
    process.stdin().write_all(input).await.unwrap();
    process.wait().await
}

#[tokio::test]
async fn standard_input_to_standard_output() {
    let stage = Stage::new();
    let input =
        b"{\"kind\":\"math_add\",\"args\":{\"a\":2,\"b\":3}}\n\n{\"kind\":\"echo\",\"args\":\"last line without an end\"}";
    let ended = run_stdin(&stage, "run -", input).await.expect(0);
    let outcomes = Outcomes::read(&ended.stdout);
    let wanted = ["math_add default completed 1 5.0", "echo default completed 1 \"last line without an end\""];
    outcomes.assert_are(&wanted.map(|told| (told.to_owned(), 1)).into());
    // For people: a table, on standard error.
    ended.says(&["jobs           2", "completed      2", "discarded      0", "on the wire"]);
    assert!(stage.path(".wf/broker").is_dir(), "the embedded broker is the default");
    // A run that finished leaves nothing to be resumed, and the next may be another.
    run_stdin(&stage, "run -", input).await.expect(0);
}

#[tokio::test]
async fn an_outcome_has_the_promised_fields() {
    let stage = Stage::new();
    stage.file("jobs.ndjson", "{\"kind\":\"math_add\",\"args\":{\"a\":2,\"b\":3}}\n");
    let ended = stage.run("run jobs.ndjson --broker memory://").await.expect(0);
    let id = ended.stdout.split('"').nth(3).unwrap();
    let wanted = format!(r#"{{"id":"{id}","kind":"math_add","queue":"default","state":"completed","attempts":1,"result":5.0}}"#);
    assert_eq!(ended.stdout.trim_end(), wanted);
    assert_eq!((id.len(), &id[26..]), (28, "-0"), "{id}");

    stage.file("jobs.ndjson", "{\"kind\":\"math_divide\",\"args\":{\"a\":1,\"b\":0}}\n");
    let ended = stage.run("run jobs.ndjson --broker memory://").await.expect(1);
    let id = ended.stdout.split('"').nth(3).unwrap();
    let wanted = format!(
        r#"{{"id":"{id}","kind":"math_divide","queue":"default","state":"discarded","attempts":1,"error":{{"type":"division_by_zero","message":"1 / 0 is not a number"}}}}"#
    );
    assert_eq!(ended.stdout.trim_end(), wanted);
}

#[tokio::test]
async fn quiet_says_nothing_but_outcomes() {
    let stage = Stage::new();
    stage.file("jobs.ndjson", "{\"kind\":\"noop\",\"args\":1}\n");
    let ended = stage.run("run jobs.ndjson --broker memory:// -q").await.expect(0);
    assert_eq!(ended.stderr, "");
    assert_eq!(Outcomes::read(&ended.stdout).len(), 1);
    let ended = stage.run("run jobs.ndjson --broker memory:// -q -o json").await.expect(0);
    assert_eq!(ended.stderr.lines().count(), 1, "the summary was asked for: {}", ended.stderr);
    assert_eq!(ended.summary()["jobs"], 1);
}

#[tokio::test]
async fn an_empty_file_is_no_failure() {
    let stage = Stage::new();
    stage.file("jobs.ndjson", "");
    let ended = stage.run("run jobs.ndjson --broker memory:// -o json").await.expect(0);
    assert_eq!(ended.summary()["jobs"], 0);
    assert_eq!(ended.stdout, "");
}

#[tokio::test]
async fn jobs_for_later_run_later_and_those_past_their_time_do_not() {
    let stage = Stage::new();
    let mut jobs = "{\"kind\":\"echo\",\"args\":\"later\",\"delay\":\"1s\"}\n".to_owned();
    // Two at a time, so that most of these wait longer than they may.
    jobs += &sleeps(8, 400, "");
    jobs += "{\"kind\":\"echo\",\"args\":\"too late\",\"expires_in\":\"100ms\",\"priority\":\"low\"}\n";
    stage.file("jobs.ndjson", jobs);
    let ended = stage.run("run jobs.ndjson --broker memory:// --concurrency 2 -o json").await;
    let outcomes = Outcomes::read(&ended.stdout);
    assert_eq!(outcomes.len(), 10);
    assert_eq!(outcomes.told.get("echo default completed 1 \"later\""), Some(&1));
    assert_eq!(outcomes.told.get("sleep default completed 1 null"), Some(&8));
    assert!(ended.summary()["elapsed_s"].as_f64().unwrap() >= 1.0);
}

#[tokio::test]
async fn a_timeout_ends_an_attempt() {
    let stage = Stage::new();
    stage.file("jobs.ndjson", "{\"kind\":\"sleep\",\"args\":{\"for\":\"10m\"},\"timeout\":\"50ms\",\"max_attempts\":1}\n");
    let ended = stage.run("run jobs.ndjson --broker memory:// -o json").await.expect(1);
    let outcomes = Outcomes::read(&ended.stdout);
    assert!(outcomes.told.keys().all(|told| told.starts_with("sleep default discarded 1 timeout")), "{:?}", outcomes.told);
}
