//! The embedded broker in a process that dies: by SIGKILL at any moment, and on a disk that takes no more.
//!
//! The process is this test binary once more, running one of the ignored tests below.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use wf_broker::{Broker, BrokerError, Consume, Control, Embedded, EmbeddedOptions, Message, OpenError, Publish};
use wf_schema::Lane;

const FOLDER: &str = "WF_TEST_FOLDER";

fn folder() -> PathBuf {
    std::env::var_os(FOLDER).expect("run by another test").into()
}

/// This binary's ignored test `name`, as a process of its own.
fn process(name: &str, folder: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "--nocapture", name]).env(FOLDER, folder).stdout(Stdio::piped());
    command
}

/// Tells the process that started this one.
fn say(what: &str, id: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("\n{what} {id}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

/// What a process says.
struct Said {
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
    published: HashSet<String>,
    settled: HashSet<String>,
}

impl Said {
    fn by(process: &mut Child) -> Self {
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { lines, published: HashSet::new(), settled: HashSet::new() }
    }

    /// Listens to one more line; whether there was one.
    fn listen(&mut self) -> bool {
        let Some(line) = self.lines.next() else { return false };
        match line.unwrap().split_once(' ') {
            Some(("published", id)) => drop(self.published.insert(id.to_owned())),
            Some(("settled", id)) => drop(self.settled.insert(id.to_owned())),
            _ => {}
        }
        true
    }
}

fn message(id: &str) -> Message {
    // Some are kept in the tree, some beside it.
    let body = format!("{id} {}", "x".repeat(fastrand::usize(0..4000)));
    Message { lane: Lane::default(), id: id.into(), bytes: body.into() }
}

fn id_of(body: &Bytes) -> String {
    std::str::from_utf8(body).unwrap().split(' ').next().unwrap().to_owned()
}

/// All that waits in the lane, without settling it.
async fn drain(broker: &Arc<Embedded>) -> Vec<String> {
    let stats = broker.stats(Lane::default()).await.unwrap();
    let mut source = broker.lane(Lane::default()).await.unwrap();
    source.grant(usize::MAX, usize::MAX);
    let mut ids = Vec::new();
    for _ in 0..stats.pending {
        let delivery = source.next().await.unwrap();
        assert!(delivery.delivered > 1, "after a crash nothing is known to be new");
        ids.push(id_of(&delivery.bytes));
    }
    ids
}

#[test]
#[ignore = "a process that another test starts and kills"]
fn publish_and_settle_for_ever() {
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let broker = Embedded::open(folder(), EmbeddedOptions::default()).unwrap();
        let publishing = (0..4).map(|_| {
            let broker = Arc::clone(&broker);
            tokio::spawn(async move {
                for _ in 0..1_000_000 {
                    let id = wf_schema::BatchId::new().to_string();
                    broker.publish(message(&id)).await.unwrap();
                    say("published", &id);
                }
            })
        });
        let publishing: Vec<_> = publishing.collect();
        let mut source = broker.lane(Lane::default()).await.unwrap();
        loop {
            let mut ids = Vec::new();
            source.grant(10, usize::MAX >> 1);
            for place in 0..10 {
                let delivery = source.next().await.unwrap();
                // Every third is kept, and so has to be there again.
                if place % 3 != 0 {
                    ids.push(id_of(&delivery.bytes));
                    delivery.lease.ack(None);
                }
            }
            broker.settled().await.unwrap();
            ids.iter().for_each(|id| say("settled", id));
            assert!(!publishing.iter().any(tokio::task::JoinHandle::is_finished));
        }
    });
}

#[tokio::test]
async fn killed_at_any_moment_it_keeps_its_word() {
    let home = tempfile::tempdir().unwrap();
    let (mut published, mut settled) = (HashSet::new(), HashSet::new());
    for life in 0..4 {
        let mut process = process("publish_and_settle_for_ever", home.path()).spawn().unwrap();
        let mut said = Said::by(&mut process);
        let enough = fastrand::usize(20..400);
        while said.published.len() < enough {
            assert!(said.listen(), "life {life}: the process ended by itself");
        }
        process.kill().unwrap();
        // What it said before it died counts as well.
        while said.listen() {}
        process.wait().unwrap();
        published.extend(said.published);
        settled.extend(said.settled);

        // Opened at once: the lock of a dead process holds nobody up.
        let broker = Embedded::open(home.path(), EmbeddedOptions::default()).unwrap();
        let there = drain(&broker).await;
        let unique: HashSet<_> = there.iter().cloned().collect();
        assert_eq!(unique.len(), there.len(), "nothing is there twice");
        let lost: Vec<_> = published.iter().filter(|id| !settled.contains(*id) && !unique.contains(*id)).collect();
        // What was acknowledged and not yet said to be settled may be gone or not: at most a round of ten each life.
        assert!(lost.len() <= 7 * (life + 1), "{} of {} are lost: {lost:?}", lost.len(), published.len());
        let back: Vec<_> = settled.iter().filter(|id| unique.contains(*id)).collect();
        assert!(back.is_empty(), "settled, and back: {back:?}");
    }
}

#[test]
#[ignore = "a process that another test starts and kills"]
fn publish_for_ever() {
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let broker = Embedded::open(folder(), EmbeddedOptions::default()).unwrap();
        loop {
            let ids: [String; 16] = std::array::from_fn(|_| wf_schema::BatchId::new().to_string());
            let stored = futures::future::join_all(ids.iter().map(|id| broker.publish(message(id)))).await;
            assert!(stored.iter().all(Result::is_ok));
            ids.iter().for_each(|id| say("published", id));
        }
    });
}

