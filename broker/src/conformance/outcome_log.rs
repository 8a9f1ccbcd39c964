//! What became of each run: the log, which is the only fence there is, and the outcomes for readers.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use wf_schema::BatchId;

use super::Rig;
use super::names::{lane, message, messages, noise};
use super::patience::{until, within};
use super::publish::publish_each;
use super::taker::Taker;
use crate::{Broker, BrokerError, Delivery, Hint, LogEnd, LoggedRecord, LoggedRun, Result, RunLog, Version};

/// A run that is open, and its delivery: its message is stored, and this owns it.
pub(super) async fn open_run(broker: &Arc<dyn Broker>) -> (RunLog, Delivery) {
    let lane = lane();
    publish_each(broker, vec![message(&lane, "a run")]).await;
    let delivery = Taker::open(broker, &lane).await.take().await;
    (log_of(BatchId::new(), &delivery), delivery)
}

/// So many open runs of one batch.
async fn open_runs(broker: &Arc<dyn Broker>, count: usize) -> Vec<(RunLog, Delivery)> {
    let (lane, batch) = (lane(), BatchId::new());
    publish_each(broker, messages(&lane, count)).await;
    let taken = Taker::open(broker, &lane).await.take_many(count).await;
    taken.into_iter().map(|delivery| (log_of(batch, &delivery), delivery)).collect()
}

fn log_of(batch: BatchId, delivery: &Delivery) -> RunLog {
    RunLog { batch, run: delivery.run, message: delivery.id.clone() }
}

async fn append(broker: &Arc<dyn Broker>, log: &RunLog, expected: Version, bytes: impl Into<Bytes>) -> Result<Version> {
    within("an answer to the append", broker.append(log.clone(), expected, bytes.into())).await
}

/// Appends a record, and shows it to readers.
async fn commit(broker: &Arc<dyn Broker>, log: &RunLog, expected: Version, step: u32, bytes: impl Into<Bytes>) -> Version {
    let bytes = bytes.into();
    let version = append(broker, log, expected, bytes.clone()).await.unwrap();
    within("an answer", broker.publish_outcome(log.clone(), step, bytes)).await.unwrap();
    version
}

/// The log, once it has `count` records: reading may lag behind.
async fn read_run(broker: &Arc<dyn Broker>, log: &RunLog, count: usize) -> LoggedRun {
    let read = async || broker.read_run(log.clone()).await.ok().filter(|log| log.records.len() >= count);
    let run = until("the log can be read", read).await;
    assert_eq!(run.records.len(), count, "records that nobody appended");
    run
}

/// The outcomes of `batch`, once there are `count`: reading may lag behind.
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
    let (log, _delivery) = open_run(&broker).await;
    let first = append(&broker, &log, Version::NONE, "one").await.unwrap();
    assert!(first > Version::NONE);
    fenced(append(&broker, &log, Version::NONE, "one").await);
    fenced(append(&other, &log, Version::NONE, "another").await);
    let second = append(&other, &log, first, "two").await.unwrap();
    assert!(second > first);
    for version in [Version::NONE, first, Version(second.0 + 1), Version(u64::MAX)] {
        fenced(append(&broker, &log, version, "no").await);
    }
    append(&broker, &log, second, "three").await.unwrap();
    let records = read_run(&other, &log, 3).await.records;
    assert_eq!(records.iter().map(|record| &record.bytes[..]).collect::<Vec<_>>(), [&b"one"[..], b"two", b"three"]);
}

/// A run that has no record yet is fenced at any version but `NONE`.
pub async fn an_empty_log_stands_at_none(rig: &dyn Rig) {
    let broker = rig.open().await;
    let (log, _delivery) = open_run(&broker).await;
    for version in [Version(1), Version(17)] {
        fenced(append(&broker, &log, version, "no").await);
    }
    let run = within("an answer", broker.read_run(log.clone())).await.unwrap();
    assert!(run.records.is_empty() && run.version == Version::NONE && !run.ended, "{run:?}");
    assert!(within("an answer", broker.read(log.batch)).await.unwrap().is_empty());
}

