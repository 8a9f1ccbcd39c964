//! Slow jobs are spread over all executors that have nothing to do, over JetStream.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::future::join_all;
use wf_broker::{Key, KeyedRecords as _, OutcomeLog as _};
use wf_nats::testing::{DelayProxy, ServerOptions, TestServer};
use wf_schema::config::Loader;
use wf_schema::{JobId, Limits, Record, RunTimes, State};
use work_factory::{Executor, ExecutorStats, Factory, Job, Registry, stock};

use crate::support::{Heard, NDJSON, Process, Stage, Tap, Web, connect, look, outcomes_of, sleeps, until};

/// One message of a thousand slow jobs, of a kind that nobody has run before, comes to one of four executors that are
/// `delay` away from the server each way: it takes all of them.
async fn all_have_a_share_of_one_batch(delay: Duration, profile: &str) {
    const JOBS: u64 = 1_000;
    let server = TestServer::start(ServerOptions::new());
    let link = DelayProxy::start(server.address(), delay);
    let stage = Stage::new();
    let near = format!("--broker {}", server.url());
    stage.run(&format!("broker setup {near}")).await.expect(0);
    let start = |_| stage.start(&format!("executor --broker {} --profile {profile} --concurrency 50", link.url()));
    let mut executors: [Process; 4] = std::array::from_fn(start);
    let eye = connect(&server).await;
    until("all to wait for work", async || (look(&*eye, "default.normal").await.waiting >= 4).then_some(())).await;

    let heard = Heard::listen(eye.clone()).await;
    stage.file("jobs.ndjson", sleeps(JOBS, 100, ",\"store_result\":true"));
    stage.run(&format!("enqueue jobs.ndjson {near}")).await.expect(0);
    let found = until("all outcomes", async || {
        let found = outcomes_of(&*eye, &heard.batches()).await;
        (found.len() as u64 >= JOBS).then_some(found)
    })
    .await;
    assert_eq!(heard.batches().len(), 1, "it is one batch");
    assert!(found.values().all(|told| told == "sleep completed 1 null"), "each ran once, at its first attempt");

    let mut shares: BTreeMap<String, usize> = BTreeMap::new();
    for batch in heard.batches() {
        for logged in eye.read(batch).await.unwrap() {
            let record = Record::decode(&logged.bytes, &Limits::default()).unwrap();
            let ended = record.iter().filter(|outcome| outcome.state().is_final()).count();
            *shares.entry(record.header().executor.clone()).or_default() += ended;
        }
    }
    eprintln!("{shares:?}");
    assert!(shares.len() == 4 && shares.values().all(|share| *share > 0), "{shares:?}");
    until("the lane to be empty", async || {
        let stats = look(&*eye, "default.normal").await;
        (stats.pending + stats.in_flight == 0).then_some(())
    })
    .await;
    for executor in &mut executors {
        executor.signal("TERM");
        executor.wait().await.expect(0);
    }
}

#[tokio::test]
async fn one_batch_of_slow_jobs_takes_all_who_wait() {
    all_have_a_share_of_one_batch(Duration::ZERO, "local").await;
}

#[tokio::test]
async fn one_batch_of_slow_jobs_takes_all_who_wait_far_away() {
    all_have_a_share_of_one_batch(Duration::from_millis(50), "wan").await;
}

/// How often a message is delivered that is released again and again.
const DELIVERIES: u64 = 6;