#[tokio::test]
async fn killed_at_any_moment_all_it_answered_is_there() {
    let home = tempfile::tempdir().unwrap();
    let mut published = HashSet::new();
    for _ in 0..3 {
        let mut process = process("publish_for_ever", home.path()).spawn().unwrap();
        let mut said = Said::by(&mut process);
        let enough = fastrand::usize(0..2_000);
        while said.published.len() < enough && said.listen() {}
        process.kill().unwrap();
        while said.listen() {}
        process.wait().unwrap();
        assert!(said.published.len() >= enough);
        published.extend(said.published);

        let broker = Embedded::open(home.path(), EmbeddedOptions::default()).unwrap();
        let there: HashSet<_> = drain(&broker).await.into_iter().collect();
        assert!(published.is_subset(&there));
    }
}

#[test]
#[ignore = "a process that another test starts and kills"]
fn hold_the_folder() {
    let _broker = Embedded::open(folder(), EmbeddedOptions::default()).unwrap();
    say("published", "nothing");
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
fn a_second_process_is_told_who_has_the_folder() {
    let home = tempfile::tempdir().unwrap();
    let mut holder = process("hold_the_folder", home.path()).spawn().unwrap();
    let mut said = Said::by(&mut holder);
    while said.published.is_empty() {
        assert!(said.listen());
    }
    let error = Embedded::open(home.path(), EmbeddedOptions::default()).unwrap_err();
    assert!(matches!(&error, OpenError::InUse { pid: Some(pid), .. } if *pid == holder.id()), "{error:?}");
    let said = format!("{} is in use by another process (pid {})", home.path().display(), holder.id());
    assert_eq!(error.to_string(), said);
    holder.kill().unwrap();
    holder.wait().unwrap();
    Embedded::open(home.path(), EmbeddedOptions::default()).unwrap();
}

/// A disk that is full, for a process: no file of it may grow beyond so many KiB, until it says otherwise.
fn on_a_full_disk(name: &str, folder: &Path, kib: u32) -> Command {
    let process = process(name, folder);
    let arguments = process.get_args().map(|argument| argument.to_str().unwrap()).collect::<Vec<_>>().join(" ");
    let script = format!("trap '' XFSZ; ulimit -S -f {kib}; exec '{}' {arguments}", process.get_program().display());
    let mut command = Command::new("bash");
    command.args(["-c", &script]).env(FOLDER, folder).stdout(Stdio::piped());
    command
}

fn make_room() {
    let limit = getrlimit(Resource::Fsize);
    setrlimit(Resource::Fsize, Rlimit { current: limit.maximum, ..limit }).unwrap();
}

#[test]
#[ignore = "a process that another test starts with little room"]
fn open_with_little_room() {
    let error = Embedded::open(folder(), EmbeddedOptions::default()).unwrap_err();
    assert!(matches!(error, OpenError::NoRoom { .. }), "{error:?}");
    make_room();
    Embedded::open(folder(), EmbeddedOptions::default()).unwrap();
}

#[test]
fn on_a_full_disk_it_does_not_open_and_says_why() {
    let home = tempfile::tempdir().unwrap();
    let opened = on_a_full_disk("open_with_little_room", home.path(), 100).output().unwrap();
    assert!(opened.status.success(), "{}", String::from_utf8_lossy(&opened.stderr));
}

/// Publishes until the system takes no more, then until it does again, and says what was answered.
#[test]
#[ignore = "a process that another test starts with little room"]
fn publish_through_a_full_disk() {
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let broker = Embedded::open(folder(), EmbeddedOptions::default()).unwrap();
        let begun = Instant::now();
        let publish = || async {
            assert!(begun.elapsed() < Duration::from_secs(60), "it takes too long");
            let id = wf_schema::BatchId::new().to_string();
            let bytes = format!("{id} {}", "x".repeat(1_000_000)).into();
            let stored = broker.publish(Message { lane: Lane::default(), id: id.as_str().into(), bytes }).await;
            stored.map(|_| say("published", &id))
        };
        let error = loop {
            if let Err(error) = publish().await {
                break error;
            }
        };
        // Whether the one that failed is stored is not known; that those are not which come after it, is.
        assert!(matches!(error, BrokerError::Retryable { .. }), "{error:?}");
        while let Err(error) = publish().await {
            assert!(matches!(error, BrokerError::NoRoom { .. } | BrokerError::Retryable { .. }), "{error:?}");
            make_room();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        for _ in 0..10 {
            publish().await.unwrap();
        }
        broker.close().await.unwrap();
        say("settled", "the end");
    });
}

#[tokio::test]
async fn a_full_disk_is_waited_out_and_nothing_is_lost() {
    let home = tempfile::tempdir().unwrap();
    // Its journals are made with 64 MiB, and grow a little before they are changed for new ones.
    let mut process = on_a_full_disk("publish_through_a_full_disk", home.path(), 65_600).spawn().unwrap();
    let mut said = Said::by(&mut process);
    while said.listen() {}
    assert!(process.wait().unwrap().success());
    assert!(said.settled.contains("the end"));
    assert!(said.published.len() > 10);

    let broker = Embedded::open(home.path(), EmbeddedOptions::default()).unwrap();
    let there: HashSet<_> = drain(&broker).await.into_iter().collect();
    assert!(said.published.is_subset(&there));
    assert!(there.len() <= said.published.len() + 1, "only of the one that failed it is not known");
}
