//! A backlog: many messages that wait, over a crash, in little memory and in order of arrival.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use bytes::Bytes;
use wf_broker::{Broker, Consume, Control, Embedded, EmbeddedOptions, Message, Publish};
use wf_schema::{Lane, Priority, Queue};

const MESSAGES: usize = 100_000;
const TOGETHER: usize = 1_000;
const FOLDER: &str = "WF_TEST_FOLDER";
const DONE: &str = "published";
const LANES: [Priority; 2] = [Priority::High, Priority::Low];

fn lane(priority: Priority) -> Lane {
    Lane::new(Queue::default(), priority)
}

fn body(place: usize) -> Bytes {
    // Some go into the tree, some beside it.
    let mut body = vec![b'.'; if place.is_multiple_of(2) { 100 } else { 1_000 }];
    body[..8].copy_from_slice(&(place as u64).to_be_bytes());
    body.into()
}

fn place(body: &Bytes) -> usize {
    let mut place = [0; 8];
    place.copy_from_slice(&body[..8]);
    u64::from_be_bytes(place) as usize
}

/// Runs in a process of its own, which the test below starts and kills.
#[test]
#[ignore = "a process that another test starts and kills"]
fn publish_the_backlog() {
    let folder = std::env::var_os(FOLDER).expect("run by another test");
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let broker = Embedded::open(folder, EmbeddedOptions::default()).unwrap();
        for start in (0..MESSAGES).step_by(TOGETHER) {
            let message = |place: usize| Message {
                lane: lane(LANES[place % 2]),
                id: format!("message-{place}").into(),
                bytes: body(place),
            };
            broker.publish_all((start..start + TOGETHER).map(message).collect()).await.unwrap();
        }
        println!("\n{DONE}");
        std::future::pending::<()>().await;
    });
}

/// A folder in which a process has published all, before it was killed.
fn crashed() -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    let mut process = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", "publish_the_backlog"])
        .env(FOLDER, home.path().join("broker"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let done = lines.any(|line| line.unwrap() == DONE);
    process.kill().unwrap();
    process.wait().unwrap();
    assert!(done, "the process ended before it had published all");
    home
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_wait_over_a_crash() {
    let home = tokio::task::spawn_blocking(crashed).await.unwrap();
    let folder = home.path().join("broker");

    let broker = Embedded::open(&folder, EmbeddedOptions::default()).unwrap();
    for (first, priority) in LANES.into_iter().enumerate() {
        assert_eq!(broker.stats(lane(priority)).await.unwrap().pending, MESSAGES as u64 / 2);
        let mut source = broker.lane(lane(priority)).await.unwrap();
        for expected in (first..MESSAGES).step_by(2) {
            source.grant(1, 1_000);
            let delivery = source.next().await.unwrap();
            // No order is promised, but a queue that has one source and no redelivery has no reason to shuffle.
            assert_eq!(place(&delivery.bytes), expected);
            assert_eq!(delivery.bytes, body(expected));
            delivery.lease.ack(None);
        }
    }
    broker.settled().await.unwrap();
    broker.close().await.unwrap();
    drop(broker);

    let broker = Embedded::open(&folder, EmbeddedOptions::default()).unwrap();
    for priority in LANES {
        assert_eq!(broker.stats(lane(priority)).await.unwrap(), wf_broker::LaneStats::default());
    }
}
