//! The jobs that are measured with, and the check that each was done exactly once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio_util::task::AbortOnDropHandle;
use work_factory::{Executor, Factory, Job, JobFailure, Producer, Registry};

/// The longest that a measurement may stand still.
const STUCK: Duration = Duration::from_secs(60);
/// How often it is looked whether all is done.
const LOOK: Duration = Duration::from_millis(1);

/// The args of the seed's math jobs.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Pair {
    pub(crate) a: f64,
    pub(crate) b: f64,
}

/// The args of job number `n`. `a` is the number itself: their sum tells whether each number came once.
pub(crate) fn pair(n: u64) -> Pair {
    Pair { a: n as f64, b: (n % 1_000) as f64 }
}

/// Job number `n`: one of the seed's, as people send it.
pub(crate) fn job(n: u64) -> anyhow::Result<Job<'static>> {
    Ok(Job::new("math_add", &pair(n))?)
}

/// Counts what handlers did. Sharded, or they would meet at it.
#[derive(Debug, Default)]
pub(crate) struct Check {
    shards: [Shard; 16],
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard {
    jobs: AtomicU64,
    sum: AtomicU64,
}

/// A number that nobody can make of others by adding them up by chance: steps of splitmix64.
fn mixed(n: u64) -> u64 {
    let n = n.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    n ^ (n >> 31)
}

impl Check {
    /// Job number `n` is being done.
    pub(crate) fn did(&self, n: u64) {
        thread_local!(static SHARD: usize = fastrand::usize(..16));
        let shard = &self.shards[SHARD.with(|shard| *shard)];
        shard.sum.fetch_add(mixed(n), Ordering::Relaxed);
        // Last: who sees it counted may sum up at once.
        shard.jobs.fetch_add(1, Ordering::Release);
    }

    /// How many were done so far.
    pub(crate) fn jobs(&self) -> u64 {
        self.shards.iter().map(|shard| shard.jobs.load(Ordering::Acquire)).sum()
    }

    /// Count and sum of what was done so far.
    pub(crate) fn totals(&self) -> Totals {
        let total = |of: fn(&Shard) -> &AtomicU64| {
            self.shards.iter().fold(0u64, |sum, shard| sum.wrapping_add(of(shard).load(Ordering::Relaxed)))
        };
        // In this order: what is counted is in the sum.
        Totals { jobs: self.jobs(), sum: total(|s| &s.sum) }
    }

    /// Whether the numbers from 0 up to `jobs` were done once each: their count, and the sum of what each is mixed into,
    /// are as they should be.
    ///
    /// # Errors
    /// When they are not.
    pub(crate) fn complete(&self, jobs: u64) -> anyhow::Result<()> {
        self.totals().complete(jobs)
    }
}

/// What tells whether numbers came once each. Those of several processes add up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Totals {
    pub(crate) jobs: u64,
    sum: u64,
}

impl Totals {
    /// With what another process did.
    pub(crate) fn and(self, other: Self) -> Self {
        Self { jobs: self.jobs + other.jobs, sum: self.sum.wrapping_add(other.sum) }
    }

    /// See [`Check::complete`].
    ///
    /// # Errors
    /// When the numbers from 0 up to `jobs` did not come once each.
    pub(crate) fn complete(self, jobs: u64) -> anyhow::Result<()> {
        let wanted = (0..jobs).fold(Self::default(), |all, n| all.and(Self { jobs: 1, sum: mixed(n) }));
        anyhow::ensure!(self.jobs == jobs, "{jobs} jobs were enqueued, {} were done", self.jobs);
        anyhow::ensure!(self == wanted, "some jobs were done twice and others not at all");
        Ok(())
    }
}

/// The args of a job that takes its time.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Nap {
    pub(crate) n: u64,
    /// How long it takes, in milliseconds.
    pub(crate) ms: u64,
}

/// Kinds of naps, each its own to whoever measures run times: one that was never seen before is still to be had.
pub(crate) const NAPS: u32 = 256;

/// What kind number `at` of the naps is called.
pub(crate) fn nap(at: u32) -> String {
    format!("nap_{at}")
}

