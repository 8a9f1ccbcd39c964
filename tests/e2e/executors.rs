//! Executors that share a lane, over JetStream.

use std::collections::BTreeSet;

use wf_nats::testing::{ServerOptions, TestServer};

use crate::support::{Heard, Stage, connect, look, outcomes_of, until};

/// A factory in which a dead executor's work is soon another's.
pub(crate) const SHORT_LEASE: &str = r#"
[factory]
lease = "3s"
[broker]
ping_interval = "500ms"
request_timeout = "2s"
"#;

#[tokio::test]
async fn three_share_a_lane_and_one_is_killed() {
    const BATCHES: u64 = 60;
    const JOBS: u64 = 50 * BATCHES;
    let server = TestServer::start(ServerOptions::new());
    let stage = Stage::with(SHORT_LEASE);
    let broker = format!("--broker {}", server.url());
    stage.run(&format!("broker setup {broker}")).await.expect(0);
    let eye = connect(&server).await;
    let heard = Heard::listen(eye.clone()).await;

    // In each batch one job that takes its time: they are not through before anybody can be killed.
    let line = |n: u64| match n % 50 {
        0 => "{\"kind\":\"sleep\",\"args\":{\"ms\":300},\"store_result\":true}\n".to_owned(),
        _ => format!("{{\"kind\":\"echo\",\"args\":{n},\"store_result\":true}}\n"),
    };
    stage.file("jobs.ndjson", (0..JOBS).map(line).collect::<String>());
    let enqueued = stage.run(&format!("enqueue jobs.ndjson {broker} --batch-jobs 50 -o json")).await.expect(0);
    assert_eq!(enqueued.summary()["enqueued"], JOBS);
    assert_eq!(look(&*eye, "default.normal").await.pending, BATCHES, "one message a batch");

    // The first has work before there are others.
    let start = || stage.start(&format!("executor {broker} --concurrency 2"));
    let mut first = start();
    until("the first to have work", async || (look(&*eye, "default.normal").await.in_flight > 0).then_some(())).await;
    let mut others = [start(), start()];
    for other in &mut others {
        other.says("running jobs").await;
    }
    until("a third to be done", async || (heard.batches().len() as u64 >= BATCHES / 3).then_some(())).await;
    first.kill().await;
    assert!(look(&*eye, "default.normal").await.in_flight > 0, "it was killed in the middle");

    let found = until("all outcomes", async || {
        let found = outcomes_of(&*eye, &heard.batches()).await;
        (found.len() as u64 >= JOBS).then_some(found)
    })
    .await;
    assert_eq!(found.len() as u64, JOBS);
    let told: BTreeSet<&str> = found.values().map(String::as_str).collect();
    for n in (0..JOBS).filter(|n| n % 50 != 0) {
        // An executor that is killed costs no attempt of a job that nobody recorded.
        assert!(told.contains(format!("echo completed 1 {n}").as_str()), "job {n} has no outcome");
    }
    until("the lane to be empty", async || {
        let stats = look(&*eye, "default.normal").await;
        (stats.pending + stats.in_flight == 0).then_some(())
    })
    .await;
    for mut other in others {
        other.signal("TERM");
        other.wait().await.expect(0);
    }
}

#[tokio::test]
async fn setting_up_is_safe_to_repeat_and_for_many_at_once() {
    let server = TestServer::start(ServerOptions::new());
    let stage = Stage::new();
    let line = format!("broker setup --broker {}", server.url());
    let mut many: Vec<_> = (0..8).map(|_| stage.start(&line)).collect();
    for one in &mut many {
        one.wait().await.expect(0);
    }
    stage.run(&line).await.expect(0);
}

#[tokio::test]
async fn an_executor_serves_the_queues_it_is_told_to() {
    let server = TestServer::start(ServerOptions::new());
    let stage = Stage::new();
    let broker = format!("--broker {}", server.url());
    let job = |queue: &str| format!("{{\"kind\":\"echo\",\"args\":\"{queue}\",\"queue\":\"{queue}\",\"store_result\":true}}\n");
    stage.file("jobs.ndjson", [job("mail"), job("reports"), job("default")].concat());
    stage.run(&format!("enqueue jobs.ndjson {broker}")).await.expect(0);
    let eye = connect(&server).await;
    let heard = Heard::listen(eye.clone()).await;
    let mut executor = stage.start(&format!("executor {broker} --queues mail,reports"));
    until("two outcomes", async || (heard.batches().len() == 2).then_some(())).await;
    executor.signal("TERM");
    executor.wait().await.expect(0);
    let told: Vec<String> = outcomes_of(&*eye, &heard.batches()).await.into_values().collect();
    assert!(told.contains(&"echo completed 1 \"mail\"".to_owned()) && told.contains(&"echo completed 1 \"reports\"".to_owned()));
    assert_eq!(look(&*eye, "default.normal").await.pending, 1);
}
