//! Faktory, with its own client and its own worker, as their docs say.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use faktory::{Client, Job, Worker};
use futures::future::try_join_all;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use wf_nats::testing::DelayProxy;

use super::{Daemon, FIFTY, Numbers, all_begun};
use crate::rounds::Sample;
use crate::work::{self, Check, Pair};

/// The most jobs of a bulk enqueue.
const BULK: u64 = 1_000;
/// How long connections may take to come and to go, while the server is near.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(1);

/// How it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// One connection enqueues, one runs jobs.
    Single,
    /// Fifty enqueue, fifty run jobs.
    Fifty,
    /// One enqueues in bulk, fifty run jobs.
    Bulk,
}

impl Way {
    pub(super) const ALL: [Self; 3] = [Self::Single, Self::Fifty, Self::Bulk];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Single => "Faktory with 1 connection",
            Self::Fifty => "Faktory with 50 connections",
            Self::Bulk => "Faktory in bulk with 50 workers",
        }
    }

    fn clients(self) -> usize {
        if self == Self::Fifty { FIFTY } else { 1 }
    }

    fn workers(self) -> usize {
        if self == Self::Single { 1 } else { FIFTY }
    }
}

/// A Faktory server behind a link.
pub(super) struct Peer {
    _daemon: Daemon,
    link: DelayProxy,
    queues: AtomicU64,
}

impl Peer {
    /// Starts the server.
    ///
    /// # Errors
    /// When it does not start.
    pub(super) fn start(program: &Path) -> anyhow::Result<Self> {
        let daemon = Daemon::start(program)?;
        let link = DelayProxy::start(daemon.address(), Duration::ZERO);
        Ok(Self { _daemon: daemon, link, queues: AtomicU64::new(0) })
    }

    /// Enqueues for `time` while its worker runs the jobs, both `rtt` away from the server: jobs a second until the
    /// last one has begun. The last acknowledgement is not waited for, nor is the connecting: a worker of fifty makes
    /// its connections one after the other.
    pub(super) async fn run(&self, way: Way, rtt: Duration, time: Duration) -> anyhow::Result<Sample> {
        self.link.set_delay(Duration::ZERO);
        let url = format!("tcp://{}", self.link.address());
        let connections = self.link.connections();
        let clients = try_join_all((0..way.clients()).map(|_| Client::connect_to(&url))).await?;
        // One for each measurement: the server gives a job to a worker that was waiting when its connection was closed,
        // and nobody else gets it for ten minutes.
        let queue = format!("bench-{}", self.queues.fetch_add(1, Ordering::Relaxed));
        let check = Arc::new(Check::default());
        let (stop, stopped) = oneshot::channel::<()>();
        // Held by the handler, which lives as long as any connection of the worker.
        let (alive, mut gone) = mpsc::channel::<()>(1);
        let handler = {
            let check = check.clone();
            move |job: Job| {
                let _alive = &alive;
                std::future::ready(run(&job, &check))
            }
        };
        let worker = Worker::builder::<io::Error>().register_fn("math_add", handler).workers(way.workers());
        let worker = worker.with_graceful_shutdown(async move { drop(stopped.await) });
        let mut worker = worker.connect_to(&url).await?;
        let queues = [queue.clone()];
        let mut working = tokio::spawn(async move { worker.run(&queues).await.map(drop) });
        // It has one more, for its heartbeat.
        self.connected(connections + (way.clients() + way.workers() + 1) as u64).await?;
        self.link.set_delay(rtt / 2);

        let began = Instant::now();
        let numbers = Arc::new(Numbers::new(time));
        let mut producing = JoinSet::new();
        for client in clients {
            let (numbers, queue) = (numbers.clone(), queue.clone());
            if way == Way::Bulk {
                producing.spawn(produce_bulk(client, queue, bulk(rtt), numbers, check.clone()));
            } else {
                producing.spawn(produce(client, queue, numbers));
            }
        }
        tokio::select! {
            done = all_begun(producing, &numbers, &check) => done?,
            ended = &mut working => {
                ended??;
                anyhow::bail!("the Faktory worker ended by itself");
            }
        }
        let (took, jobs) = (began.elapsed(), numbers.given());
        check.complete(jobs)?;
        self.link.set_delay(Duration::ZERO);
        drop(stop);
        working.await??;
        // Its connections say goodbye when they are dropped, and must not find the server gone.
        let _none = tokio::time::timeout(PATIENCE, gone.recv()).await.context("the Faktory worker does not stop")?;
        Ok(Sample::rate(jobs, took))
    }

    async fn connected(&self, connections: u64) -> anyhow::Result<()> {
        let began = Instant::now();
        while self.link.connections() < connections {
            anyhow::ensure!(began.elapsed() < PATIENCE, "the Faktory worker does not connect");
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }
}

/// How many jobs to enqueue at once: the most that is usual, or what fifty workers run in a second, two round trips a
/// job.
fn bulk(rtt: Duration) -> u64 {
    let each = 2.0 * rtt.as_secs_f64() + 0.001;
    ((FIFTY as f64 / each) as u64).min(BULK)
}

fn job(n: u64, queue: &str) -> anyhow::Result<Job> {
    Ok(Job::new("math_add", vec![serde_json::to_value(work::pair(n))?]).on_queue(queue))
}

fn run(job: &Job, check: &Check) -> io::Result<()> {
    let args = job.args().first().cloned().unwrap_or_default();
    let pair: Pair = serde_json::from_value(args)?;
    check.did(pair.a as u64);
    std::hint::black_box(pair.a + pair.b);
    Ok(())
}

async fn produce(mut client: Client, queue: String, numbers: Arc<Numbers>) -> anyhow::Result<()> {
    while let Some(n) = numbers.next() {
        client.enqueue(job(n, &queue)?).await?;
    }
    Ok(())
}

/// Never has more than two bulks waiting: at a distance it enqueues much faster than they are run, and what is left
/// when the time is up has to be run too.
async fn produce_bulk(
    mut client: Client,
    queue: String,
    bulk: u64,
    numbers: Arc<Numbers>,
    check: Arc<Check>,
) -> anyhow::Result<()> {
    loop {
        let jobs = std::iter::from_fn(|| numbers.next()).take(bulk as usize).map(|n| job(n, &queue));
        let jobs = jobs.collect::<anyhow::Result<Vec<Job>>>()?;
        if jobs.is_empty() {
            return Ok(());
        }
        let (_, failed) = client.enqueue_many(jobs).await?;
        anyhow::ensure!(failed.is_none(), "Faktory did not take some jobs: {failed:?}");
        while numbers.given() - check.jobs() > bulk {
            tokio::time::sleep(LOOK).await;
        }
    }
}
