//! Who sends jobs and when, and what is seen of them at the other end.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use work_factory::{Job, JobFailure, Producer, Registry};

use crate::work::{self, Check};

/// How many jobs come before those that are measured: the first ones find cold caches and no pull at the broker yet.
const WARM_UP: u64 = 5;
/// The longest that a job may take.
const LOST: Duration = Duration::from_secs(60);

/// When jobs are sent.
#[derive(Clone, Copy, Debug)]
pub(super) enum Load {
    /// One at a time: the next a `pause` after the handler had the last one and the producer knows it stored.
    Idle { jobs: u64, pause: Duration },
    /// At times fixed in advance, whatever becomes of those before. Latency counts from the time a job was due to be
    /// sent: who is late counts the delay too.
    Steady { jobs: u64, every: Duration },
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Idle { jobs, pause } => write!(f, "{jobs} jobs one at a time, {pause:?} and up to half of that between"),
            Self::Steady { jobs, every } => write!(f, "{jobs} jobs, one every {every:?}, sent whatever comes back (open loop)"),
        }
    }
}

/// The args: the job's number, and when it was sent by the clock of [`Arrivals`], in nanoseconds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Sent {
    n: u64,
    at: u64,
}

/// What handlers see.
pub(super) struct Arrivals {
    clock: Instant,
    check: Check,
    /// In microseconds.
    latencies: Mutex<Histogram<u64>>,
    arrived: Notify,
}

impl Arrivals {
    pub(super) fn new() -> anyhow::Result<Arc<Self>> {
        // From a microsecond to a minute, to a thousandth.
        let latencies = Mutex::new(Histogram::new_with_bounds(1, LOST.as_micros() as u64, 3)?);
        Ok(Arc::new(Self { clock: Instant::now(), check: Check::default(), latencies, arrived: Notify::new() }))
    }

    /// The handler that sees them.
    pub(super) fn registry(self: &Arc<Self>) -> Registry {
        let arrivals = self.clone();
        Registry::new().register("measure", move |sent: Sent| {
            arrivals.see(sent);
            std::future::ready(Ok::<_, JobFailure>(()))
        })
    }

    fn see(&self, sent: Sent) {
        let latency = self.clock.elapsed().saturating_sub(Duration::from_nanos(sent.at));
        self.check.did(sent.n);
        if sent.n >= WARM_UP {
            self.latencies.lock().saturating_record(latency.as_micros() as u64);
        }
        self.arrived.notify_one();
    }

    /// Waits for `jobs` jobs, and checks that each came exactly once.
    ///
    /// # Errors
    /// When that was not so.
    pub(super) async fn complete(&self, jobs: u64) -> anyhow::Result<()> {
        work::begun(&self.check, jobs).await?;
        self.check.complete(jobs)
    }

    /// The latency that this part of the jobs had at most.
    pub(super) fn quantile(&self, quantile: f64) -> Duration {
        Duration::from_micros(self.latencies.lock().value_at_quantile(quantile))
    }

    fn job(&self, n: u64, at: Instant) -> anyhow::Result<Job<'static>> {
        let at = at.saturating_duration_since(self.clock).as_nanos() as u64;
        Ok(Job::new("measure", &Sent { n, at })?)
    }
}

/// Sends through `producer` as `load` says: the number of jobs.
///
/// From a thread of its own, for a thread sleeps to within a tenth of a millisecond and an async timer to one.
///
/// # Errors
/// When a job is not taken, or does not arrive.
pub(super) async fn send(producer: &Producer, arrivals: &Arc<Arrivals>, load: &Load) -> anyhow::Result<u64> {
    let (producer, arrivals, load, runtime) = (producer.clone(), arrivals.clone(), *load, Handle::current());
    let sending = tokio::task::spawn_blocking(move || match load {
        Load::Idle { jobs, pause } => {
            for n in 0..jobs + WARM_UP {
                std::thread::sleep(pause + pause.mul_f64(fastrand::f64() / 2.0));
                runtime.block_on(one(&producer, &arrivals, n))?;
            }
            Ok(jobs + WARM_UP)
        }
        Load::Steady { jobs, every } => {
            for n in 0..WARM_UP {
                runtime.block_on(one(&producer, &arrivals, n))?;
            }
            let began = Instant::now();
            for n in 0..jobs {
                let due = began + every.mul_f64(n as f64);
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                // Whether it is stored is seen by its arrival.
                runtime.block_on(producer.submit(arrivals.job(WARM_UP + n, due)?))?;
            }
            Ok(jobs + WARM_UP)
        }
    });
    sending.await?
}

/// One job, until it has arrived and is known to be stored.
async fn one(producer: &Producer, arrivals: &Arrivals, n: u64) -> anyhow::Result<()> {
    producer.enqueue(arrivals.job(n, Instant::now())?).await?;
    tokio::time::timeout(LOST, arrivals.arrived.notified()).await.with_context(|| format!("job {n} did not arrive"))
}
