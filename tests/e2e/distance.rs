//! Distance costs latency once: what counts is how many messages go over the wire, not how long they take.

use std::time::Duration;

use wf_nats::testing::{DelayProxy, ServerOptions, TestServer};

use crate::support::{Stage, Tap, connect, echoes, look, until};

/// A hundred thousand jobs over a link whose round trip takes 100 ms. With one round trip a job that is three hours.
#[tokio::test]
async fn no_job_costs_a_round_trip() {
    const JOBS: u64 = 100_000;
    const BATCHES: u64 = 100;
    let server = TestServer::start(ServerOptions::new());
    let link = DelayProxy::start(server.address(), Duration::from_millis(50));
    let stage = Stage::with("profile = \"wan\"\nbatch.jobs = 1000\n");
    stage.run(&format!("broker setup --broker {}", server.url())).await.expect(0);
    stage.file("jobs.ndjson", echoes(0..JOBS, ""));

    let tap = Tap::on(link.address()).await;
    let enqueued = stage.run(&format!("enqueue jobs.ndjson -o json --broker {}", tap.url())).await.expect(0);
    assert_eq!(enqueued.summary()["enqueued"], JOBS);
    let sent = tap.traffic();
    eprintln!("enqueueing: {sent:?}");
    // One message a batch, and one batch more where the file is cut into segments.
    assert!((BATCHES..=BATCHES + 1).contains(&sent.jobs), "{sent:?}");
    assert!(sent.messages() <= BATCHES + 60, "{sent:?}");
    let eye = connect(&server).await;
    assert_eq!(look(&*eye, "default.normal").await.pending, sent.jobs, "as many on the stream");

    let tap = Tap::on(link.address()).await;
    let mut executor = stage.start(&format!("executor --broker {}", tap.url()));
    until("all to be acknowledged", async || {
        assert!(executor.is_running());
        let stats = look(&*eye, "default.normal").await;
        (stats.pending + stats.in_flight == 0).then_some(())
    })
    .await;
    executor.signal("TERM");
    executor.wait().await.expect(0);
    let sent = tap.traffic();
    eprintln!("consuming: {sent:?}");
    // Each batch is acknowledged, once; nobody asked for results, so none needs a record. Pulls are for many at a time.
    assert!(sent.acks >= BATCHES, "{sent:?}");
    assert!(sent.messages() <= 3 * BATCHES + 100, "{sent:?}");
}

/// The whole way at a distance: the same bound for a run that also reports each outcome.
#[tokio::test]
async fn a_run_at_a_distance_sends_a_few_messages_a_batch() {
    const JOBS: u64 = 100_000;
    const BATCHES: u64 = 100;
    let server = TestServer::start(ServerOptions::new());
    let link = DelayProxy::start(server.address(), Duration::from_millis(50));
    let tap = Tap::on(link.address()).await;
    let stage = Stage::with("profile = \"wan\"\nbatch.jobs = 1000\n");
    stage.file("jobs.ndjson", echoes(0..JOBS, ""));
    let ended = stage.run(&format!("run jobs.ndjson -o json --results out.ndjson --broker {}", tap.url())).await.expect(0);
    assert_eq!(ended.summary()["completed"], JOBS);
    let sent = tap.traffic();
    eprintln!("running: {sent:?}");
    assert!(sent.jobs <= BATCHES + 2, "{sent:?}");
    // Each batch is published, recorded, read and acknowledged; the rest is the journal, pulls and finding one another.
    assert!(sent.messages() <= 8 * BATCHES + 150, "{sent:?}");
}
