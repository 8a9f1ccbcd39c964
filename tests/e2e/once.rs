//! What was published is not published again, however long ago it was and whatever was killed; and what nobody can know
//! any more is said.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use wf_broker::{Broker, Control, Embedded, EmbeddedOptions};
use wf_nats::testing::{DelayProxy, ServerOptions, TestServer};
use wf_schema::{BatchId, JobId};

use crate::support::{JSON, Outcomes, Process, Stage, Web, connect, line_count, look, outcomes_of, sleeps, until};

/// The shortest window in which ids are remembered.
const SETTINGS: &str =
    "factory.lease = \"3s\"\nfactory.dedup_window = \"6s\"\nbroker.request_timeout = \"2s\"\nbroker.ping_interval = \"1s\"\n";
/// Longer than that.
const PAST_THE_WINDOW: Duration = Duration::from_millis(7_500);

async fn killed_after(mut process: Process, stage: &Stage, lines: usize) {
    let out = stage.path("out.ndjson");
    until(&format!("{lines} lines of results"), async || {
        assert!(process.is_running(), "it ended before it had {lines} lines of results");
        (line_count(&out) >= lines).then_some(())
    })
    .await;
    process.kill().await;
}

/// The batches that the results tell of.
fn batches(stage: &Stage) -> BTreeSet<BatchId> {
    let text = std::fs::read_to_string(stage.path("out.ndjson")).unwrap();
    text.lines().map(|line| line.split('"').nth(3).unwrap().parse::<JobId>().unwrap().batch).collect()
}

/// Kills a run whose batches wait in their lane, resumes it after the window, and counts what was run.
async fn resumed_after_the_window(broker: &str, look_into: impl AsyncFnOnce(&Stage) -> Arc<dyn Broker>) {
    const JOBS: u64 = 40;
    let stage = Stage::with(SETTINGS);
    let later = sleeps(2, 100, ",\"delay\":\"20s\"");
    stage.file("jobs.ndjson", sleeps(JOBS - 2, 700, "") + &later);
    let flags = format!("--broker {broker} --results out.ndjson --batch-jobs 4 -o json");
    killed_after(stage.start(&format!("run jobs.ndjson {flags} --concurrency 2")), &stage, 3).await;
    tokio::time::sleep(PAST_THE_WINDOW).await;
    let ended = stage.run(&format!("run jobs.ndjson {flags} --concurrency 20 --resume")).await.expect(0);
    assert_eq!((&ended.summary()["jobs"], &ended.summary()["completed"]), (&JOBS.into(), &JOBS.into()));
    assert_eq!(Outcomes::in_file(&stage.path("out.ndjson")).len() as u64, JOBS);
    // Fails when a job has two outcomes.
    let broker = look_into(&stage).await;
    assert_eq!(outcomes_of(&*broker, &batches(&stage)).await.len() as u64, JOBS);
    assert_eq!(look(&*broker, "default.normal").await.pending, 0, "nothing was published that waits for somebody else");
}

#[tokio::test]
async fn a_run_that_is_resumed_late_publishes_nothing_twice_over_the_embedded_broker() {
    resumed_after_the_window("embedded:store", async |stage| {
        let broker: Arc<dyn Broker> = Embedded::open(stage.path("store"), EmbeddedOptions::default()).unwrap();
        broker
    })
    .await;
}

#[tokio::test]
async fn a_run_that_is_resumed_late_publishes_nothing_twice_over_jetstream() {
    let server = TestServer::start(ServerOptions::new());
    resumed_after_the_window(&server.url(), async |_| {
        let broker: Arc<dyn Broker> = connect(&server).await;
        broker
    })
    .await;
}

/// A batch that goes as several messages, of which only some were published, is completed.
#[tokio::test]
async fn a_batch_that_was_published_in_part_is_completed() {
    let stage = Stage::with("batch.wire_bytes = \"512KiB\"\nfactory.lane_bytes = \"1MiB\"\n");
    let mut random = fastrand::Rng::with_seed(7);
    let mut large = || {
        let text: String = std::iter::repeat_with(|| random.alphanumeric()).take(93_000).collect();
        format!("{{\"kind\":\"echo\",\"args\":\"{text}\"}}\n")
    };
    let jobs = [sleeps(1, 6_000, ""), (0..18).map(|_| large()).collect(), sleeps(1, 6_000, "")].concat();
    stage.file("jobs.ndjson", jobs);
    let flags = "--results out.ndjson -o json";
    killed_after(stage.start(&format!("run jobs.ndjson {flags}")), &stage, 1).await;
    let ended = stage.run(&format!("run jobs.ndjson {flags} --resume")).await.expect(0);
    assert_eq!(ended.summary()["completed"], 20);
    assert_eq!(Outcomes::in_file(&stage.path("out.ndjson")).len(), 20);
}

