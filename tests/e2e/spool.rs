//! The broker goes, `wf ingest` goes, and what was accepted arrives: real servers and processes, killed and cut off.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use futures::future::join_all;
use serde_json::json;
use wf_broker::Broker;
use wf_nats::testing::{DelayProxy, ServerOptions, TestServer, Way};
use wf_schema::config::Loader;
use wf_schema::{Batch, Limits};
use work_factory::{Factory, Job, Registry, stock};

use crate::support::{JSON, PATIENCE, Process, Reply, Stage, Web, connect, lane, until};

const INGEST: &str = "ingest --listen 127.0.0.1:0 --ingest-spool spool --ingest-unreachable-after 300ms";

fn start(stage: &Stage, url: &str) -> Process {
    stage.start(&format!("{INGEST} --broker {url}"))
}

fn server() -> TestServer {
    TestServer::start(ServerOptions::new().sync_always(true))
}

async fn post(web: &Web, n: u64) -> Reply {
    web.post("/v1/jobs", &[JSON], format!(r#"{{"kind":"echo","args":{n}}}"#)).await
}

async fn post_expecting(web: &Web, n: u64, stored: &str) -> String {
    let reply = post(web, n).await.expect(202).json();
    assert_eq!(reply["stored"], stored, "{reply}");
    reply["id"].as_str().unwrap().to_owned()
}

/// Waits until the spool is empty and the broker is there.
async fn shipped(web: &Web) {
    until("an empty spool", async || {
        let ready = web.get("/readyz").await.json();
        (ready["broker"] != "unreachable" && ready["spool"]["jobs"] == 0).then_some(())
    })
    .await;
}

/// Takes all jobs out of the default lane: how often each id is there, with its args.
async fn drain(broker: Arc<dyn Broker>, count: usize) -> BTreeMap<(String, String), usize> {
    let mut source = broker.lane(lane("default.normal")).await.unwrap();
    source.grant(100_000, 40 << 20);
    let mut found: BTreeMap<_, usize> = BTreeMap::new();
    let mut take = async |patience| {
        while let Ok(Ok(delivery)) = tokio::time::timeout(patience, source.next()).await {
            for job in Batch::decode(&delivery.bytes, &Limits::default()).unwrap().iter() {
                let args = String::from_utf8(job.args().to_vec()).unwrap();
                *found.entry((job.id().to_string(), args)).or_default() += 1;
            }
            delivery.lease.ack(None);
            if found.len() >= count {
                break;
            }
        }
    };
    take(Duration::from_secs(60)).await;
    // Nor is there anything beside them.
    take(Duration::from_millis(500)).await;
    found
}

fn assert_once(found: &BTreeMap<(String, String), usize>, accepted: &BTreeMap<(String, String), ()>) {
    assert!(found.keys().eq(accepted.keys()), "{} arrived, {} were accepted", found.len(), accepted.len());
    assert!(found.values().all(|times| *times == 1), "some arrived twice");
}

#[tokio::test]
async fn every_job_that_was_accepted_arrives_once_through_restarts_of_the_broker() {
    let mut server = server();
    let stage = Stage::new();
    let mut ingest = start(&stage, &server.url());
    let web = Web::of(&mut ingest).await;
    let (stop, spooled) = (Arc::new(AtomicBool::new(false)), Arc::new(tokio::sync::Notify::new()));
    let posting = (0..8_u64).map(|caller| {
        let (web, stop, spooled) = (web.clone(), stop.clone(), spooled.clone());
        tokio::spawn(async move {
            let mut accepted = BTreeMap::new();
            let mut n = caller;
            while !stop.load(SeqCst) {
                let reply = post(&web, n).await.expect(202).json();
                if reply["stored"] == "spool" {
                    spooled.notify_one();
                }
                accepted.insert((reply["id"].as_str().unwrap().to_owned(), n.to_string()), ());
                n += 8;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            accepted
        })
    });
    let posting: Vec<_> = posting.collect();
    for _ in 0..2 {
        server.kill();
        for _ in 0..50 {
            spooled.notified().await;
        }
        server.restart();
        until("the broker's return", async || (web.get("/readyz").await.json()["broker"] != "unreachable").then_some(())).await;
    }
    stop.store(true, SeqCst);
    let accepted: BTreeMap<_, _> = join_all(posting).await.into_iter().flat_map(Result::unwrap).collect();
    shipped(&web).await;
    assert!(accepted.len() > 100);
    assert_once(&drain(connect(&server).await, accepted.len()).await, &accepted);
    ingest.signal("TERM");
    ingest.wait().await.expect(0);
}

#[tokio::test]
async fn a_spool_outlives_its_process_and_serves_one_at_a_time() {
    let mut server = server();
    let stage = Stage::new();
    let mut ingest = start(&stage, &server.url());
    let web = Web::of(&mut ingest).await;
    server.kill();
    let mut accepted = BTreeMap::new();
    for n in 0..50 {
        accepted.insert((post_expecting(&web, n, "spool").await, n.to_string()), ());
    }
    server.restart();
    // Another cannot have it meanwhile.
    let ended = start(&stage, &server.url()).wait().await.expect(1);
    ended.says(&["spool", "in use", &ingest.id().to_string()]);
    ingest.kill().await;
    let mut again = start(&stage, &server.url());
    let web = Web::of(&mut again).await;
    shipped(&web).await;
    accepted.insert((post_expecting(&web, 50, "broker").await, "50".to_owned()), ());
    assert_once(&drain(connect(&server).await, accepted.len()).await, &accepted);
}

#[tokio::test]
async fn a_cut_link_fills_the_spool_and_a_full_one_is_507() {
    let server = server();
    let link = DelayProxy::start(server.address(), Duration::ZERO);
    let stage = Stage::new();
    let mut ingest = stage.start(&format!("{INGEST} --ingest-spool-bytes 1MiB --broker {}", link.url()));
    let web = Web::of(&mut ingest).await;
    // Held, not cut: nothing tells either side.
    link.hold(Way::Up);
    let noise: String = (0..50_000).map(|_| fastrand::alphanumeric()).collect();
    let job = format!(r#"{{"kind":"echo","args":"{noise}"}}"#);
    let mut accepted = 0;
    let refused = loop {
        let reply = web.post("/v1/jobs", &[JSON], job.clone()).await;
        if reply.status != 202 {
            break reply;
        }
        accepted += 1;
    };
    assert!(accepted > 10);
    let refused = refused.problem(507, &["spool-full", "jobs wait for the broker"]);
    assert!(refused.header("retry-after").is_some());
    link.resume(Way::Up);
    shipped(&web).await;
    let found = drain(connect(&server).await, accepted).await;
    assert_eq!((found.len(), found.values().sum::<usize>()), (accepted, accepted));
    assert_eq!(post(&web, 1).await.expect(202).json()["stored"], "broker");
}

/// What `wf ingest` says of itself while the broker is away.
async fn unreachable(web: &Web, why: &str) {
    let ready = web.get("/readyz").await.expect(200).json();
    assert_eq!((&ready["status"], &ready["broker"]), (&json!("ok"), &json!("unreachable")), "{ready}");
    assert!(ready["why"].as_str().unwrap().contains(why), "{ready}");
}

#[tokio::test]
async fn it_starts_without_a_broker_also_over_a_spool_of_an_earlier_life() {
    let mut server = server();
    server.kill();
    let stage = Stage::new();
    let mut ingest =
        stage.start(&format!("{INGEST} --broker-connect-timeout 1s --broker-connect-deadline 1s --broker {}", server.url()));
    let web = Web::of(&mut ingest).await;
    let mut accepted = BTreeMap::new();
    for n in 0..20 {
        accepted.insert((post_expecting(&web, n, "spool").await, n.to_string()), ());
    }
    // Whoever asks what became of one is told that this is not known now.
    let (id, _) = accepted.keys().next().unwrap();
    web.get(&format!("/v1/jobs/{id}")).await.problem(503, &["broker-unreachable"]);
    until("the first search to end", async || {
        web.get("/readyz").await.json()["why"].as_str().unwrap().contains("no broker could be reached").then_some(())
    })
    .await;
    assert!(ingest.stderr().contains("the broker is not there yet"), "{}", ingest.stderr());
    ingest.kill().await;

    // Nor is it there in the next life. A factory that was never set up is, once there is a server.
    let mut again = start(&stage, &server.url());
    let web = Web::of(&mut again).await;
    for n in 20..30 {
        accepted.insert((post_expecting(&web, n, "spool").await, n.to_string()), ());
    }
    assert_eq!(web.get("/readyz").await.json()["spool"]["jobs"], 30);
    server.restart();
    shipped(&web).await;
    accepted.insert((post_expecting(&web, 30, "broker").await, "30".to_owned()), ());
    assert_once(&drain(connect(&server).await, accepted.len()).await, &accepted);
    again.signal("TERM");
    again.wait().await.expect(0);
    // What the broker takes is known from now on.
    assert!(std::fs::read_to_string(stage.path("spool/broker.json")).unwrap().contains("max_message"));
}

#[tokio::test]
async fn a_broker_that_refuses_ends_it_at_the_start_and_is_told_of_later() {
    let login = "authorization { user: ingest, password: right }";
    let mut server = TestServer::start(ServerOptions::new().config(login));
    let url = server.url().replace("nats://", "nats://ingest:wrong@");
    let stage = Stage::new();
    start(&stage, &url).wait().await.expect(3).says(&["refused the login"]);

    // At the start is also when the broker comes a little later.
    server.kill();
    let mut early = start(&stage, &url);
    post_expecting(&Web::of(&mut early).await, 0, "spool").await;
    let mut late = stage.start(&format!(
        "ingest --listen 127.0.0.1:0 --ingest-spool other --ingest-unreachable-after 300ms --broker-connect-timeout 100ms --broker-connect-deadline 100ms --broker {url}"
    ));
    let web = Web::of(&mut late).await;
    until("its deadline to pass", async || {
        web.get("/readyz").await.json()["why"].as_str().unwrap().contains("no broker could be reached").then_some(())
    })
    .await;
    server.restart();
    early.wait().await.expect(3).says(&["refused the login"]);
    // Who has gone on takes jobs, and says what is wrong.
    late.says("the broker refuses").await;
    unreachable(&web, "refused the login").await;
    post_expecting(&web, 1, "spool").await;
    late.signal("TERM");
    late.wait().await.expect(0);
}

#[tokio::test]
async fn a_program_that_starts_without_a_broker_enqueues_and_runs_jobs_when_it_comes() {
    let mut server = server();
    server.kill();
    let stage = Stage::new();
    let spool = stage.path("spool").display().to_string();
    let url = server.url();
    let flags = [("broker.url", &*url), ("ingest.spool", &*spool), ("ingest.unreachable_after", "300ms")];
    let factory = Factory::load(&Loader::new().flags(flags)).await.unwrap();
    let executor = factory.executor(stock::register(Registry::new())).unwrap();
    let producer = factory.producer();
    let ids = join_all((0..20).map(|n| producer.enqueue(Job::new("echo", &n).unwrap().store_result()))).await;
    assert_eq!(producer.stats().spool.unwrap().jobs, 20);
    server.restart();
    for (n, id) in ids.into_iter().enumerate() {
        let outcome = until("an outcome", async || factory.outcome(*id.as_ref().unwrap(), PATIENCE).await.ok().flatten()).await;
        assert_eq!((outcome.attempts, outcome.result.as_deref()), (1, Some(n.to_string().as_bytes())), "{outcome}");
    }
    producer.close().await.unwrap();
    assert!(executor.drain(None).await.confirmed);
    factory.close().await.unwrap();
}

/// Copies the files of a spool.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (entry, kind) = entry.map(|entry| (entry.path(), entry.file_type().unwrap())).unwrap();
        let target = to.join(entry.file_name().unwrap());
        if kind.is_dir() {
            copy(&entry, &target);
        } else {
            std::fs::copy(&entry, &target).unwrap();
        }
    }
}

#[tokio::test]
async fn what_was_shipped_and_comes_back_from_a_backup_is_known_to_the_broker() {
    let mut server = server();
    let stage = Stage::new();
    let mut ingest = start(&stage, &server.url());
    let web = Web::of(&mut ingest).await;
    server.kill();
    let mut accepted = BTreeMap::new();
    for n in 0..20 {
        accepted.insert((post_expecting(&web, n, "spool").await, n.to_string()), ());
    }
    copy(&stage.path("spool"), &stage.path("backup"));
    server.restart();
    shipped(&web).await;
    ingest.signal("TERM");
    ingest.wait().await.expect(0);
    // As if the process had died after it had sent everything, and before it had noted a single answer.
    std::fs::remove_dir_all(stage.path("spool")).unwrap();
    std::fs::rename(stage.path("backup"), stage.path("spool")).unwrap();
    let mut again = start(&stage, &server.url());
    shipped(&Web::of(&mut again).await).await;
    assert_once(&drain(connect(&server).await, accepted.len()).await, &accepted);
}

/// Far more than the broker takes, for it takes nothing: memory is bounded, callers are told, and it recovers by itself.
#[tokio::test]
async fn an_overload_is_refused_in_bounded_memory_and_passes() {
    let server = server();
    let link = DelayProxy::start(server.address(), Duration::ZERO);
    let stage = Stage::new();
    let small = "--publish-window-bytes 1MiB --batch-wire-bytes 64KiB --ingest-body-memory 32MiB --ingest-room-timeout 300ms";
    let mut ingest =
        stage.start(&format!("ingest --listen 127.0.0.1:0 --ingest-unreachable-after 2s {small} --broker {}", link.url()));
    let web = Web::of(&mut ingest).await;
    let noise: String = (0..200_000).map(|_| fastrand::alphanumeric()).collect();
    let job: Arc<str> = format!(r#"{{"kind":"echo","args":"{noise}"}}"#).into();
    link.hold(Way::Down);
    let callers = (0..200).map(|_| {
        let (web, job) = (web.clone(), job.clone());
        tokio::spawn(async move {
            let mut refused = 0;
            // 400 MB in all.
            for _ in 0..10 {
                let reply = web.post("/v1/jobs", &[JSON], job.to_string()).await;
                match reply.status {
                    202 => {}
                    429 | 503 => {
                        assert!(reply.header("retry-after").is_some(), "{reply:?}");
                        refused += 1;
                    }
                    other => panic!("{other}: {reply:?}"),
                }
            }
            refused
        })
    });
    let refused: usize = join_all(callers).await.into_iter().map(Result::unwrap).sum();
    assert!(refused > 1_000, "{refused}");
    let peak = ingest.peak_memory().unwrap() >> 20;
    assert!(peak < 250, "{peak} MiB");
    link.resume(Way::Down);
    until("recovery", async || (post(&web, 1).await.status == 202).then_some(())).await;
}
