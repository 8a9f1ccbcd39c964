//! The embedded broker over orderly and less orderly restarts, and on folders that are not as they should be.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::HashSet;
use std::error::Error;
use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use wf_broker::{
    Broker, BrokerError, Consume, Control, Cron, Delivery, Embedded, EmbeddedOptions, Key, KeyedRecords, Message, OpenError,
    OutcomeLog, Publish, RunLog, Schedule, Scheduled, Version,
};
use wf_schema::{BatchId, Lane, Priority, Queue, now};

fn open(path: &Path) -> Arc<Embedded> {
    Embedded::open(path, EmbeddedOptions::default()).unwrap()
}

fn refused(path: &Path) -> OpenError {
    Embedded::open(path, EmbeddedOptions::default()).unwrap_err()
}

fn message(id: &str) -> Message {
    Message { lane: Lane::default(), id: id.into(), bytes: id.to_owned().into() }
}

async fn next(broker: &Embedded, lane: &Lane) -> Delivery {
    let mut source = broker.lane(lane.clone()).await.unwrap();
    source.grant(1, 1);
    tokio::time::timeout(Duration::from_secs(20), source.next()).await.unwrap().unwrap()
}

async fn pending(broker: &Embedded) -> u64 {
    broker.stats(Lane::default()).await.unwrap().pending
}

#[tokio::test]
async fn ids_are_remembered_over_a_restart() {
    let home = tempfile::tempdir().unwrap();
    let broker = open(home.path());
    assert!(!broker.publish(message("one")).await.unwrap().duplicate);
    next(&broker, &Lane::default()).await.lease.ack(None);
    broker.settled().await.unwrap();
    drop(broker);

    let broker = open(home.path());
    assert!(broker.publish(message("one")).await.unwrap().duplicate);
    assert_eq!(pending(&broker).await, 0);
}

#[tokio::test]
async fn ids_are_forgotten_when_the_window_is_over() {
    let options = EmbeddedOptions::default().dedup_window(Duration::from_millis(1)).unwrap();
    let broker = Embedded::memory(options).unwrap();
    broker.publish(message("one")).await.unwrap();
    let begun = now();
    while now() < begun + 3 {
        tokio::task::yield_now().await;
    }
    assert!(!broker.publish(message("one")).await.unwrap().duplicate);
}

#[tokio::test]
async fn names_never_come_twice() {
    let home = tempfile::tempdir().unwrap();
    let (mut runs, mut fallbacks) = (HashSet::new(), HashSet::new());
    let batch = BatchId::new();
    let mut version = Version::NONE;
    for life in 0..3 {
        let broker = open(home.path());
        broker.publish(message(&format!("message-{life}"))).await.unwrap();
        let delivery = next(&broker, &Lane::default()).await;
        assert!(runs.insert(delivery.run));
        assert!(fallbacks.insert(delivery.fallback_id));
        let log = RunLog { batch, run: delivery.run, message: delivery.id.clone() };
        let next = broker.append(log, Version::NONE, "record".into()).await.unwrap();
        assert!(next > version);
        version = next;
        delivery.lease.ack(None);
        drop(broker);
    }
    assert_eq!(open(home.path()).read(batch).await.unwrap().len(), 3);
}

#[tokio::test]
async fn what_was_delivered_comes_again_as_the_same_run() {
    let home = tempfile::tempdir().unwrap();
    let broker = open(home.path());
    broker.publish(message("one")).await.unwrap();
    let first = next(&broker, &Lane::default()).await;
    assert_eq!(first.delivered, 1);
    drop(broker);
    // Whoever still holds the old one holds up nobody.
    let broker = open(home.path());
    let again = next(&broker, &Lane::default()).await;
    assert_eq!((again.run, again.fallback_id, again.stored_at), (first.run, first.fallback_id, first.stored_at));
    assert!(again.delivered > 1);
    first.lease.ack(None);
    first.lease.release(Duration::ZERO);
    assert_eq!(broker.stats(Lane::default()).await.unwrap().in_flight, 1, "the old hold is on the old broker");
}

