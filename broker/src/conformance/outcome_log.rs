//! The outcome log: the only fence there is.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{join_all, try_join_all};
use wf_schema::{BatchId, RunId};

use super::Rig;
use super::names::noise;
use super::patience::{until, within};
use crate::{Broker, BrokerError, Hint, LoggedRecord, Result, Version};

const RUN: fn(u64) -> RunId = |sequence| RunId::new('j', sequence);

async fn append(
    broker: &Arc<dyn Broker>,
    batch: BatchId,
    run: RunId,
    expected: Version,
    bytes: impl Into<Bytes>,
) -> Result<Version> {
    within("an answer to the append", broker.append(batch, run, expected, bytes.into())).await
}

/// The records of `batch`, once there are `count`: reading may lag behind.
pub(super) async fn read(broker: &Arc<dyn Broker>, batch: BatchId, count: usize) -> Vec<LoggedRecord> {
    let read = async || broker.read(batch).await.ok().filter(|records| records.len() >= count);
    let records = until("the records can be read", read).await;
    assert_eq!(records.len(), count, "records that nobody appended");
    records
}

#[track_caller]
fn fenced(answer: Result<Version>) {
    assert!(matches!(answer, Err(BrokerError::Fenced)), "should have been fenced: {answer:?}");
}

/// An append is taken where the log stands, and fenced anywhere else: also when it is the same one again, also for
/// ever after. Versions grow.
pub async fn an_append_elsewhere_is_fenced(rig: &dyn Rig) {
    let (broker, other) = (rig.open().await, rig.open().await);
    let batch = BatchId::new();
    let first = append(&broker, batch, RUN(1), Version::NONE, "one").await.unwrap();
    assert!(first > Version::NONE);
    fenced(append(&broker, batch, RUN(1), Version::NONE, "one").await);
    fenced(append(&other, batch, RUN(1), Version::NONE, "another").await);
    let second = append(&other, batch, RUN(1), first, "two").await.unwrap();
    assert!(second > first);
    for version in [Version::NONE, first, Version(second.0 + 1), Version(u64::MAX)] {
        fenced(append(&broker, batch, RUN(1), version, "no").await);
    }
    append(&broker, batch, RUN(1), second, "three").await.unwrap();
    let records = read(&other, batch, 3).await;
    assert_eq!(records.iter().map(|record| &record.bytes[..]).collect::<Vec<_>>(), [&b"one"[..], b"two", b"three"]);
}

/// A run that has no record yet is fenced at any version but `NONE`.
pub async fn an_empty_log_stands_at_none(rig: &dyn Rig) {
    let broker = rig.open().await;
    let batch = BatchId::new();
    for version in [Version(1), Version(17)] {
        fenced(append(&broker, batch, RUN(1), version, "no").await);
    }
    assert!(within("an answer", broker.read(batch)).await.unwrap().is_empty());
}

/// Of many that append at once where the log stands, one wins, round after round, from whatever node.
pub async fn of_many_writers_one_wins(rig: &dyn Rig) {
    let nodes = [rig.open().await, rig.open().await];
    let batch = BatchId::new();
    let mut expected = Version::NONE;
    for round in 0..10 {
        let writers = (0..8).map(|writer| append(&nodes[writer % 2], batch, RUN(7), expected, format!("{round} {writer}")));
        let (won, lost): (Vec<_>, Vec<_>) = join_all(writers).await.into_iter().partition(Result::is_ok);
        assert_eq!(won.len(), 1, "{won:?}");
        lost.into_iter().for_each(fenced);
        let version = won.into_iter().next().unwrap().unwrap();
        assert!(version > expected);
        expected = version;
    }
    read(&nodes[0], batch, 10).await;
}

/// Runs and batches have logs of their own.
pub async fn runs_and_batches_are_independent(rig: &dyn Rig) {
    let broker = rig.open().await;
    let batches = [BatchId::new(), BatchId::new()];
    let runs = [RunId::new('j', 1), RunId::new('l', 1), RunId::new('j', 11), RunId::new('j', u64::MAX)];
    let all = batches.iter().flat_map(|&batch| runs.map(|run| (batch, run)));
    try_join_all(all.map(|(batch, run)| append(&broker, batch, run, Version::NONE, run.to_string()))).await.unwrap();
    for batch in batches {
        let mut told: Vec<_> = read(&broker, batch, 4).await.into_iter().map(|r| (r.run, r.bytes)).collect();
        told.sort();
        let mut wanted = runs.map(|run| (run, Bytes::from(run.to_string())));
        wanted.sort();
        assert_eq!(told, wanted);
    }
}

