//! How long jobs are expected to run, as executors have measured it and say in the record they share.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::RwLock;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;
use wf_broker::{Broker, BrokerError, Key};
use wf_schema::{Kind, RunTimes as Record};

use crate::RunTimes;

/// How often the record is read while jobs are taken, on average; and the longest pause when it cannot be read.
const READ_EVERY: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// Jobs that are quicker fill no batch by their run time.
const NEGLIGIBLE: Duration = Duration::from_micros(10);

/// What executors have measured. Read from the broker in the background, and only while somebody asks. Until it was
/// read, and of kinds that nobody has run, nothing is known.
pub struct MeasuredRunTimes {
    known: Arc<Known>,
    _reading: AbortOnDropHandle<()>,
}

#[derive(Default)]
struct Known {
    /// The kinds that are not negligible.
    kinds: RwLock<HashMap<Kind, Duration>>,
    /// Whether there are any: in many factories all jobs take next to nothing, and asking about them should too.
    any: AtomicBool,
    /// Somebody has asked since the record was last read.
    asked: AtomicBool,
    news: Notify,
}

impl MeasuredRunTimes {
    /// Reads what executors say at `broker`, now and from time to time, until it is dropped. Must be called inside a
    /// tokio runtime.
    pub fn follow(broker: Arc<dyn Broker>) -> Self {
        let known = Arc::new(Known::default());
        // The first jobs are about to come.
        known.asked();
        let reading = tokio::spawn(keep_reading(broker, known.clone()));
        Self { known, _reading: AbortOnDropHandle::new(reading) }
    }
}

impl RunTimes for MeasuredRunTimes {
    fn expected(&self, kind: &str) -> Duration {
        self.known.asked();
        if !self.known.any.load(Ordering::Relaxed) {
            return Duration::ZERO;
        }
        self.known.kinds.read().get(kind).copied().unwrap_or_default()
    }
}

impl fmt::Debug for MeasuredRunTimes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeasuredRunTimes").field("kinds", &self.known.kinds.read().len()).finish_non_exhaustive()
    }
}

impl Known {
    fn asked(&self) {
        // Looked at before it is written: jobs of all threads pass here.
        if !self.asked.load(Ordering::Relaxed) && !self.asked.swap(true, Ordering::Relaxed) {
            self.news.notify_one();
        }
    }

    /// Reads the record at `broker`.
    async fn read(&self, broker: &dyn Broker) -> Result<(), BrokerError> {
        let key = Key::new(Record::KEY).map_err(|error| BrokerError::fatal("read run times", error))?;
        let entry = broker.get(key).await?;
        let record = match entry.map(|entry| Record::decode(&entry.bytes)) {
            None => Record::default(),
            Some(Ok(record)) => record,
            Some(Err(error)) => {
                tracing::debug!(%error, "the record of run times cannot be used");
                Record::default()
            }
        };
        let times = record.iter().map(|(kind, time)| (kind.clone(), Duration::from_micros(time.micros)));
        let kinds: HashMap<_, _> = times.filter(|(_, time)| *time >= NEGLIGIBLE).collect();
        self.any.store(!kinds.is_empty(), Ordering::Relaxed);
        *self.kinds.write() = kinds;
        Ok(())
    }
}

/// Reads the record, until the broker will not answer any more.
async fn keep_reading(broker: Arc<dyn Broker>, known: Arc<Known>) {
    let mut pause = READ_EVERY;
    loop {
        while !known.asked.swap(false, Ordering::Relaxed) {
            known.news.notified().await;
        }
        pause = match timeout(PATIENCE, known.read(&*broker)).await {
            Ok(Ok(())) => READ_EVERY,
            Ok(Err(error)) if !error.is_retryable() => {
                tracing::debug!(error = &error as &dyn std::error::Error, "run times are not followed any more");
                return;
            }
            // What was known before is still the best guess.
            Ok(Err(_)) | Err(_) => (2 * pause).min(LONGEST_PAUSE),
        };
        sleep(pause.mul_f64(0.75 + fastrand::f64() / 2.0)).await;
    }
}
