//! The broker goes, `wf ingest` goes, and what was accepted arrives: real servers and processes, killed and cut off.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use futures::future::join_all;
use wf_broker::Broker;
use wf_nats::testing::{DelayProxy, ServerOptions, TestServer, Way};
use wf_schema::{Batch, Limits};

use crate::support::{JSON, Process, Reply, Stage, Web, connect, lane, until};

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
            delivery.lease.ack();
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