/// A registry of handlers that tell `check` which job they did: one that adds the seed's numbers, one that does nothing
/// more, and those that sleep.
pub(crate) fn registry(check: &Arc<Check>) -> Registry {
    let (adding, noop) = (check.clone(), check.clone());
    let registry = Registry::new()
        .register("math_add", move |pair: Pair| {
            adding.did(pair.a as u64);
            std::future::ready(Ok::<_, JobFailure>(pair.a + pair.b))
        })
        .register("noop", move |n: u64| {
            noop.did(n);
            // Only written down where somebody asked for it.
            std::future::ready(Ok::<_, JobFailure>(n))
        });
    (0..NAPS).fold(registry, |registry, at| {
        let check = check.clone();
        registry.register(&nap(at), move |nap: Nap| {
            let check = check.clone();
            async move {
                tokio::time::sleep(Duration::from_millis(nap.ms)).await;
                check.did(nap.n);
                Ok::<_, JobFailure>(())
            }
        })
    })
}

/// What an end-to-end measurement came to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flowed {
    /// From the first call until the last job was settled.
    pub(crate) took: Duration,
    /// The messages that the jobs travelled in.
    pub(crate) batches: u64,
}

/// Enqueues `jobs` through a producer of `near` while an executor of `far` runs them. Checks that each was done exactly
/// once.
///
/// # Errors
/// When that was not so, when something fails, or when nothing goes on any more.
pub(crate) async fn end_to_end(
    near: &Factory,
    far: &Factory,
    jobs: u64,
    make: impl Fn(u64) -> anyhow::Result<Job<'static>> + Send + Sync + 'static,
) -> anyhow::Result<Flowed> {
    let check = Arc::new(Check::default());
    let executor = far.executor(registry(&check))?;
    let producer = near.producer();
    let began = Instant::now();
    // A task of its own, as the callers of a service are.
    let caller = producer.clone();
    let enqueued = AbortOnDropHandle::new(tokio::spawn(async move { enqueue(&caller, jobs, &make).await }));
    tokio::try_join!(async { enqueued.await? }, settled(&executor, jobs))?;
    let took = began.elapsed();
    check.complete(jobs)?;
    let batches = executor.stats().deliveries;
    executor.drain(Duration::from_secs(5)).await;
    producer.close().await?;
    Ok(Flowed { took, batches })
}

/// Enqueues `jobs` in one call.
///
/// # Errors
/// What the producer says.
pub(crate) async fn enqueue(
    producer: &Producer,
    jobs: u64,
    make: &impl Fn(u64) -> anyhow::Result<Job<'static>>,
) -> anyhow::Result<()> {
    // A job that cannot be made ends the iterator, and is told afterwards.
    let mut failed = None;
    let made = (0..jobs).map_while(|n| match make(n) {
        Ok(job) => Some(job),
        Err(error) => {
            failed = Some(error);
            None
        }
    });
    producer.enqueue_all(made).await?;
    failed.map_or(Ok(()), Err)
}

/// Waits until `executor` has settled `jobs` jobs.
///
/// # Errors
/// When it settles nothing for a minute.
pub(crate) async fn settled(executor: &Executor, jobs: u64) -> anyhow::Result<()> {
    let (mut seen, mut when) = (0, Instant::now());
    loop {
        let done = executor.stats().completed;
        if done >= jobs {
            return Ok(());
        }
        if done > seen {
            (seen, when) = (done, Instant::now());
        }
        anyhow::ensure!(when.elapsed() < STUCK, "nothing was done for {STUCK:?}: {done} of {jobs} jobs, {:?}", executor.stats());
        tokio::time::sleep(LOOK).await;
    }
}

/// Waits until handlers have begun `jobs` jobs.
///
/// # Errors
/// When they begin none for a minute.
pub(crate) async fn begun(check: &Check, jobs: u64) -> anyhow::Result<()> {
    let (mut seen, mut when) = (0, Instant::now());
    loop {
        let begun = check.jobs();
        if begun >= jobs {
            return Ok(());
        }
        if begun > seen {
            (seen, when) = (begun, Instant::now());
        }
        anyhow::ensure!(when.elapsed() < STUCK, "nothing was begun for {STUCK:?}: {begun} of {jobs} jobs");
        tokio::time::sleep(LOOK).await;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_job_done_twice_in_place_of_another_is_found() {
        let check = Check::default();
        [0, 1, 2, 3].into_iter().for_each(|n| check.did(n));
        check.complete(4).unwrap();
        assert!(check.complete(5).is_err());
        let check = Check::default();
        [0, 1, 1, 4].into_iter().for_each(|n| check.did(n));
        assert!(check.complete(4).is_err());
    }
}