#[tokio::test]
async fn each_life_of_the_broker_counts_as_a_delivery() {
    let home = tempfile::tempdir().unwrap();
    open(home.path()).publish(message("one")).await.unwrap();
    // What ends the broker each time, unheard, is not what comes for the second time for ever.
    for life in 1..=4 {
        assert_eq!(next(&open(home.path()), &Lane::default()).await.delivered, life + 1);
    }
}

#[tokio::test]
async fn dropping_it_loses_nothing_that_was_asked() {
    let home = tempfile::tempdir().unwrap();
    let broker = open(home.path());
    broker.publish(message("kept")).await.unwrap();
    broker.publish(message("done")).await.unwrap();
    let mut source = broker.lane(Lane::default()).await.unwrap();
    source.grant(2, 1000);
    for _ in 0..2 {
        let delivery = source.next().await.unwrap();
        if delivery.bytes == "done" {
            delivery.lease.ack(None);
        }
    }
    drop(broker);
    source.grant(1, 1);
    assert!(matches!(source.next().await, Err(BrokerError::Fatal { .. })));
    let broker = open(home.path());
    assert_eq!(pending(&broker).await, 1);
    assert_eq!(next(&broker, &Lane::default()).await.bytes, "kept");
}

#[tokio::test]
async fn a_schedule_moves_once() {
    let home = tempfile::tempdir().unwrap();
    let broker = open(home.path());
    let due = now() + 400;
    let key = Key::new("later").unwrap();
    let later = Scheduled { lane: Lane::default(), key: key.clone(), due, bytes: "later".into() };
    broker.publish_at(later).await.unwrap();
    assert_eq!(pending(&broker).await, 0);
    drop(broker);

    let broker = open(home.path());
    let delivery = next(&broker, &Lane::default()).await;
    assert!(now() >= due, "never early");
    assert_eq!(delivery.delivered, 1, "it was not delivered before, restart or no restart");
    delivery.lease.ack(None);
    broker.settled().await.unwrap();
    drop(broker);
    let broker = open(home.path());
    assert_eq!(pending(&broker).await, 0);
    broker.cancel_at(key).await.unwrap();
}

#[tokio::test]
async fn a_cron_keeps_its_time_over_restarts() {
    let home = tempfile::tempdir().unwrap();
    let lane = Lane::new(Queue::new("nightly").unwrap(), Priority::High);
    let cron = Cron {
        key: Key::new("every-two").unwrap(),
        spec: "@every 2s".into(),
        zone: None,
        lane: lane.clone(),
        bytes: "tick".into(),
    };
    let begun = now();
    open(home.path()).put_cron(cron.clone()).await.unwrap();
    let put = now();
    // Put again by a program that starts again, it does not begin anew.
    let broker = open(home.path());
    broker.put_cron(cron.clone()).await.unwrap();
    drop(broker);
    // Two ticks are missed.
    let missed = put + 4_100;
    tokio::time::sleep(Duration::from_millis(missed.saturating_sub(now()))).await;
    let broker = open(home.path());
    let first = next(&broker, &lane).await;
    let fired = first.fired.clone().unwrap();
    assert_eq!(fired.key, cron.key);
    assert!((begun + 2_000..=put + 2_000).contains(&fired.tick), "{} after {begun}", fired.tick);
    assert_eq!(broker.stats(lane.clone()).await.unwrap().pending, 0, "one firing for all that was missed");
    let second = next(&broker, &lane).await;
    assert_eq!((second.fired.unwrap().tick - fired.tick) % 2_000, 0);
    assert_ne!(first.fallback_id, second.fallback_id);
    broker.delete_cron(cron.key).await.unwrap();
}

#[tokio::test]
async fn a_full_lane_is_full_after_a_restart_and_blocks_no_other() {
    let home = tempfile::tempdir().unwrap();
    let options = || EmbeddedOptions::default().lane_bytes(4096).unwrap();
    let broker = Embedded::open(home.path(), options()).unwrap();
    let mut stored = 0;
    while broker.publish(message(&format!("m-{stored}"))).await.is_ok() {
        stored += 1;
    }
    assert!(stored > 10);
    drop(broker);
    let broker = Embedded::open(home.path(), options()).unwrap();
    let error = broker.publish(message("one more")).await.unwrap_err();
    assert!(matches!(error, BrokerError::Fatal { .. }), "a space in an id is refused, full or not: {error:?}");
    let error = broker.publish(message("one-more")).await.unwrap_err();
    assert!(matches!(&error, BrokerError::Full { lane, .. } if *lane == Lane::default()), "{error:?}");
    let other = Lane::new(Queue::new("other").unwrap(), Priority::Normal);
    broker.publish(Message { lane: other, ..message("one-more") }).await.unwrap();
}

