//! The jobs that are measured with, and the check that each was done exactly once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use work_factory::{Executor, Factory, Job, JobContext, JobFailure, Producer, Registry};

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
    squares: AtomicU64,
}

impl Check {
    /// Job number `n` is being done.
    pub(crate) fn did(&self, n: u64) {
        thread_local!(static SHARD: usize = fastrand::usize(..16));
        let shard = &self.shards[SHARD.with(|shard| *shard)];
        shard.sum.fetch_add(n, Ordering::Relaxed);
        shard.squares.fetch_add(n.wrapping_mul(n), Ordering::Relaxed);
        // Last: who sees it counted may sum up at once.
        shard.jobs.fetch_add(1, Ordering::Release);
    }

    /// How many were done so far.
    pub(crate) fn jobs(&self) -> u64 {
        self.shards.iter().map(|shard| shard.jobs.load(Ordering::Acquire)).sum()
    }

    /// Whether the numbers from 0 up to `jobs` were done once each: their count, their sum, and the sum of their squares
    /// are all as they should be.
    ///
    /// # Errors
    /// When they are not.
    pub(crate) fn complete(&self, jobs: u64) -> anyhow::Result<()> {
        let total = |of: fn(&Shard) -> &AtomicU64| {
            self.shards.iter().fold(0u64, |sum, s| sum.wrapping_add(of(s).load(Ordering::Relaxed)))
        };
        let wanted =
            (0..jobs).fold((0u64, 0u64), |(sum, squares), n| (sum.wrapping_add(n), squares.wrapping_add(n.wrapping_mul(n))));
        let done = self.jobs();
        anyhow::ensure!(done == jobs, "{jobs} jobs were enqueued, {done} were done");
        anyhow::ensure!((total(|s| &s.sum), total(|s| &s.squares)) == wanted, "some jobs were done twice and others not at all");
        Ok(())
    }
}

/// A registry whose handler for the seed's jobs adds, and tells `check`.
pub(crate) fn adding(check: &Arc<Check>) -> Registry {
    let check = check.clone();
    Registry::new().register("math_add", move |_: JobContext, pair: Pair| {
        check.did(pair.a as u64);
        std::future::ready(Ok::<_, JobFailure>(pair.a + pair.b))
    })
}

/// Enqueues `jobs` through a producer of `near` while an executor of `far` runs them: the time from the first call
/// until the last is settled. Checks that each was done exactly once.
///
/// # Errors
/// When that was not so, when something fails, or when nothing goes on any more.
pub(crate) async fn end_to_end(
    near: &Factory,
    far: &Factory,
    jobs: u64,
    make: impl Fn(u64) -> anyhow::Result<Job<'static>>,
) -> anyhow::Result<Duration> {
    let check = Arc::new(Check::default());
    let executor = far.executor(adding(&check))?;
    let producer = near.producer();
    let began = Instant::now();
    let enqueued = enqueue(&producer, jobs, &make);
    let (enqueued, settled) = tokio::join!(enqueued, settled(&executor, jobs));
    enqueued?;
    settled?;
    let took = began.elapsed();
    check.complete(jobs)?;
    executor.drain(Duration::from_secs(5)).await;
    producer.close().await?;
    Ok(took)
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
    let made = (0..jobs).map_while(|n| make(n).map_err(|error| failed = Some(error)).ok());
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