/// Reading gives all records of all runs of the batch, each run's in order, with the versions that were answered
/// and what was written, however many and large.
pub async fn reading_gives_all_runs_in_order(rig: &dyn Rig) {
    let broker = rig.open().await;
    let (batch, other) = (BatchId::new(), BatchId::new());
    append(&broker, other, RUN(1), Version::NONE, "another's").await.unwrap();
    let logs = (0..3).map(|run| {
        let broker = &broker;
        async move {
            let (mut log, mut version) = (Vec::new(), Version::NONE);
            for n in 0..40 {
                let bytes = if n == 20 { noise(100_000) } else { format!("{run} {n}").into() };
                version = append(broker, batch, RUN(run), version, bytes.clone()).await.unwrap();
                log.push((version, bytes));
            }
            log
        }
    });
    let logs = join_all(logs).await;
    let records = read(&broker, batch, 120).await;
    for (run, log) in (0..).zip(logs) {
        let told = records.iter().filter(|record| record.run == RUN(run)).map(|record| (record.version, record.bytes.clone()));
        assert!(told.eq(log), "run {run} reads otherwise than it was written");
    }
}

/// A record larger than a message may be is refused, and the log stands where it stood.
pub async fn a_record_too_large_is_refused(rig: &dyn Rig) {
    let broker = rig.open().await;
    let batch = BatchId::new();
    let answer = append(&broker, batch, RUN(1), Version::NONE, noise(broker.max_message() + 1)).await;
    assert!(matches!(answer, Err(BrokerError::TooLarge { .. })), "{answer:?}");
    append(&broker, batch, RUN(1), Version::NONE, "fits").await.unwrap();
}

/// Waits for a hint of `batch`, passing over those of other cases' batches.
pub(super) async fn hinted(hints: &mut Box<dyn Hint>, batch: BatchId) {
    let hinted = async {
        loop {
            match hints.changed().await.unwrap() {
                // All should be looked at: that includes the one.
                None => break,
                Some(changed) if changed == batch => break,
                Some(_) => {}
            }
        }
    };
    within("a hint", hinted).await;
}

/// Who watches a batch hears of each change from then on, and then reads it; waiting for it is cancel safe.
pub async fn a_watch_tells_of_a_change(rig: &dyn Rig) {
    let (writer, reader) = (rig.open().await, rig.open().await);
    let batch = BatchId::new();
    let mut hints = within("the watch", reader.watch(batch)).await.unwrap();
    let mut version = Version::NONE;
    for count in 1..=3 {
        version = append(&writer, batch, RUN(1), version, "more").await.unwrap();
        let given_up = tokio::time::timeout(Duration::from_micros(1), hints.changed()).await;
        if given_up.is_err() {
            hinted(&mut hints, batch).await;
        }
        read(&reader, batch, count).await;
    }
}

/// A watch of one batch does not tell of another.
pub async fn a_watch_is_of_its_batch(rig: &dyn Rig) {
    let broker = rig.open().await;
    let (batch, other) = (BatchId::new(), BatchId::new());
    let mut hints = within("the watch", broker.watch(batch)).await.unwrap();
    append(&broker, other, RUN(1), Version::NONE, "another's").await.unwrap();
    append(&broker, batch, RUN(1), Version::NONE, "its own").await.unwrap();
    let hint = within("a hint", hints.changed()).await.unwrap();
    assert!(hint.is_none_or(|changed| changed == batch), "a hint of a batch that is not watched");
}

/// Who watches all hears of every batch.
pub async fn a_watch_of_all_tells_of_all(rig: &dyn Rig) {
    let (writer, reader) = (rig.open().await, rig.open().await);
    let mut hints = within("the watch", reader.watch_all()).await.unwrap();
    for _ in 0..3 {
        let batch = BatchId::new();
        append(&writer, batch, RUN(1), Version::NONE, "one").await.unwrap();
        hinted(&mut hints, batch).await;
        read(&reader, batch, 1).await;
    }
}

/// Records are durable, and the fence stands where it stood, after a restart.
pub async fn the_log_stands_after_a_restart(rig: &dyn Rig) {
    let broker = rig.open().await;
    let batch = BatchId::new();
    let first = append(&broker, batch, RUN(1), Version::NONE, "one").await.unwrap();
    let second = append(&broker, batch, RUN(1), first, "two").await.unwrap();
    append(&broker, batch, RUN(2), Version::NONE, "other run").await.unwrap();
    drop(broker);
    rig.restart(Duration::ZERO).await;

    let broker = rig.open().await;
    for version in [Version::NONE, first] {
        fenced(append(&broker, batch, RUN(1), version, "no").await);
    }
    let third = append(&broker, batch, RUN(1), second, "three").await.unwrap();
    assert!(third > second);
    let records = read(&broker, batch, 4).await;
    let versions: Vec<_> = records.iter().filter(|record| record.run == RUN(1)).map(|record| record.version).collect();
    assert_eq!(versions, [first, second, third]);
}
