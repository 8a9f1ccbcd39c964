//! How long jobs run here: measured a batch at a time, by kind, and shared with those who cut batches to size.
//!
//! All executors share one record, changed by compare-and-set. It is written only when somebody's average has become
//! noticeably another than what stands there, so executors that agree do not write, and those who lose a race find
//! that they agree with the winner. Who has written waits longer before the next time: averages that will not settle
//! cost a write a minute.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::{Instant, timeout};
use wf_broker::{BrokerError, Entry, Key};
use wf_schema::{Kind, Millis, RunTime, RunTimes as Record, WireError, now};

use crate::node::Node;

/// How much each job moves the average, and how much a batch does at the most.
const FOLLOW: f64 = 0.1;
const FOLLOW_BATCH: f64 = 0.5;
/// What is noticeable: a factor, and a difference in seconds below which no batch is cut.
const FACTOR: f64 = 1.2;
const DIFFERENCE: f64 = 20e-6;
/// How long the record outlives the last one who writes it.
const TTL: Duration = Duration::from_secs(12 * 3600);
/// How long what was read is taken to stand.
const KNOWN: Duration = Duration::from_secs(60);
/// The pause between two looks, on average: at first, and at the most.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// The averages of this node, in seconds.
#[derive(Default)]
pub(crate) struct RunTimes(Mutex<BTreeMap<Kind, f64>>);

impl RunTimes {
    /// `jobs` jobs of `kind` ran for `busy` in all.
    pub(crate) fn observe(&self, kind: &Kind, jobs: u32, busy: Duration) {
        if jobs == 0 {
            return;
        }
        let mean = busy.as_secs_f64() / f64::from(jobs);
        let mut kinds = self.0.lock();
        if let Some(average) = kinds.get_mut(kind) {
            *average += (mean - *average) * (FOLLOW * f64::from(jobs)).min(FOLLOW_BATCH);
        } else if kinds.len() < Record::MAX_KINDS {
            // More would not fit into the record.
            kinds.insert(kind.clone(), mean);
        }
    }

    /// Writes into `record` what is noticeably other here, or was written long ago: whether there was any.
    fn write_into(&self, record: &mut Record, at: Millis) -> bool {
        let kinds = self.0.lock();
        let old = at.saturating_sub(TTL.as_millis() as Millis / 2);
        let stands = |kind: &Kind| record.iter().find(|(other, _)| *other == kind).map(|(_, time)| *time);
        let news: Vec<_> = kinds
            .iter()
            .filter(|(kind, mean)| match stands(kind) {
                Some(time) => time.at < old || noticeable(time.micros as f64 / 1e6, **mean),
                None => noticeable(0.0, **mean),
            })
            .map(|(kind, mean)| (kind.clone(), RunTime { micros: (*mean * 1e6) as u64, at }))
            .collect();
        let any = !news.is_empty();
        news.into_iter().for_each(|(kind, time)| record.set(kind, time));
        any
    }
}

fn noticeable(one: f64, other: f64) -> bool {
    (one - other).abs() > DIFFERENCE && one.max(other) > FACTOR * one.min(other)
}

/// Shares what is measured, until the node drains.
pub(crate) async fn share(node: Arc<Node>) {
    node.phases.draining.run_until_cancelled(keep_sharing(&node)).await;
}

async fn keep_sharing(node: &Node) {
    let mut sharing = Sharing::default();
    let mut pause = PAUSE;
    loop {
        tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
        if !sharing.is_due(&node.run_times) {
            pause = (pause / 2).max(PAUSE);
            continue;
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
        match timeout(PATIENCE, sharing.write(node)).await {
            // Who was quicker has written the same, most likely.
            Ok(Ok(()) | Err(Unshared::Broker(BrokerError::Fenced))) => {}
            Ok(Err(Unshared::Newer(error))) => {
                tracing::warn!(%error, "the record of run times is a newer program's; this one does not share any");
                return;
            }
            Ok(Err(Unshared::Broker(error))) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "run times are not shared");
            }
            Err(_) => tracing::debug!("run times are not shared: no answer"),
        }
    }
}

/// What is known of the record.
#[derive(Default)]
struct Sharing {
    record: Record,
    read: Option<Instant>,
}

