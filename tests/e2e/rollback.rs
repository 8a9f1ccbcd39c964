//! A server that comes back with an older store, under an executor that lives: what is stored anew runs, whatever its
//! sequence was before.

use wf_broker::{Message, Publish as _};
use wf_nats::testing::{ServerOptions, TestServer};

use crate::support::{Heard, Stage, connect, look, outcomes_of, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_under_a_sequence_that_was_used_before_runs() {
    let mut server = TestServer::start(ServerOptions::new());
    let stage = Stage::with("[factory]\nlease = \"1 min\"\n[broker]\nping_interval = \"500ms\"\nrequest_timeout = \"2s\"\n");
    let broker = format!("--broker {}", server.url());
    stage.run(&format!("broker setup {broker}")).await.expect(0);
    server.stop();
    let earlier = server.copy_store();
    server.restart();

    let mut executor = stage.start(&format!("executor {broker} --concurrency 4"));
    executor.says("running jobs").await;
    let eye = connect(&server).await;
    let publish = async |id: &str, job: &str| {
        let message = Message { lane: "default.normal".parse().unwrap(), id: id.into(), bytes: job.to_owned().into() };
        until("a job to be stored", async || eye.publish(message.clone()).await.ok()).await;
    };
    publish("old", "{\"kind\":\"sleep\",\"args\":{\"ms\":8000},\"store_result\":true}").await;
    until("the old job to run", async || (look(&*eye, "default.normal").await.in_flight == 1).then_some(())).await;

    // What was stored since is lost, and its sequence given to another.
    server.kill();
    server.roll_back(&earlier);
    server.restart();
    let heard = Heard::listen(eye.clone()).await;
    publish("new", "{\"kind\":\"echo\",\"args\":\"new\",\"store_result\":true}").await;
    let told = until("the new job's outcome", async || {
        let told = outcomes_of(&*eye, &heard.batches()).await;
        told.values().any(|told| told == "echo completed 1 \"new\"").then_some(told)
    })
    .await;
    assert_eq!(told.len(), 1);

    until("the lane to be empty", async || {
        let stats = look(&*eye, "default.normal").await;
        (stats.pending + stats.in_flight == 0).then_some(())
    })
    .await;
    executor.signal("TERM");
    executor.wait().await.expect(0).says(&["confirmed=true"]);
}
