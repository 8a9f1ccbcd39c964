//! The settings that a profile tunes, seen on the wire: each does what it says, and bytes bind.

use std::fmt::Write as _;
use std::time::Duration;

use futures::FutureExt as _;
use serde_json::json;
use tokio::net::TcpListener;
use wf_nats::testing::{DelayProxy, ServerOptions, TestServer, Way};

use crate::support::{Ended, JSON, Process, Stage, Tap, Traffic, Web, connect, look, sleeps, until};

const KIB: u64 = 1 << 10;

/// A factory at a distance, with a tap at the node's end.
struct Site {
    stage: Stage,
    server: TestServer,
    link: DelayProxy,
    tap: Tap,
}

impl Site {
    async fn at(one_way: Duration) -> Self {
        let server = TestServer::start(ServerOptions::new());
        let link = DelayProxy::start(server.address(), one_way);
        let stage = Stage::new();
        stage.run(&format!("broker setup --broker {}", server.url())).await.expect(0);
        let tap = Tap::on(link.address()).await;
        Self { stage, server, link, tap }
    }

    fn start(&self, line: &str) -> Process {
        self.stage.start(&format!("{line} --broker {}", self.tap.url()))
    }

    async fn run(&self, line: &str) -> Ended {
        self.start(line).wait().await.expect(0)
    }

    /// Traffic of `line`, from its start to its end.
    async fn traffic_of(&mut self, line: &str) -> Traffic {
        self.tap = Tap::on(self.link.address()).await;
        self.run(line).await;
        self.tap.traffic()
    }
}