/// Of many that append at once where the log stands, one wins, round after round, from whatever node.
pub async fn of_many_writers_one_wins(rig: &dyn Rig) {
    let nodes = [rig.open().await, rig.open().await];
    let (log, _delivery) = open_run(&nodes[0]).await;
    let mut expected = Version::NONE;
    for round in 0..10 {
        let writers = (0..8).map(|writer| append(&nodes[writer % 2], &log, expected, format!("{round} {writer}")));
        let (won, lost): (Vec<_>, Vec<_>) = join_all(writers).await.into_iter().partition(Result::is_ok);
        assert_eq!(won.len(), 1, "{won:?}");
        lost.into_iter().for_each(fenced);
        let version = won.into_iter().next().unwrap().unwrap();
        assert!(version > expected);
        expected = version;
    }
    read_run(&nodes[0], &log, 10).await;
}

/// Runs and batches have logs of their own.
pub async fn runs_and_batches_are_independent(rig: &dyn Rig) {
    let broker = rig.open().await;
    let open = open_runs(&broker, 4).await;
    let batches = [open[0].0.batch, BatchId::new()];
    let all = batches.iter().flat_map(|&batch| open.iter().map(move |(log, _)| RunLog { batch, ..log.clone() }));
    join_all(all.map(|log| {
        let broker = &broker;
        async move { commit(broker, &log, Version::NONE, 0, log.run.to_string()).await }
    }))
    .await;
    for batch in batches {
        let mut told: Vec<_> = read(&broker, batch, 4).await.into_iter().map(|r| (r.run, r.bytes)).collect();
        told.sort();
        let mut wanted: Vec<_> = open.iter().map(|(log, _)| (log.run, Bytes::from(log.run.to_string()))).collect();
        wanted.sort();
        assert_eq!(told, wanted);
    }
}

/// Reading gives all outcomes of all runs of the batch, each run's in order, and what was written, however many and
/// large; a run's log gives the same, with the versions that were answered.
pub async fn reading_gives_all_runs_in_order(rig: &dyn Rig) {
    let broker = rig.open().await;
    let (open, other) = (open_runs(&broker, 3).await, open_run(&broker).await);
    commit(&broker, &other.0, Version::NONE, 0, "another's").await;
    let logs = open.iter().enumerate().map(|(run, (log, _))| {
        let broker = &broker;
        async move {
            let (mut told, mut version) = (Vec::new(), Version::NONE);
            for n in 0..40 {
                let bytes = if n == 20 { noise(100_000) } else { format!("{run} {n}").into() };
                version = commit(broker, log, version, n, bytes.clone()).await;
                told.push((version, bytes));
            }
            (log, told)
        }
    });
    let logs = join_all(logs).await;
    let records = read(&broker, open[0].0.batch, 120).await;
    for (log, written) in logs {
        let told = records.iter().filter(|record| record.run == log.run).map(|record| &record.bytes);
        assert!(told.eq(written.iter().map(|(_, bytes)| bytes)), "run {} reads otherwise than it was written", log.run);
        let run = read_run(&broker, log, 40).await;
        let told = run.records.into_iter().map(|record| (record.version, record.bytes));
        assert!(told.eq(written), "the log of {} reads otherwise than it was written", log.run);
    }
}

/// A log gives the records of its own run, and where the next one is to be appended.
pub async fn a_log_gives_its_records_and_says_where_it_stands(rig: &dyn Rig) {
    let (broker, other) = (rig.open().await, rig.open().await);
    let open = open_runs(&broker, 2).await;
    let [(one, _), (two, _)] = &open[..] else { panic!("two runs") };
    let first = append(&broker, one, Version::NONE, "one").await.unwrap();
    append(&broker, two, Version::NONE, "another's").await.unwrap();
    let second = append(&broker, one, first, "two").await.unwrap();
    let run = read_run(&other, one, 2).await;
    assert_eq!((run.version, run.ended), (second, false));
    assert_eq!(run.records.iter().map(|record| record.version).collect::<Vec<_>>(), [first, second]);
    append(&other, one, run.version, "three").await.unwrap();
}

/// Whoever takes a run up shows its last record once more: readers see it once.
pub async fn an_outcome_published_again_is_shown_once(rig: &dyn Rig) {
    let broker = rig.open().await;
    let (log, _delivery) = open_run(&broker).await;
    let version = commit(&broker, &log, Version::NONE, 0, "one").await;
    commit(&broker, &log, version, 1, "two").await;
    for _ in 0..2 {
        within("an answer", broker.publish_outcome(log.clone(), 1, "two".into())).await.unwrap();
    }
    let records = read(&broker, log.batch, 2).await;
    assert_eq!(records.iter().map(|record| &record.bytes[..]).collect::<Vec<_>>(), [&b"one"[..], b"two"]);
}