/// Why nothing was written.
enum Unshared {
    Broker(BrokerError),
    /// It is written in a form that this program does not know.
    Newer(WireError),
}

impl Sharing {
    /// Whether the record, as far as it is known, is to be written.
    fn is_due(&mut self, times: &RunTimes) -> bool {
        if self.read.is_some_and(|read| read.elapsed() < KNOWN) {
            return times.write_into(&mut self.record.clone(), now());
        }
        !times.0.lock().is_empty()
    }

    /// Reads the record, and writes it if that is called for.
    async fn write(&mut self, node: &Node) -> Result<(), Unshared> {
        let key = || Key::new(Record::KEY).map_err(|error| Unshared::Broker(BrokerError::fatal("share run times", error)));
        let entry = node.broker.get(key()?).await.map_err(Unshared::Broker)?;
        let mut record = match entry.as_ref().map(|entry| Record::decode(&entry.bytes)) {
            None => Record::default(),
            Some(Ok(record)) => record,
            Some(Err(error @ WireError::Version(_))) => return Err(Unshared::Newer(error)),
            // Whatever it was, nobody could use it.
            Some(Err(_)) => Record::default(),
        };
        if node.run_times.write_into(&mut record, now()) {
            self.store(node, key()?, entry, record.encode()).await?;
            tracing::debug!(kinds = record.iter().len(), "run times shared");
        }
        (self.record, self.read) = (record, Some(Instant::now()));
        Ok(())
    }

    async fn store(&self, node: &Node, key: Key, before: Option<Entry>, bytes: Bytes) -> Result<(), Unshared> {
        let stored = match before {
            Some(entry) => node.broker.update(key, entry.revision, bytes, Some(TTL)).await,
            None => node.broker.create(key, bytes, Some(TTL)).await,
        };
        stored.map(drop).map_err(Unshared::Broker)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn kind(name: &str) -> Kind {
        Kind::new(name).unwrap()
    }

    fn times(kinds: &[(&str, u32, u64)]) -> RunTimes {
        let times = RunTimes::default();
        for (name, jobs, ms) in kinds {
            times.observe(&kind(name), *jobs, Duration::from_millis(*ms));
        }
        times
    }

    #[test]
    fn the_average_follows_batches_by_their_jobs() {
        let times = times(&[("a", 1, 100), ("a", 1, 200)]);
        let mean = |times: &RunTimes| (times.0.lock()[&kind("a")] * 1e3).round();
        assert_eq!(mean(&times), 110.0);
        times.observe(&kind("a"), 1_000, Duration::from_secs(210));
        assert_eq!(mean(&times), 160.0);
        times.observe(&kind("a"), 0, Duration::ZERO);
        assert_eq!(mean(&times), 160.0);
    }

    #[test]
    fn only_what_is_noticeably_other_is_written() {
        let here = times(&[("slow", 10, 1_000), ("quick", 1_000, 5)]);
        let mut record = Record::default();
        assert!(here.write_into(&mut record, 1_000));
        assert_eq!(record.get("slow"), Some(Duration::from_millis(100)));
        assert_eq!(record.get("quick"), None, "no batch is cut for 5 us");
        assert!(!here.write_into(&mut record, 2_000));
        // Another node finds about the same.
        assert!(!times(&[("slow", 10, 1_150)]).write_into(&mut record, 2_000));
        assert!(times(&[("slow", 10, 1_300)]).write_into(&mut record, 2_000));
        assert_eq!(record.get("slow"), Some(Duration::from_millis(130)));
        // What was slow and is quick now is known to be.
        assert!(times(&[("slow", 1_000, 5)]).write_into(&mut record, 3_000));
        assert!(record.get("slow").is_some_and(|time| time < Duration::from_micros(10)));
    }

    #[test]
    fn what_is_still_true_is_written_again_before_it_is_forgotten() {
        let here = times(&[("slow", 10, 1_000)]);
        let mut record = Record::default();
        here.write_into(&mut record, 1_000);
        let hours = |hours: u64| 1_000 + hours * 3_600_000;
        assert!(!here.write_into(&mut record, hours(5)));
        assert!(here.write_into(&mut record, hours(7)));
        assert!(!here.write_into(&mut record, hours(8)));
    }
}
