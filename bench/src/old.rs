//! `old`: the design we replace, and the server it was built on, beside ours on the same link.
//!
//! Two old designs, for one could be blamed on a part of it. *One by one* and *pool of 50* keep its shape (a message a
//! job, a round trip an enqueue, two round trips an execution) on the broker that we use. Then Faktory itself, with its
//! own client and worker.

mod daemon;
mod one_each;
mod peer;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::cli::Options;
use crate::plot::{self, Axes, Line, Scale};
use crate::report::{Goal, Report};
use crate::rounds::{Sample, Side, measure};
use crate::sweep::RTTS;
use crate::work::{self, Check};
use crate::yard::{Yard, profile};

use daemon::Daemon;
use peer::{Peer, Way};

const OURS: &str = "Work Factory";
const ONE: &str = "old design one by one";
const POOL: &str = "old design with a pool of 50";

/// The connections of the old API, and the jobs that its worker ran at once, at every distance. The analysis proposed
/// fewer for longer links (30, 15, 10); fifty everywhere is the kinder.
const FIFTY: usize = 50;

pub(crate) async fn old(options: &Options) -> anyhow::Result<()> {
    let mut report = Report::new("old", "end-to-end jobs/s over the round-trip time, beside what it replaces, on the same link");
    let jobs: u64 = options.sized(4_000_000, 20_000);
    let time = options.sized(Duration::from_secs(3), Duration::from_millis(100));
    let rtts: &[u64] = options.sized(&RTTS, &[0, 10]);
    report.setting("job", "math_add of two numbers, JSON args");
    report.setting("ours", format!("{jobs} jobs; profile local to 1 ms, lan to 10 ms, wan beyond"));
    report.setting("the others", format!("enqueue for {time:?}, measured until the last job has begun"));
    report.setting("sync", "nats-server and Faktory each at their default: now and then");
    let yards: Vec<(u64, Yard)> = rtts.iter().map(|rtt| (*rtt, Yard::at(Duration::from_millis(*rtt)))).collect();
    let past = Yard::at(Duration::ZERO);
    let peer = start_peer(&mut report)?;
    let (past, peer) = (&past, peer.as_ref());

    let mut sides = Vec::new();
    for (rtt, yard) in &yards {
        let (rtt, distance) = (*rtt, Duration::from_millis(*rtt));
        sides.push(Side::new(name(OURS, rtt), move || ours(yard, rtt, jobs)));
        for (design, workers) in [(ONE, 1), (POOL, FIFTY)] {
            sides.push(Side::new(name(design, rtt), move || one_each::run(past, workers, distance, time)));
        }
        if let Some(peer) = peer {
            sides.extend(Way::ALL.map(|way| Side::new(name(way.name(), rtt), move || peer.run(way, distance, time))));
        }
    }
    measure(&mut report, options, 3, sides).await?;

    for rtt in rtts {
        for other in others() {
            let goal = match (other, rtt) {
                (other, 0) if other == Way::Single.name() => Some(Goal::AtLeast(200.0)),
                (other, 100) if other == Way::Fifty.name() => Some(Goal::AtLeast(2_000.0)),
                _ => None,
            };
            report.ratio(format!("{OURS} to {other}, at {rtt} ms"), "rate", &name(OURS, *rtt), &name(other, *rtt), goal);
        }
    }
    if let Some(path) = &options.svg {
        let line = |design: &str| {
            let points = rtts.iter().filter_map(|rtt| Some((*rtt as f64, report.figure(&name(design, *rtt), "rate")?.median)));
            Line { name: design.to_owned(), points: points.collect() }
        };
        let lines: Vec<Line> = std::iter::once(OURS).chain(others()).map(line).filter(|line| !line.points.is_empty()).collect();
        let title = "Jobs per second, end to end, over the round-trip time";
        plot::draw(path, &Axes { title, x: "round trip, ms", y: "jobs/s", scale: Scale::Powers }, &lines)?;
    }
    report.finish(options.json.as_deref())
}

fn name(design: &str, rtt: u64) -> String {
    format!("{design} at {rtt} ms")
}

fn others() -> impl Iterator<Item = &'static str> {
    [ONE, POOL].into_iter().chain(Way::ALL.map(Way::name))
}

/// Faktory, if it is there.
fn start_peer(report: &mut Report) -> anyhow::Result<Option<Peer>> {
    let (Some(faktory), Some(redis)) = (Daemon::program(), daemon::in_path("redis-server")) else {
        report.note(
            "Faktory was left out: put `faktory` (github.com/contribsys/faktory/releases, or its container image) and \
             `redis-server` into the PATH, or name the first in WF_FAKTORY",
        );
        return Ok(None);
    };
    let machine = report.machine.clone().with_program("faktory", &faktory, "-v");
    report.machine = machine.with_program("redis-server", &redis, "--version");
    Peer::start(&faktory).map(Some)
}

async fn ours(yard: &Yard, rtt: u64, jobs: u64) -> anyhow::Result<Sample> {
    let profile = profile(rtt);
    let (near, far) = (yard.factory(profile.as_str(), &[]).await?, yard.factory(profile.as_str(), &[]).await?);
    let flowed = work::end_to_end(&near, &far, jobs, work::job).await?;
    near.close().await?;
    far.close().await?;
    Ok(Sample::rate(jobs, flowed.took))
}

/// The numbers of the jobs to enqueue, until the time is up: slow designs are given time, not jobs.
struct Numbers {
    next: AtomicU64,
    until: Instant,
}

impl Numbers {
    fn new(time: Duration) -> Self {
        Self { next: AtomicU64::new(0), until: Instant::now() + time }
    }

    /// The next job's number. Who is given one enqueues it.
    fn next(&self) -> Option<u64> {
        (Instant::now() < self.until).then(|| self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// How many were given out.
    fn given(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }
}

/// Waits until all that `producing` enqueue has begun.
///
/// # Errors
/// When one of them fails, or nothing goes on any more.
async fn all_begun(mut producing: JoinSet<anyhow::Result<()>>, numbers: &Numbers, check: &Check) -> anyhow::Result<()> {
    while let Some(ended) = producing.join_next().await {
        ended??;
    }
    work::begun(check, numbers.given()).await
}