/// The nodes have one slot each and more than they can start soon, all of them alike: each would give to the others, which
/// would give it back. What goes round does so only a few times, and each job runs once.
async fn what_all_have_too_much_of_goes_round_only_a_few_times(nodes: Vec<Factory>) {
    const BATCHES: usize = 8;
    const JOBS: usize = 4;
    /// How often a job may be moved.
    const HOPS: usize = 2;
    let sleep = Job::new("sleep", &serde_json::json!({ "ms": 200 })).unwrap().store_result();
    let producer = nodes[0].producer();
    let mut batches = BTreeSet::new();
    for _ in 0..BATCHES {
        // Each is stored before the next begins: a message of its own.
        let ids = producer.enqueue_all(vec![sleep.clone(); JOBS]).await.unwrap();
        batches.extend(ids.iter().map(|ids| ids.batch));
    }
    assert_eq!(batches.len(), BATCHES);
    let start = |node: &Factory| node.executor(stock::register(Registry::new())).unwrap();
    // Of a broker inside the process there is one, for all of them.
    let executors: Vec<Executor> = nodes.iter().cycle().take(3).map(start).collect();
    let eye = nodes[0].broker();
    let found = until("all outcomes", async || {
        let found = outcomes_of(&**eye, &batches).await;
        (found.len() == BATCHES * JOBS).then_some(found)
    })
    .await;
    assert!(found.values().all(|told| told == "sleep completed 1 null"), "each ran once, at its first attempt");

    let (mut moves, mut runs) = (BTreeMap::<JobId, usize>::new(), BTreeSet::new());
    for batch in &batches {
        for logged in eye.read(*batch).await.unwrap() {
            runs.insert(logged.run);
            let record = Record::decode(&logged.bytes, &Limits::default()).unwrap();
            for moved in record.iter().filter(|outcome| outcome.state() == State::Moved) {
                *moves.entry(moved.id()).or_default() += 1;
            }
        }
    }
    assert!(moves.values().all(|moves| *moves <= HOPS), "{moves:?}");
    let stats: Vec<_> = executors.iter().map(Executor::stats).collect();
    let sum = |of: fn(&ExecutorStats) -> u64| stats.iter().map(of).sum::<u64>();
    let (messages, deliveries, handed_on) = (runs.len() as u64, sum(|s| s.deliveries), sum(|s| s.handed_on));
    eprintln!("{messages} messages, {deliveries} deliveries, {handed_on} handed on, {} jobs moved", moves.len());
    assert!(handed_on + sum(|s| s.split) > 0, "they gave nothing away: {stats:?}");
    assert!(deliveries <= DELIVERIES * messages && handed_on < DELIVERIES * messages, "{stats:?}");
    assert_eq!(sum(|s| s.completed), (BATCHES * JOBS) as u64, "no more ran than are on record");
    for executor in &executors {
        assert!(executor.drain(None).await.confirmed);
    }
}

async fn node(url: &str) -> Factory {
    let flags = [("broker.url", url), ("executor.concurrency", "1")];
    Factory::load(&Loader::new().flags(flags)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_all_have_too_much_of_goes_round_only_a_few_times_over_jetstream() {
    let server = TestServer::start(ServerOptions::new());
    let url = server.url();
    node(&url).await.close().await.unwrap();
    let taps = join_all((0..3).map(|_| Tap::on(server.address()))).await;
    let nodes = join_all(taps.iter().map(async |tap| node(&tap.url()).await)).await;
    what_all_have_too_much_of_goes_round_only_a_few_times(nodes).await;
    let most: Vec<_> = taps.iter().map(|tap| tap.traffic().most_delivered).collect();
    eprintln!("delivered at most {most:?} times");
    assert!(most.iter().all(|most| (1..=DELIVERIES).contains(most)), "{most:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_all_have_too_much_of_goes_round_only_a_few_times_in_one_process() {
    what_all_have_too_much_of_goes_round_only_a_few_times(vec![node("memory://").await]).await;
}

/// Once executors have seen how long jobs of a kind run, ingest cuts them into batches of a second.
#[tokio::test]
async fn ingest_cuts_batches_by_what_executors_have_measured() {
    let server = TestServer::start(ServerOptions::new());
    let stage = Stage::new();
    let broker = format!("--broker {}", server.url());
    let mut ingest = stage.start(&format!("ingest --listen 127.0.0.1:0 {broker}"));
    let web = Web::of(&mut ingest).await;
    let mut executor = stage.start(&format!("executor {broker}"));
    web.post("/v1/jobs/batch", &[NDJSON], sleeps(20, 100, "")).await.expect(202);
    let eye = connect(&server).await;
    let key = || Key::new(RunTimes::KEY).unwrap();
    let record = until("the record of run times", async || eye.get(key()).await.unwrap()).await;
    let time = RunTimes::decode(&record.bytes).unwrap().get("sleep").unwrap();
    assert!(time >= Duration::from_millis(100), "{time:?}");
    executor.signal("TERM");
    executor.wait().await.expect(0);

    // Ingest reads it when jobs come, and soon.
    let batches = until("a bulk in batches of a second", async || {
        let reply = web.post("/v1/jobs/batch", &[NDJSON], sleeps(100, 100, "")).await.expect(202).json();
        let rows = reply["ids"].as_array().unwrap();
        let batches: BTreeSet<String> = rows.iter().map(|row| row["batch"].to_string()).collect();
        (batches.len() > 1).then_some(batches)
    })
    .await;
    assert!(batches.len() >= 10, "a hundred jobs of 100 ms in {} batches", batches.len());
}