/// Twice as many outcomes of runs that end as are kept.
pub(super) async fn flood(rig: &dyn Rig, broker: &Arc<dyn Broker>) {
    const RUNS: usize = 20;
    let records = rig.outcomes() * 2 / RUNS;
    let open = open_runs(broker, RUNS).await;
    let each = open.iter().map(|(log, delivery)| async move {
        let mut version = Version::NONE;
        for step in 0..records as u32 {
            version = commit(broker, log, version, step, "a flood").await;
            delivery.lease.renew();
        }
        delivery.lease.ack(Some(LogEnd { log: log.clone(), version, keep: None }));
    });
    join_all(each).await;
    within("settled", broker.settled()).await.unwrap();
}

/// The log of a run whose message is stored keeps all that is in it, however many outcomes of others come after it; and
/// it goes on from there.
pub async fn a_log_stands_whatever_the_outcomes_do(rig: &dyn Rig) {
    let broker = rig.open().await;
    let (log, delivery) = open_run(&broker).await;
    let first = commit(&broker, &log, Version::NONE, 0, "one").await;
    flood(rig, &broker).await;
    let run = read_run(&broker, &log, 1).await;
    assert_eq!((run.version, run.ended), (first, false));
    fenced(append(&broker, &log, Version::NONE, "from the beginning").await);
    let second = commit(&broker, &log, first, 1, "two").await;
    flood(rig, &broker).await;
    read_run(&broker, &log, 2).await;
    delivery.lease.ack(Some(LogEnd { log: log.clone(), version: second, keep: None }));
    within("settled", broker.settled()).await.unwrap();
}

/// The same when the broker restarts in between, and the run's message waits.
pub async fn a_log_stands_whatever_the_outcomes_do_over_a_restart(rig: &dyn Rig) {
    let broker = rig.open().await;
    let (log, delivery) = open_run(&broker).await;
    let first = commit(&broker, &log, Version::NONE, 0, "one").await;
    flood(rig, &broker).await;
    drop((broker, delivery));
    rig.restart(Duration::ZERO).await;
    let broker = rig.open().await;
    flood(rig, &broker).await;
    assert_eq!(read_run(&broker, &log, 1).await.version, first);
    fenced(append(&broker, &log, Version::NONE, "from the beginning").await);
    append(&broker, &log, first, "two").await.unwrap();
}

/// Once a message is acknowledged with the end of its log, nobody appends to it any more, wherever they believe it
/// stands; and whoever is delivered the message all the same is told that there is nothing left to do. The outcomes
/// stay.
pub async fn a_log_that_has_ended_takes_nothing_more(rig: &dyn Rig) {
    let (broker, other) = (rig.open().await, rig.open().await);
    for keep in [None, Some(Duration::from_secs(60))] {
        let (log, delivery) = open_run(&broker).await;
        let first = commit(&broker, &log, Version::NONE, 0, "one").await;
        let version = commit(&broker, &log, first, 1, "two").await;
        delivery.lease.ack(Some(LogEnd { log: log.clone(), version, keep }));
        within("settled", broker.settled()).await.unwrap();
        for expected in [Version::NONE, first, version] {
            fenced(append(&other, &log, expected, "late").await);
        }
        let ended = async || other.read_run(log.clone()).await.ok().filter(|run| run.ended);
        let run = until("the log is told to have ended", ended).await;
        assert!(run.records.is_empty(), "{run:?}");
        read(&broker, log.batch, 2).await;
    }
}

/// A log that stands elsewhere than its end says is somebody's who goes on with the run.
pub async fn what_has_ended_elsewhere_is_not_ended(rig: &dyn Rig) {
    let broker = rig.open().await;
    let (log, _delivery) = open_run(&broker).await;
    let first = append(&broker, &log, Version::NONE, "one").await.unwrap();
    let second = append(&broker, &log, first, "two").await.unwrap();
    within("an answer", broker.end(LogEnd { log: log.clone(), version: first, keep: None })).await.unwrap();
    let run = read_run(&broker, &log, 2).await;
    assert_eq!((run.version, run.ended), (second, false));
    append(&broker, &log, second, "three").await.unwrap();
}