/// More outcomes than the broker keeps (thirty times as many bytes, or the run might read them all in time): the run ends
/// all the same, with a line for each job.
async fn outcomes_are_dropped(broker: &str) {
    const JOBS: usize = 20_000;
    let stage = Stage::with("factory.results_bytes = \"1MiB\"\n");
    let mut random = fastrand::Rng::with_seed(11);
    let mut text = || std::iter::repeat_with(|| random.alphanumeric()).take(1_600).collect::<String>();
    stage.file("jobs.ndjson", (0..JOBS).map(|_| format!("{{\"kind\":\"echo\",\"args\":\"{}\"}}\n", text())).collect::<String>());
    let ended = stage.run(&format!("run jobs.ndjson --broker {broker} --results out.ndjson -o json")).await;
    let (summary, outcomes) = (ended.summary(), Outcomes::in_file(&stage.path("out.ndjson")));
    assert_eq!((outcomes.len(), &summary["jobs"]), (JOBS, &JOBS.into()));
    let count = |state: &str| outcomes.told.iter().filter(|(told, _)| told.contains(state)).map(|(_, count)| count).sum::<u64>();
    assert_eq!(
        (count(" completed 1 "), count(" unknown 0 ")),
        (summary["completed"].as_u64().unwrap(), summary["unknown"].as_u64().unwrap())
    );
    assert!(summary["unknown"].as_u64().unwrap() > 0, "the broker has kept everything: nothing was tried");
    assert!(outcomes.told.keys().any(|told| told.starts_with("- default unknown 0 outcome_dropped")), "no reason is given");
    ended.expect(1).says(&["is unknown", "factory.results_bytes"]);
    // It is over: there is nothing to be resumed.
    stage.run(&format!("run jobs.ndjson --broker {broker} --resume")).await.expect(2).says(&["no unfinished run"]);
}

#[tokio::test]
async fn a_run_ends_whose_outcomes_the_embedded_broker_drops() {
    outcomes_are_dropped("embedded:store").await;
}

#[tokio::test]
async fn a_run_ends_whose_outcomes_jetstream_drops() {
    let server = TestServer::start(ServerOptions::new());
    outcomes_are_dropped(&server.url()).await;
}

/// A keyed request whose ingest is killed between publishing and marking the key, and whose job runs before anybody asks
/// again: long after the window, and after a crash of the server, it is not stored again.
#[tokio::test]
async fn a_keyed_request_is_stored_once_whatever_is_killed() {
    let mut server = TestServer::start(ServerOptions::new().sync_always(true));
    let stage = Stage::with(SETTINGS);
    let run = async |stage: &Stage, server: &TestServer| {
        // Answers take longer than it takes to see that something is stored.
        let far = DelayProxy::start(server.address(), Duration::from_millis(150));
        let mut ingest = stage.start(&format!("ingest --listen 127.0.0.1:0 --broker {}", far.url()));
        let web = Web::of(&mut ingest).await;
        (far, ingest, web)
    };
    let (job, key) = (r#"{"kind":"echo","args":17,"store_result":true}"#, [JSON, ("idempotency-key", "order-17")]);
    stage.run(&format!("broker setup --broker {}", server.url())).await.expect(0);
    let broker = connect(&server).await;
    for jobs_run_meanwhile in [true, false] {
        let key = [key[0], ("idempotency-key", if jobs_run_meanwhile { "order-17" } else { "order-18" })];
        let (_far, mut ingest, web) = run(&stage, &server).await;
        let asking = tokio::spawn(async move { web.try_send(reqwest::Method::POST, "/v1/jobs", &key, job).await });
        until("the job is stored", async || {
            broker.stats("default.normal".parse().unwrap()).await.ok().filter(|stats| stats.pending > 0)
        })
        .await;
        ingest.kill().await;
        assert!(asking.await.unwrap().is_err(), "it was answered before it was killed: nothing was tried");
        if jobs_run_meanwhile {
            let mut executor = stage.start(&format!("executor --broker {}", server.url()));
            let empty = async || {
                let stats = broker.stats("default.normal".parse().unwrap()).await.ok()?;
                (stats.pending + stats.in_flight == 0).then_some(())
            };
            until("the job has run", empty).await;
            executor.signal("TERM");
            executor.wait().await.expect(0);
        }
        server.kill();
        server.restart();
        tokio::time::sleep(PAST_THE_WINDOW).await;
        // Two at once, as impatient callers do.
        let (_far, mut ingest, web) = run(&stage, &server).await;
        let (_far2, mut second, web2) = run(&stage, &server).await;
        let (one, other) = tokio::join!(web.post("/v1/jobs", &key, job), web2.post("/v1/jobs", &key, job));
        let replies = [one.expect(202), other.expect(202)];
        assert_eq!(replies[0].json()["id"], replies[1].json()["id"]);
        for reply in &replies {
            assert_eq!(reply.header("idempotency-replayed").as_deref(), Some("true"));
        }
        let stands = until("the server is back", async || broker.stats("default.normal".parse().unwrap()).await.ok()).await;
        assert_eq!(stands.pending, u64::from(!jobs_run_meanwhile), "it was stored a second time");
        ingest.kill().await;
        second.kill().await;
    }
}
