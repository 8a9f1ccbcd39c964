//! `http`: what the door costs.
//!
//! Single jobs beside a bare handler that parses the same JSON and keeps nothing; bulk bodies beside a loop that parses
//! the same bytes in memory; and bulk bodies end to end, near the broker and far from it. The load comes from another
//! runtime than the server's, on the same cores: it takes its part of them on both sides of a ratio.

mod front;
mod load;
mod parse;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use work_factory::Factory;

use crate::cli::Options;
use crate::report::{Goal, Report};
use crate::rounds::{Sample, Side, measure};
use crate::work::{self, Check};
use crate::yard::{Yard, config};

use front::Front;
use load::Bodies;

/// Where jobs are stored before the answer.
#[derive(Clone, Copy)]
enum Store {
    Embedded,
    Nats { sync_always: bool },
}

impl Store {
    const ALL: [Self; 3] = [Self::Embedded, Self::Nats { sync_always: false }, Self::Nats { sync_always: true }];

    fn name(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Nats { sync_always: false } => "nats",
            Self::Nats { sync_always: true } => "nats synced always",
        }
    }
}

/// A store, for as long as it is needed.
enum Stored {
    Embedded(TempDir),
    Nats(Yard),
}

impl Stored {
    fn open(store: Store) -> anyhow::Result<Self> {
        Ok(match store {
            Store::Embedded => Self::Embedded(tempfile::Builder::new().prefix("wf-http-").tempdir()?),
            Store::Nats { sync_always } => Self::Nats(Yard::new(sync_always, Default::default())),
        })
    }

    /// Distance is not measured here, so there is no link in between.
    fn url(&self) -> String {
        match self {
            Self::Embedded(dir) => format!("embedded:{}", dir.path().display()),
            Self::Nats(yard) => yard.server().url(),
        }
    }
}

const BARE: &str = "single: bare handler";
const PARSE: &str = "bulk: parsing alone with serde_json";
const PARSE_OURS: &str = "bulk: parsing alone with our reader";

pub(crate) async fn http(options: &Options) -> anyhow::Result<()> {
    let mut report =
        Report::new("http", "jobs/s over HTTP, answered once they are stored, beside what HTTP and parsing cost alone");
    let time = options.sized(Duration::from_secs(4), Duration::from_millis(150));
    let connections = 64;
    let lines: u64 = options.sized(100_000, 2_000);
    let (many, few) = options.sized((240, 30), (2, 2));
    let bodies = Arc::new(Bodies::new(lines, many)?);
    let fewer = Arc::new(bodies.first(few));
    report.setting("single", format!("POST /v1/jobs for {time:?} over {connections} connections that are kept"));
    report.setting(
        "bulk",
        format!("POST /v1/jobs/batch, {few} NDJSON bodies of {lines} jobs over {} connections", load::BULK_CONNECTIONS),
    );
    report.setting(
        "bulk, end to end",
        format!("{many} such bodies until the last job is settled, profile wan, the caller beside ingest"),
    );
    report.setting("job", "math_add of two numbers");

    let mut sides = vec![
        Side::new(BARE, || bare(connections, time)),
        Side::new(PARSE, || parsed(fewer.clone(), parse::serde_json)),
        Side::new(PARSE_OURS, || parsed(fewer.clone(), parse::ours)),
    ];
    for store in Store::ALL {
        sides.push(Side::new(single(store), move || singles(store, connections, time)));
        let fewer = fewer.clone();
        sides.push(Side::new(bulk(store), move || bulks(store, fewer.clone())));
    }
    for rtt in [0, 100] {
        let bodies = bodies.clone();
        sides.push(Side::new(far(rtt), move || end_to_end(Duration::from_millis(rtt), bodies.clone())));
    }
    measure(&mut report, options, 5, sides).await?;

    let half = Some(Goal::AtLeast(0.5));
    for store in Store::ALL {
        report.ratio(format!("single, {} to the bare handler", store.name()), "rate", &single(store), BARE, half);
    }
    for store in Store::ALL {
        report.ratio(format!("bulk, {} to parsing alone", store.name()), "rate", &bulk(store), PARSE, half);
        report.ratio(format!("bulk, {} to parsing alone with our reader", store.name()), "rate", &bulk(store), PARSE_OURS, None);
    }
    report.ratio("bulk, end to end, at 100 ms to at 0 ms", "rate", &far(100), &far(0), Some(Goal::AtLeast(0.95)));
    report.finish(options.json.as_deref())
}

