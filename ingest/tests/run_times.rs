//! Batches are cut by how long their jobs run, as executors say.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use support::{Fault, Op, Puppet};
use wf_broker::{Broker, Key, KeyedRecords};
use wf_ingest::{MeasuredRunTimes, Producer, RunTimes};
use wf_schema::{Batch, Job, Kind, Limits, RunTime, RunTimes as Record};

const MS: Duration = Duration::from_millis(1);
/// What the broker of the tests takes for a record's time to live.
const DAY: Option<Duration> = Some(Duration::from_secs(24 * 3600));

fn key() -> Key {
    Key::new(Record::KEY).unwrap()
}

fn record(kinds: &[(&str, Duration)]) -> Record {
    let mut record = Record::default();
    for (kind, time) in kinds {
        record.set(Kind::new(kind).unwrap(), RunTime { micros: time.as_micros() as u64, at: 1 });
    }
    record
}

/// Asks as a busy producer does until `kind` is expected to run for `time`. The clock of the test runs by itself.
async fn until_expected(times: &MeasuredRunTimes, kind: &str, time: Duration) {
    while times.expected(kind) != time {
        tokio::time::sleep(MS).await;
    }
}

#[tokio::test(start_paused = true)]
async fn slow_jobs_travel_in_small_batches() {
    let broker = Puppet::new();
    broker.create(key(), record(&[("slow", 100 * MS), ("quick", MS / 10)]).encode(), DAY).await.unwrap();
    let shared: Arc<dyn Broker> = broker.clone();
    let options = support::http::options().measured(&shared);
    let times = options.run_times.clone().unwrap();
    let producer = Producer::new(shared, options);
    while times.expected("slow").is_zero() {
        tokio::time::sleep(MS).await;
    }
    for kind in ["slow", "quick", "unheard_of"] {
        producer.enqueue_all((0..100).map(|n| Job::new(kind, &n).unwrap())).await.unwrap();
    }
    let mut sizes: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for message in broker.messages() {
        let batch = Batch::decode(&message.bytes, &Limits::default()).unwrap();
        sizes.entry(batch.kinds()[0].to_string()).or_default().push(batch.len());
    }
    assert_eq!(sizes["slow"], [10; 10], "a second of work each");
    assert_eq!((&sizes["quick"][..], &sizes["unheard_of"][..]), (&[100][..], &[100][..]));
}

#[tokio::test(start_paused = true)]
async fn what_executors_say_is_followed_while_jobs_are_taken() {
    let broker = Puppet::new();
    let times = MeasuredRunTimes::follow(broker.clone());
    until_expected(&times, "slow", Duration::ZERO).await;
    let first = broker.create(key(), record(&[("slow", 100 * MS)]).encode(), DAY).await.unwrap();
    until_expected(&times, "slow", 100 * MS).await;
    // What cannot be read for a while is taken to be as it was.
    broker.set_away(true);
    tokio::time::sleep(60_000 * MS).await;
    assert_eq!(times.expected("slow"), 100 * MS);
    let (now, slower) = (tokio::time::Instant::now(), record(&[("slow", 300 * MS)]).encode());
    broker.set_away(false);
    let second = broker.update(key(), first, slower, DAY).await.unwrap();
    until_expected(&times, "slow", 300 * MS).await;
    assert!(now.elapsed() < 60_000 * MS, "it was followed after {:?}", now.elapsed());
    // What is no record says nothing.
    let third = broker.update(key(), second, "{".into(), DAY).await.unwrap();
    until_expected(&times, "slow", Duration::ZERO).await;
    broker.delete(key(), third).await.unwrap();

    // Nobody asks, so nobody reads.
    tokio::time::sleep(10_000 * MS).await;
    let reads = broker.calls(Op::Get);
    tokio::time::sleep(3_600_000 * MS).await;
    assert_eq!(broker.calls(Op::Get), reads);
    times.expected("slow");
    tokio::time::sleep(10_000 * MS).await;
    assert_eq!(broker.calls(Op::Get), reads + 1);
}

#[tokio::test(start_paused = true)]
async fn who_may_not_know_expects_nothing() {
    let broker = Puppet::new();
    broker.create(key(), record(&[("slow", 100 * MS)]).encode(), DAY).await.unwrap();
    broker.fail(Op::Get, [Some(Fault::Denied)]);
    let times = MeasuredRunTimes::follow(broker.clone());
    for _ in 0..100 {
        assert_eq!(times.expected("slow"), Duration::ZERO);
        tokio::time::sleep(100 * MS).await;
    }
    assert_eq!(broker.calls(Op::Get), 1, "once is enough to be told so");
}
