//! Told to stop: what runs is finished, what has not started runs later, and the exit code says what it was.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use wf_broker::{Broker, Message};
use wf_nats::testing::{DelayProxy, ServerOptions, TestServer};
use wf_schema::{BatchId, Lane};

use crate::support::{Heard, JSON, Outcomes, Stage, Web, connect, echoes, line_count, look, outcomes_of, sleeps, until};

#[tokio::test]
async fn an_interrupted_run_says_how_to_go_on_and_does() {
    let stage = Stage::new();
    stage.file("jobs.ndjson", sleeps(120, 100, ""));
    let flags = "--results out.ndjson -o json --concurrency 4 --batch-jobs 10";
    for (signal, more) in [("INT", ""), ("TERM", "--resume")] {
        let mut process = stage.start(&format!("run jobs.ndjson {flags} {more}"));
        let before = line_count(&stage.path("out.ndjson"));
        until("some results", async || (line_count(&stage.path("out.ndjson")) > before).then_some(())).await;
        process.signal(signal);
        process.wait().await.expect(1).says(&["interrupted", "--resume"]);
    }
    let ended = stage.run(&format!("run jobs.ndjson {flags} --resume")).await.expect(0);
    assert_eq!(ended.summary()["completed"], 120);
    let outcomes = Outcomes::in_file(&stage.path("out.ndjson"));
    // Drained, not dropped: no job has run twice.
    assert_eq!(outcomes.told, [("sleep default completed 1 null".to_owned(), 120)].into());
}

#[tokio::test]
async fn the_second_signal_ends_it_at_once() {
    let stage = Stage::new();
    stage.file("jobs.ndjson", echoes(0..1, "") + &sleeps(1, 600_000, ""));
    let mut process = stage.start("run jobs.ndjson --results out.ndjson");
    until("a running job", async || (line_count(&stage.path("out.ndjson")) == 1).then_some(())).await;
    // Two different ones: of two that are the same, the system may make one.
    process.signal("INT");
    process.signal("TERM");
    process.wait().await.expect(130);
}

#[tokio::test]
async fn an_executor_gives_back_what_it_has_not_started() {
    const JOBS: usize = 200;
    let server = TestServer::start(ServerOptions::new());
    let stage = Stage::new();
    let broker = format!("--broker {}", server.url());
    stage.file("jobs.ndjson", sleeps(JOBS as u64, 50, ",\"store_result\":true"));
    stage.run(&format!("enqueue jobs.ndjson {broker} --batch-jobs 10")).await.expect(0);
    let eye = connect(&server).await;
    let heard = Heard::listen(eye.clone()).await;
    let start = || stage.start(&format!("executor {broker} --concurrency 4"));

    let mut first = start();
    until("an outcome", async || (!heard.batches().is_empty()).then_some(())).await;
    first.signal("TERM");
    let ended = first.wait().await.expect(0);
    ended.says(&["draining"]);
    let by_first = outcomes_of(&*eye, &heard.batches()).await.len();
    assert!(by_first < JOBS, "it was told to stop in the middle");

    let mut second = start();
    let found = until("all outcomes", async || {
        let found = outcomes_of(&*eye, &heard.batches()).await;
        (found.len() == JOBS).then_some(found)
    })
    .await;
    assert!(
        found.values().all(|told| told == "sleep completed 1 null"),
        "{:?}",
        found.values().find(|t| *t != "sleep completed 1 null")
    );
    second.signal("TERM");
    second.wait().await.expect(0);
    assert_eq!(look(&*eye, "default.normal").await.in_flight, 0);
}