/// A message is stored until it is acknowledged, whoever has it; and then it is not, for whoever asks.
pub async fn a_message_is_told_to_be_stored_until_it_is_gone(rig: &dyn Rig) {
    let broker = rig.open().await;
    let lane = lane();
    publish_each(&broker, vec![message(&lane, "a run")]).await;
    let mut taker = Taker::open(&broker, &lane).await;
    let first = taker.take().await;
    assert!(within("an answer", first.lease.stored()).await.unwrap());
    first.lease.release(Duration::ZERO);
    let again = taker.take().await;
    assert!(within("an answer", first.lease.stored()).await.unwrap());
    again.lease.ack(None);
    within("settled", broker.settled()).await.unwrap();
    for lease in [first.lease, again.lease] {
        assert!(!within("an answer", lease.stored()).await.unwrap());
    }
}

/// A record larger than a message may be is refused, and the log stands where it stood.
pub async fn a_record_too_large_is_refused(rig: &dyn Rig) {
    let broker = rig.open().await;
    let (log, _delivery) = open_run(&broker).await;
    let answer = append(&broker, &log, Version::NONE, noise(broker.max_message() + 1)).await;
    assert!(matches!(answer, Err(BrokerError::TooLarge { .. })), "{answer:?}");
    append(&broker, &log, Version::NONE, "fits").await.unwrap();
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
    let (log, _delivery) = open_run(&writer).await;
    let batch = log.batch;
    let mut hints = within("the watch", reader.watch(batch)).await.unwrap();
    let mut version = Version::NONE;
    for count in 1..=3 {
        version = commit(&writer, &log, version, count, "more").await;
        let given_up = tokio::time::timeout(Duration::from_micros(1), hints.changed()).await;
        if given_up.is_err() {
            hinted(&mut hints, batch).await;
        }
        read(&reader, batch, count as usize).await;
    }
}

/// A watch of one batch does not tell of another.
pub async fn a_watch_is_of_its_batch(rig: &dyn Rig) {
    let broker = rig.open().await;
    let ((log, _own), (other, _others)) = (open_run(&broker).await, open_run(&broker).await);
    let batch = log.batch;
    let mut hints = within("the watch", broker.watch(batch)).await.unwrap();
    commit(&broker, &other, Version::NONE, 0, "another's").await;
    commit(&broker, &log, Version::NONE, 0, "its own").await;
    let hint = within("a hint", hints.changed()).await.unwrap();
    assert!(hint.is_none_or(|changed| changed == batch), "a hint of a batch that is not watched");
}

/// Who watches all hears of every batch.
pub async fn a_watch_of_all_tells_of_all(rig: &dyn Rig) {
    let (writer, reader) = (rig.open().await, rig.open().await);
    let mut hints = within("the watch", reader.watch_all()).await.unwrap();
    for _ in 0..3 {
        let (log, _delivery) = open_run(&writer).await;
        commit(&writer, &log, Version::NONE, 0, "one").await;
        hinted(&mut hints, log.batch).await;
        read(&reader, log.batch, 1).await;
    }
}

/// Records are durable, and the fence stands where it stood, after a restart.
pub async fn the_log_stands_after_a_restart(rig: &dyn Rig) {
    let broker = rig.open().await;
    let open = open_runs(&broker, 2).await;
    let [(log, _), (other, _)] = &open[..] else { panic!("two runs") };
    let first = commit(&broker, log, Version::NONE, 0, "one").await;
    let second = commit(&broker, log, first, 1, "two").await;
    commit(&broker, other, Version::NONE, 0, "other run").await;
    let (log, batch) = (log.clone(), log.batch);
    drop((broker, open));
    rig.restart(Duration::ZERO).await;

    let broker = rig.open().await;
    for version in [Version::NONE, first] {
        fenced(append(&broker, &log, version, "no").await);
    }
    let third = commit(&broker, &log, second, 2, "three").await;
    assert!(third > second);
    let versions: Vec<_> = read_run(&broker, &log, 3).await.records.into_iter().map(|record| record.version).collect();
    assert_eq!(versions, [first, second, third]);
    read(&broker, batch, 4).await;
}