#[tokio::test]
async fn the_outcome_log_drops_its_oldest() {
    let options = EmbeddedOptions::default().outcome_records(10).unwrap();
    let home = tempfile::tempdir().unwrap();
    let broker = Embedded::open(home.path(), options.clone()).unwrap();
    let batches: Vec<_> = (0..25).map(|_| BatchId::new()).collect();
    for batch in &batches {
        broker.publish(message(&batch.to_string())).await.unwrap();
        let delivery = next(&broker, &Lane::default()).await;
        let log = RunLog { batch: *batch, run: delivery.run, message: delivery.id.clone() };
        broker.append(log, Version::NONE, "record".into()).await.unwrap();
        delivery.lease.ack(None);
    }
    broker.settled().await.unwrap();
    drop(broker);
    let broker = Embedded::open(home.path(), options).unwrap();
    // Dropping is part of the next round.
    broker.ping().await.unwrap();
    let mut kept = 0;
    for (place, batch) in batches.iter().enumerate() {
        let records = broker.read(*batch).await.unwrap().len();
        assert!(records == 1 || place < 15, "of the newest ten none is dropped");
        kept += records;
    }
    assert_eq!(kept, 10);
}

#[tokio::test]
async fn records_outlive_restarts_and_not_their_time() {
    let home = tempfile::tempdir().unwrap();
    let broker = open(home.path());
    let key = Key::new("claim").unwrap();
    let first = broker.create(key.clone(), "1".into(), Some(Duration::from_millis(1))).await.unwrap();
    drop(broker);
    let broker = open(home.path());
    let seen = broker.get(key.clone()).await.unwrap().map(|entry| entry.revision);
    assert!(seen.is_none() || seen == Some(first));
    assert_eq!(broker.watch_key(key.clone(), Some(first)).await.unwrap(), None);
    assert!(broker.create(key, "2".into(), None).await.unwrap() > first);
}

/// The journal that is written to.
fn journal(home: &Path) -> PathBuf {
    let files = fs::read_dir(home.join("db")).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|extension| extension == "jnl")).max().unwrap()
}

#[tokio::test]
async fn a_torn_end_is_cut_off() {
    let home = tempfile::tempdir().unwrap();
    let broker = open(home.path());
    broker.publish(message("whole")).await.unwrap();
    broker.close().await.unwrap();
    let whole = fs::read(journal(home.path())).unwrap();
    let end = whole.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    drop(broker);
    let broker = open(home.path());
    broker.publish(message("torn")).await.unwrap();
    drop(broker);
    // As if the power went while the last batch was on its way.
    let torn = fs::read(journal(home.path())).unwrap();
    let torn_end = torn.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    assert!(torn_end > end);
    let file = OpenOptions::new().write(true).open(journal(home.path())).unwrap();
    file.set_len((torn_end - 5) as u64).unwrap();

    let broker = open(home.path());
    assert_eq!(pending(&broker).await, 1);
    let delivery = next(&broker, &Lane::default()).await;
    assert_eq!(delivery.bytes, "whole");
    assert!(!broker.publish(message("torn")).await.unwrap().duplicate, "what was torn was never stored");
}

/// A broker with these messages, each in a commit of its own, and where the last of them begins and ends in the journal.
async fn broker_of(home: &Path, messages: &[&str]) -> std::ops::Range<usize> {
    let broker = open(home);
    let end = || {
        let mut journal = fs::File::open(journal(home)).unwrap().take(1 << 20);
        let mut bytes = Vec::new();
        journal.read_to_end(&mut bytes).unwrap();
        bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1
    };
    let mut last = 0..0;
    for id in messages {
        let start = end();
        let bytes = id.repeat(10_000).into();
        broker.publish(Message { bytes, ..message(id) }).await.unwrap();
        last = start..end();
    }
    last
}