/// Jobs whose args cannot be compressed by much.
fn noise(jobs: usize, bytes: usize) -> String {
    (0..jobs).fold(String::new(), |mut lines, _| {
        let noise: String = (0..bytes).map(|_| fastrand::alphanumeric()).collect();
        let _ = writeln!(lines, r#"{{"kind":"echo","args":"{noise}"}}"#);
        lines
    })
}

/// `publish.window_bytes`, `publish.window_messages`, `batch.wire_bytes`, `batch.raw_bytes`, `batch.jobs`: 1.5 MB of jobs
/// over a link on which nothing is answered for a while.
#[tokio::test]
async fn a_window_is_bound_by_bytes_and_then_by_messages() {
    let mut site = Site::at(Duration::from_millis(25)).await;
    site.stage.file("jobs.ndjson", noise(300, 5_000));

    let enqueue = "enqueue jobs.ndjson --batch-wire-bytes 8KiB --publish-window-messages 5000";
    let traffic = site.traffic_of(&format!("{enqueue} --publish-window-bytes 256KiB")).await;
    let (most, largest) = (traffic.unanswered.most_bytes, traffic.largest);
    assert!((128 * KIB..=256 * KIB).contains(&most), "{most} bytes were on their way, in batches of {largest}");
    // The size on the wire is aimed at from four times as much before compression, and noise is hardly compressed.
    assert!(largest <= 33 * KIB, "a batch of {largest} bytes");
    let twice = site.traffic_of(&format!("{enqueue} --publish-window-bytes 512KiB")).await.unanswered.most_bytes;
    assert!((most + 1..=512 * KIB).contains(&twice), "{most} and then {twice} bytes were on their way");

    let traffic = site.traffic_of("enqueue jobs.ndjson --batch-wire-bytes 8KiB --publish-window-messages 3").await;
    assert_eq!(traffic.unanswered.most, 3);

    let larger = site.traffic_of("enqueue jobs.ndjson --batch-wire-bytes 16KiB").await.largest;
    assert!((33 * KIB..=66 * KIB).contains(&larger), "a batch of {larger} bytes");
    let raw =
        site.traffic_of("enqueue jobs.ndjson --batch-raw-bytes 20KiB --batch-wire-bytes 16KiB --ingest-args-limit 10KiB").await;
    assert!(raw.largest <= 21 * KIB, "a batch of {} bytes", raw.largest);
    let few = site.traffic_of("enqueue jobs.ndjson --batch-jobs 2").await;
    assert!((150..155).contains(&few.jobs), "{} batches of two", few.jobs);
}

/// `prefetch.bytes` and `prefetch.work`.
#[tokio::test]
async fn a_node_fetches_ahead_so_many_bytes_and_so_much_work() {
    /// The most that was delivered and not settled, of `jobs` in batches of one, `delay` away each way.
    async fn unsettled(jobs: &str, delay: Duration, prefetch: &str) -> (u64, usize) {
        let site = Site::at(delay).await;
        site.stage.file("jobs.ndjson", jobs);
        site.run("enqueue jobs.ndjson --batch-jobs 1").await;
        let mut executor = site.start(&format!("executor --concurrency 1 {prefetch}"));
        let eye = connect(&site.server).await;
        until("all to be settled", async || {
            assert!(executor.is_running());
            let stats = look(&*eye, "default.normal").await;
            (stats.pending + stats.in_flight == 0).then_some(())
        })
        .await;
        executor.signal("TERM");
        executor.wait().await.expect(0);
        let unsettled = site.tap.traffic().unsettled;
        (unsettled.most_bytes, unsettled.most)
    }
    let (noise, near) = (noise(120, 12_000), Duration::from_millis(10));
    let few = unsettled(&noise, near, "--prefetch-bytes 128KiB").await;
    let many = unsettled(&noise, near, "--prefetch-bytes 16MiB").await;
    assert!(few.0 <= 128 * KIB && many.0 > 4 * few.0, "{few:?}, {many:?}");

    // What is known of their work comes with the first that are done; until then a few are fetched. Two round trips are
    // covered if the work allows it: 16 jobs.
    let (sleeps, far) = (sleeps(60, 10, ""), Duration::from_millis(40));
    let few = unsettled(&sleeps, far, "--prefetch-work 30ms").await;
    let many = unsettled(&sleeps, far, "--prefetch-work 1min").await;
    assert!(few.1 <= 8 && many.1 > 2 * few.1, "{few:?}, {many:?}");
}

/// `broker.connections`, `broker.ping_interval`, `pull.expires`, `pull.heartbeat`.
#[tokio::test]
async fn an_executor_connects_pings_and_pulls_as_it_is_told() {
    let site = Site::at(Duration::ZERO).await;
    let settings = "--broker-connections 3 --broker-ping-interval 100ms --pull-expires 7s --pull-heartbeat 1500ms";
    let mut executor = site.start(&format!("executor {settings}"));
    executor.says("running jobs").await;
    let pull = until("a pull", async || site.tap.traffic().pull).await;
    assert_eq!((&pull["expires"], &pull["idle_heartbeat"]), (&json!(7_000_000_000_u64), &json!(1_500_000_000)), "{pull}");
    assert_eq!(site.tap.traffic().connections, 6, "three to publish over, and three to consume over");
    // Each says PING once as it connects; nobody would say it again for a minute.
    until("pings", async || (site.tap.traffic().pings >= 20).then_some(())).await;
    executor.signal("TERM");
    executor.wait().await.expect(0);
}

/// `broker.request_timeout`: what is not answered in time is sent again, under the same id.
#[tokio::test]
async fn a_request_without_an_answer_is_given_up_in_time() {
    let site = Site::at(Duration::ZERO).await;
    let mut ingest = site.start("ingest --listen 127.0.0.1:0 --broker-request-timeout 200ms --broker-ping-interval 1min --factory-lease 1h --factory-dedup-window 2h");
    let web = Web::of(&mut ingest).await;
    site.link.hold(Way::Down);
    let asking = tokio::spawn(async move { web.post("/v1/jobs", &[JSON], r#"{"kind":"noop","args":null}"#).await });
    // A second silence in a row, and the connection is made anew: it is not waited for.
    until("the job to be sent again", async || (site.tap.traffic().jobs >= 2).then_some(())).await;
    site.link.resume(Way::Down);
    asking.await.unwrap().expect(202);
    let eye = connect(&site.server).await;
    assert_eq!(look(&*eye, "default.normal").await.pending, 1);
    ingest.signal("TERM");
    ingest.wait().await.expect(0);
}

/// `ingest.store_timeout`: how long jobs are tried again whose broker goes away while they are on their way.
#[tokio::test]
async fn jobs_on_their_way_are_tried_for_so_long() {
    for (store_timeout, tries) in [("0s", 1..=1), ("3s", 2..=30)] {
        let site = Site::at(Duration::ZERO).await;
        let mut ingest = site.start(&format!(
            "ingest --listen 127.0.0.1:0 --ingest-store-timeout {store_timeout} --ingest-unreachable-after 5min --broker-request-timeout 200ms --broker-ping-interval 1min --factory-lease 1h --factory-dedup-window 2h"
        ));
        let web = Web::of(&mut ingest).await;
        site.link.hold(Way::Down);
        let reply = web.post("/v1/jobs", &[JSON], r#"{"kind":"noop","args":null}"#).await;
        reply.problem(503, &["unconfirmed", "is not known"]);
        let tried = site.tap.traffic().jobs;
        assert!(tries.contains(&tried), "it was sent {tried} times in {store_timeout}");
        site.link.resume(Way::Down);
        // It was stored, and would have been by each of them: that is why nobody may say that it was not.
        let eye = connect(&site.server).await;
        assert_eq!(look(&*eye, "default.normal").await.pending, 1);
        ingest.signal("TERM");
        ingest.wait().await.expect(0);
    }
}

/// `broker.connect_timeout`, of one attempt, and `broker.connect_deadline`, of all of them.
#[tokio::test]
async fn an_attempt_to_connect_is_given_up_in_time() {
    for (timeout, attempts) in [("100ms", 2..=9), ("1s", 1..=1)] {
        // Takes connections, and never says a word.
        let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let settings = format!("--broker-connect-timeout {timeout} --broker-connect-deadline 1s");
        let line = format!("executor --broker nats://{} {settings}", mute.local_addr().unwrap());
        Stage::new().run(&line).await.expect(3).says(&["no answer within"]);
        let mut made = 0;
        while mute.accept().now_or_never().is_some() {
            made += 1;
        }
        assert!(attempts.contains(&made), "{made} attempts of {timeout} each");
    }
}

/// `batch.linger`: while a batch is on its way, jobs gather for others to travel with, for so long.
#[tokio::test]
async fn jobs_linger_for_others_to_travel_with() {
    for (linger, batches) in [("0s", 13..=13), ("1s", 2..=8)] {
        let site = Site::at(Duration::ZERO).await;
        let mut ingest = site.start(&format!("ingest --listen 127.0.0.1:0 --batch-linger {linger}"));
        let web = Web::of(&mut ingest).await;
        let job = r#"{"kind":"noop","args":null}"#;
        let early = ("prefer", "respond-async");
        // While one is on its way, for nothing is answered.
        site.link.hold(Way::Down);
        for sent in 1..=13 {
            web.post("/v1/jobs", &[JSON, early], job).await.expect(202);
            if sent == 1 || linger == "0s" {
                until("it to be sent", async || (site.tap.traffic().jobs >= sent).then_some(())).await;
            }
        }
        until("all to be sent", async || (site.tap.traffic().jobs >= *batches.start()).then_some(())).await;
        site.link.resume(Way::Down);
        ingest.signal("TERM");
        ingest.wait().await.expect(0);
        let sent = site.tap.traffic().jobs;
        assert!(batches.contains(&sent), "{sent} batches with a linger of {linger}");
    }
}

/// Of two connections, the one that has less to do takes the next batch: nothing waits behind a large one.
#[tokio::test]
async fn a_large_batch_on_one_connection_holds_nothing_up_on_the_other() {
    let site = Site::at(Duration::ZERO).await;
    let mut ingest = site.start("ingest --listen 127.0.0.1:0 --broker-connections 2");
    let web = Web::of(&mut ingest).await;
    site.link.hold(Way::Down);
    let early = ("prefer", "respond-async");
    let post = |queue: usize, bytes: usize| {
        let noise: String = (0..bytes).map(|_| fastrand::alphanumeric()).collect();
        let job = format!(r#"{{"kind":"echo","args":"{noise}","queue":"q{queue}"}}"#);
        let web = web.clone();
        async move { web.post("/v1/jobs", &[JSON, early], job).await.expect(202) }
    };
    // Each lane's first batch leaves at once. One large, and ten that are small.
    post(0, 200_000).await;
    until("the large one", async || (site.tap.traffic().jobs == 1).then_some(())).await;
    for queue in 1..=10 {
        post(queue, 1_000).await;
    }
    until("all of them", async || (site.tap.traffic().jobs == 11).then_some(())).await;
    let mut spread = site.tap.traffic().job_bytes;
    spread.retain(|bytes| *bytes > 0);
    spread.sort_unstable();
    assert_eq!(spread.len(), 2, "{spread:?}");
    // With turns, each would have five of the small ones.
    assert!((7_000..=12_000).contains(&spread[0]), "{spread:?}");
    site.link.resume(Way::Down);
    ingest.signal("TERM");
    ingest.wait().await.expect(0);
}