fn single(store: Store) -> String {
    format!("single: {}", store.name())
}

fn bulk(store: Store) -> String {
    format!("bulk: {}", store.name())
}

fn far(rtt: u64) -> String {
    format!("bulk end to end at {rtt} ms")
}

async fn bare(connections: usize, time: Duration) -> anyhow::Result<Sample> {
    let front = Front::bare().await?;
    let (jobs, took) = load::singles(front.address(), connections, time).await?;
    front.stop().await?;
    Ok(Sample::rate(jobs, took).checked(0))
}

async fn parsed(bodies: Arc<Bodies>, parse: fn(&[u8]) -> anyhow::Result<u64>) -> anyhow::Result<Sample> {
    tokio::task::spawn_blocking(move || {
        let began = std::time::Instant::now();
        let mut jobs = 0;
        for body in bodies.all() {
            jobs += parse(body)?;
        }
        let took = began.elapsed();
        anyhow::ensure!(jobs == bodies.jobs(), "{} jobs were written, {jobs} were read", bodies.jobs());
        Ok(Sample::default().and("rate", "jobs/s", jobs as f64 / took.as_secs_f64()))
    })
    .await?
}

async fn singles(store: Store, connections: usize, time: Duration) -> anyhow::Result<Sample> {
    taken(store, |address| load::singles(address, connections, time)).await
}

async fn bulks(store: Store, bodies: Arc<Bodies>) -> anyhow::Result<Sample> {
    taken(store, |address| load::bulks(address, bodies)).await
}

/// Measures how fast `load` is taken. Afterwards everything is run, to see that each job was taken once.
async fn taken<F>(store: Store, load: impl FnOnce(std::net::SocketAddr) -> F) -> anyhow::Result<Sample>
where
    F: Future<Output = anyhow::Result<(u64, Duration)>>,
{
    let stored = Stored::open(store)?;
    let front = Front::ours(config(&stored.url(), "local", &[])?).await?;
    let (jobs, took) = load(front.address()).await?;
    let batches = ran(front.factory()?, jobs).await?;
    front.stop().await?;
    Ok(Sample::rate(jobs, took).and("a batch", "jobs", jobs as f64 / batches as f64))
}

/// Runs everything that waits, `jobs` jobs, each once: the number of batches they were in.
async fn ran(factory: &Factory, jobs: u64) -> anyhow::Result<u64> {
    let check = Arc::new(Check::default());
    let executor = factory.executor(work::registry(&check))?;
    work::settled(&executor, jobs).await?;
    check.complete(jobs)?;
    let batches = executor.stats().deliveries;
    executor.drain(Duration::from_secs(5)).await;
    Ok(batches)
}

async fn end_to_end(rtt: Duration, bodies: Arc<Bodies>) -> anyhow::Result<Sample> {
    let yard = Yard::at(rtt);
    let front = Front::ours(config(&yard.link().url(), "wan", &[])?).await?;
    let far = yard.factory("wan", &[]).await?;
    let check = Arc::new(Check::default());
    let executor = far.executor(work::registry(&check))?;
    let (jobs, began) = (bodies.jobs(), std::time::Instant::now());
    let (posted, settled) = tokio::join!(load::bulks(front.address(), bodies), work::settled(&executor, jobs));
    posted?;
    settled?;
    let took = began.elapsed();
    check.complete(jobs)?;
    executor.drain(Duration::from_secs(5)).await;
    far.close().await?;
    front.stop().await?;
    Ok(Sample::rate(jobs, took))
}