#[tokio::test]
async fn a_commit_torn_in_its_middle_is_cut_off_and_takes_no_other_along() {
    let home = tempfile::tempdir().unwrap();
    let last = broker_of(home.path(), &["one", "two", "torn"]).await;
    // As if the power went when the end of it was on disk, and a page in its middle was not.
    let mut torn = fs::read(journal(home.path())).unwrap();
    torn[last.start + 8_192..last.start + 12_288].fill(0);
    fs::write(journal(home.path()), torn).unwrap();

    let broker = open(home.path());
    assert_eq!(pending(&broker).await, 2);
    for id in ["one", "two"] {
        let delivery = next(&broker, &Lane::default()).await;
        assert_eq!(delivery.bytes, id.repeat(10_000));
        delivery.lease.ack(None);
    }
    assert!(!broker.publish(message("torn")).await.unwrap().duplicate, "what was torn was never stored");
    drop(broker);
    assert_eq!(pending(&open(home.path())).await, 1);
}

#[tokio::test]
async fn what_was_safe_and_is_damaged_is_not_cut_off() {
    let home = tempfile::tempdir().unwrap();
    let last = broker_of(home.path(), &["one", "two", "three"]).await;
    let mut damaged = fs::read(journal(home.path())).unwrap();
    damaged[last.start - 10_000] ^= 1;
    fs::write(journal(home.path()), &damaged).unwrap();

    let error = refused(home.path());
    assert!(matches!(error, OpenError::Damaged { .. }), "{error:?}");
    let why = error.source().unwrap().to_string();
    let file = journal(home.path()).display().to_string();
    assert!(why.contains(&format!("{file} is damaged at byte")) && why.contains("restore a copy"), "{why}");
    assert!(fs::read(journal(home.path())).unwrap() == damaged, "it is as it was");
}

#[test]
fn an_unfinished_start_is_begun_anew() {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join("db")).unwrap();
    fs::write(home.path().join("db/0.jnl"), "").unwrap();
    fs::write(home.path().join("lock"), "4194305\n").unwrap();
    fs::write(home.path().join("format.new"), "work").unwrap();
    open(home.path());
    open(home.path());
}

#[test]
fn one_process_has_it_once() {
    let home = tempfile::tempdir().unwrap();
    let broker = open(home.path());
    let error = refused(home.path());
    assert!(error.is_retryable());
    assert_eq!(error.to_string(), format!("{} is in use by this process", home.path().display()));
    drop(broker);
    open(home.path());
}

#[tokio::test]
async fn closed_it_is_free_whoever_holds_on_to_it() {
    let home = tempfile::tempdir().unwrap();
    let broker = open(home.path());
    let source = broker.lane(Lane::default()).await.unwrap();
    broker.close().await.unwrap();
    broker.close().await.unwrap();
    open(home.path());
    drop((source, broker));
}

#[test]
fn wrong_folders_are_left_alone() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("file");
    fs::write(&file, "a file").unwrap();
    assert!(matches!(refused(&file), OpenError::NotAFolder { .. }));
    assert!(matches!(refused(&file.join("below")), OpenError::Io { .. }));
    assert!(matches!(refused(home.path()), OpenError::Foreign { .. }));
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1, "nothing was written there");

    let newer = home.path().join("newer");
    drop(open(&newer));
    fs::write(newer.join("format"), "work-factory embedded broker, format 2\n").unwrap();
    let error = refused(&newer);
    assert!(matches!(error, OpenError::Format { found: 2, known: 1, .. }), "{error:?}");
    fs::write(newer.join("format"), "something else").unwrap();
    assert!(matches!(refused(&newer), OpenError::Foreign { .. }));
}

#[test]
fn a_damaged_store_is_an_error_that_says_where() {
    let home = tempfile::tempdir().unwrap();
    drop(open(home.path()));
    let mut version = OpenOptions::new().write(true).open(home.path().join("db/version")).unwrap();
    version.write_all(b"FJL\x63").unwrap();
    let error = refused(home.path());
    assert!(matches!(error, OpenError::Damaged { .. }), "{error:?}");
    assert!(error.to_string().contains(&home.path().display().to_string()));
    assert!(error.source().is_some());
}