#[tokio::test]
async fn serve_finishes_what_runs_and_keeps_the_rest() {
    let stage = Stage::new();
    let line = "serve --listen 127.0.0.1:0 --concurrency 1";
    let mut process = stage.start(line);
    let web = Web::of(&mut process).await;
    let mut ids = Vec::new();
    for ms in [400, 400, 400, 1] {
        let job = format!("{{\"kind\":\"sleep\",\"args\":{{\"ms\":{ms}}},\"store_result\":true}}");
        ids.push(web.post("/v1/jobs", &[JSON], job).await.expect(202).json()["id"].as_str().unwrap().to_owned());
    }
    process.signal("TERM");
    process.wait().await.expect(0).says(&["draining"]);

    let mut process = stage.start(line);
    let web = Web::of(&mut process).await;
    for id in ids {
        let outcome = web.outcome(&id).await;
        assert_eq!((&outcome["state"], &outcome["attempts"]), (&"completed".into(), &1.into()), "{outcome}");
    }
    process.signal("INT");
    process.wait().await.expect(0);
}

#[tokio::test]
async fn enqueueing_that_is_stopped_says_how_far_it_came() {
    use tokio::io::AsyncWriteExt;
    let server = TestServer::start(ServerOptions::new());
    let stage = Stage::new();
    let mut process = stage.start_piped(&format!("enqueue - -o json --broker {}", server.url()));
    let mut stdin = process.stdin();
    stdin.write_all(b"{\"kind\":\"noop\",\"args\":1}\n").await.unwrap();
    // A pause in the input does not hold up what came before it.
    let eye = until("the layout", async || {
        let options = wf_nats::NatsOptions::new([server.url()]).unwrap();
        wf_nats::NatsBroker::connect(options).await.ok()
    })
    .await;
    until("the job on the stream", async || (look(&*eye, "default.normal").await.pending == 1).then_some(())).await;
    process.signal("TERM");
    let ended = process.wait().await.expect(1);
    assert_eq!((&ended.summary()["enqueued"], &ended.summary()["interrupted"]), (&1.into(), &true.into()));
}

/// Two executors in turn, at a distance and under load: what the first leaves, the second has at once. The lease is far
/// longer than the test, so that nothing is only had back because a lease was over.
#[tokio::test]
async fn an_executor_that_stops_leaves_nothing_to_its_lease() {
    for (rtt, rounds) in [(Duration::from_millis(100), 3), (Duration::ZERO, 3)] {
        let server = TestServer::start(ServerOptions::new());
        let link = DelayProxy::start(server.address(), rtt / 2);
        let stage = Stage::with("[factory]\nlease = \"10 min\"\ndedup_window = \"20 min\"\n");
        stage.run(&format!("broker setup --broker {}", server.url())).await.expect(0);
        let eye = connect(&server).await;
        for _ in 0..rounds {
            let mut first = stage.start(&format!("executor --broker {}", link.url()));
            first.says("running jobs").await;
            let stop = Arc::new(AtomicBool::new(false));
            let publishing = tokio::spawn(keep_publishing(eye.clone(), stop.clone()));
            until("deliveries", async || (look(&*eye, "default.normal").await.in_flight >= 3).then_some(())).await;
            tokio::time::sleep(rtt * 3).await;
            first.signal("TERM");
            let ended = first.wait().await.expect(0);
            ended.says(&["abandoned=0", "unstopped=0", "confirmed=true"]);
            stop.store(true, Ordering::Relaxed);
            publishing.await.unwrap();
            let mut second = stage.start(&format!("executor --broker {}", server.url()));
            until("the lane to be empty", async || {
                let stats = look(&*eye, "default.normal").await;
                (stats.pending + stats.in_flight == 0).then_some(())
            })
            .await;
            second.signal("TERM");
            second.wait().await.expect(0);
        }
    }
}

/// One message of one short job after the other, so that some are always on their way.
async fn keep_publishing(broker: Arc<dyn Broker>, stop: Arc<AtomicBool>) {
    let lane = "default.normal".parse::<Lane>().unwrap();
    while !stop.load(Ordering::Relaxed) {
        let (id, bytes) = (BatchId::new().to_string().into(), "{\"kind\":\"sleep\",\"args\":{\"ms\":3}}".into());
        broker.publish(Message { lane: lane.clone(), id, bytes }).await.unwrap();
    }
}
