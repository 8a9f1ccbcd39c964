//! A run that is killed, and goes on.

use std::collections::BTreeMap;

use tokio::io::AsyncWriteExt;
use wf_nats::testing::{ServerOptions, TestServer};

use crate::support::{Outcomes, Process, Stage, echoes, line_count, sleeps, until};

/// Jobs that say their numbers, and enough slow ones behind them that a run is not over before it is killed.
fn jobs(count: u64) -> String {
    let third = count / 3;
    let slow = sleeps(60, 150, "");
    [echoes(0..third, ""), slow.clone(), echoes(third..2 * third, ""), slow.clone(), echoes(2 * third..count, ""), slow].concat()
}

fn expected(count: u64) -> BTreeMap<String, u64> {
    let numbers = (0..count).map(|n| (format!("echo default completed 1 {{\"n\":{n}}}"), 1));
    numbers.chain([("sleep default completed 1 null".to_owned(), 180)]).collect()
}

async fn killed_when(mut process: Process, stage: &Stage, lines: usize) {
    let out = stage.path("out.ndjson");
    until(&format!("{lines} lines of results"), async || {
        assert!(process.is_running(), "it ended before it had {lines} lines of results");
        (line_count(&out) >= lines).then_some(())
    })
    .await;
    process.kill().await;
}

/// Kills a run of a file again and again, each time further on, and lets it finish.
async fn killed_and_resumed(broker: &str) {
    const JOBS: u64 = 30_000;
    // One job at a time, nearly: the slow ones hold up the end long enough.
    let flags = format!("--broker {broker} --results out.ndjson --concurrency 8 --batch-jobs 500 -o json");
    let stage = Stage::with("factory.lease = \"3s\"\nbroker.ping_interval = \"500ms\"\nbroker.request_timeout = \"2s\"\n");
    stage.file("jobs.ndjson", jobs(JOBS));
    let out = stage.path("out.ndjson");

    killed_when(stage.start(&format!("run jobs.ndjson {flags}")), &stage, 1).await;
    for share in [3, 5] {
        // What was in the air when the machine went down: half a line.
        let torn = [std::fs::read(&out).unwrap(), b"{\"id\":\"01JDB6K3Q2M8".to_vec()].concat();
        std::fs::write(&out, torn).unwrap();
        let lines = JOBS as usize * share / 8;
        killed_when(stage.start(&format!("run jobs.ndjson {flags} --resume")), &stage, lines).await;
    }
    // Nobody begins anew by accident.
    stage.run(&format!("run jobs.ndjson {flags}")).await.expect(2).says(&[
        "did not finish",
        "--resume",
        "--fresh",
        "jobs.ndjson",
    ]);
    let ended = stage.run(&format!("run jobs.ndjson {flags} --resume")).await.expect(0);
    Outcomes::in_file(&out).assert_are(&expected(JOBS));
    assert_eq!(ended.summary()["jobs"], JOBS + 180);
    assert_eq!(ended.summary()["completed"], JOBS + 180);
    // It is finished: there is nothing left to go on with.
    stage.run(&format!("run jobs.ndjson {flags} --resume")).await.expect(2).says(&["no unfinished run"]);
}

#[tokio::test]
async fn killed_and_resumed_over_the_embedded_broker() {
    killed_and_resumed("embedded:store").await;
}

#[tokio::test]
async fn killed_and_resumed_over_jetstream() {
    let server = TestServer::start(ServerOptions::new());
    killed_and_resumed(&server.url()).await;
}

#[tokio::test]
async fn standard_input_is_resumed_when_it_says_the_same_again() {
    const JOBS: u64 = 20_000;
    let stage = Stage::new();
    let input = echoes(0..JOBS, "");
    let mut process = stage.start_piped("run - --results out.ndjson -o json");
    let mut stdin = process.stdin();
    // The rest does not come before it is killed.
    stdin.write_all(&input.as_bytes()[..input.len() / 2]).await.unwrap();
    killed_when(process, &stage, JOBS as usize / 4).await;

    stage.run("run - --results out.ndjson").await.expect(2).says(&["standard input did not finish"]);
    let mut process = stage.start_piped("run - --results out.ndjson -o json --resume");
    process.stdin().write_all(input.as_bytes()).await.unwrap();
    let ended = process.wait().await.expect(0);
    assert_eq!(ended.summary()["jobs"], JOBS);
    let expected = (0..JOBS).map(|n| (format!("echo default completed 1 {{\"n\":{n}}}"), 1)).collect();
    Outcomes::in_file(&stage.path("out.ndjson")).assert_are(&expected);
}

#[tokio::test]
async fn an_input_that_changed_is_not_resumed() {
    let stage = Stage::new();
    // The first job ends at once, so that there is something to kill at; the others do not end.
    let input = |n: u32| format!("{{\"kind\":\"echo\",\"args\":{n}}}\n{}", sleeps(10, 600_000, ""));
    stage.file("jobs.ndjson", input(1));
    let flags = "--results out.ndjson -o json";
    let process = stage.start(&format!("run jobs.ndjson {flags}"));
    // The first outcome is written when its record is, about a second after it.
    killed_when(process, &stage, 1).await;

    stage.file("jobs.ndjson", input(2));
    let ended = stage.run(&format!("run jobs.ndjson {flags} --resume")).await.expect(2);
    ended.says(&["changed", "--fresh"]);
    // As short as that it cannot be what it was, either.
    stage.file("jobs.ndjson", "");
    stage.run(&format!("run jobs.ndjson {flags} --resume")).await.expect(2).says(&["changed"]);

    // To begin anew is possible; what was enqueued before still runs, so these are short.
    stage.file("jobs.ndjson", echoes(0..10, ""));
    let ended = stage.run(&format!("run jobs.ndjson {flags} --fresh --concurrency 100")).await.expect(0);
    assert_eq!(ended.summary()["jobs"], 10);
    assert_eq!(Outcomes::in_file(&stage.path("out.ndjson")).len(), 10, "the results begin anew as well");
}

#[tokio::test]
async fn nothing_to_resume_is_said() {
    let stage = Stage::new();
    stage.file("jobs.ndjson", echoes(0..1, ""));
    stage.run("run jobs.ndjson --resume").await.expect(2).says(&["no unfinished run", "jobs.ndjson", "--resume"]);
    stage.run("run jobs.ndjson --resume --broker memory://").await.expect(2).says(&["memory://"]);
    stage.run("run jobs.ndjson --resume --fresh").await.expect(2);
}

#[tokio::test]
async fn two_runs_do_not_share_an_embedded_broker() {
    let stage = Stage::new();
    stage.file("jobs.ndjson", echoes(0..1, ""));
    let mut first = stage.start_piped("run - --results first.ndjson -o json");
    let stdin = first.stdin();
    until("the first to have it", async || stage.path(".wf/broker").is_dir().then_some(())).await;
    let ended = until("the second to be refused", async || {
        let ended = stage.run("run jobs.ndjson --results second.ndjson").await;
        // In the blink before the first has locked it, the second wins. It has one job.
        (ended.code != Some(0)).then_some(ended)
    })
    .await;
    let pid = first.id().to_string();
    ended.expect(3).says(&[".wf/broker", "in use", &pid]);
    drop(stdin);
    first.wait().await.expect(0);
}
