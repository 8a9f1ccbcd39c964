//! `latency`: from the call to the handler's first line.

mod sender;

use std::time::Duration;

use wf_nats::testing::Conditions;

use crate::cli::Options;
use crate::report::{Goal, Report};
use crate::rounds::{Sample, Side, measure};
use crate::yard::{Yard, profile};

use sender::{Arrivals, Load};

/// The round-trip times, in milliseconds: of the producer to the broker, and of the executor to it. One way each is
/// on a job's way.
const RTTS: [u64; 5] = [0, 1, 10, 50, 100];

const P50: &str = "p50 above the round trip";
const P99: &str = "p99 above the round trip";
const P999: &str = "p99.9 above the round trip";

pub(crate) async fn latency(options: &Options) -> anyhow::Result<()> {
    let mut report =
        Report::new("latency", "from the call to the handler's first line, producer and executor both far from the broker");
    let idle = Load::Idle { jobs: options.sized(300, 20), pause: Duration::from_millis(options.sized(20, 2)) };
    let steady = Load::Steady { jobs: options.sized(25_000, 500), every: Duration::from_micros(options.sized(200, 1_000)) };
    let rtts: &[u64] = options.sized(&RTTS, &[0, 10]);
    report.setting("idle", idle);
    report.setting("steady", steady);
    report.setting("profile", "local to 1 ms, lan to 10 ms, wan beyond");
    report.setting("handlers", "typed, JSON args, which carry the time of the call; one machine, one clock");
    let mut yards = Vec::new();
    for (sync, always) in [("", false), (" synced always", true)] {
        for rtt in rtts {
            let conditions = Conditions { delay: Duration::from_millis(*rtt) / 2, ..Conditions::default() };
            yards.push((*rtt, sync, Yard::new(always, conditions)));
        }
    }
    let sides = yards.iter().flat_map(|(rtt, sync, yard)| {
        [("idle", &idle), ("steady", &steady)]
            .map(|(load, how)| Side::new(format!("{load} at {rtt} ms{sync}"), move || one(yard, *rtt, how)))
    });
    measure(&mut report, options, 3, sides.collect()).await?;
    for (rtt, sync, _) in &yards {
        let side = format!("idle at {rtt} ms{sync}");
        report.expect(&side, P50, Goal::AtMost(3.0));
        report.expect(&side, P99, Goal::AtMost(10.0));
    }
    report.finish(options.json.as_deref())
}

async fn one(yard: &Yard, rtt: u64, load: &Load) -> anyhow::Result<Sample> {
    let profile = profile(rtt);
    let (near, far) = (yard.factory(profile.as_str(), &[]).await?, yard.factory(profile.as_str(), &[]).await?);
    let arrivals = Arrivals::new()?;
    let executor = far.executor(arrivals.registry())?;
    let producer = near.producer();
    let jobs = sender::send(&producer, &arrivals, load).await?;
    arrivals.complete(jobs).await?;
    executor.drain(Duration::from_secs(5)).await;
    producer.close().await?;
    near.close().await?;
    far.close().await?;
    let above = |quantile| arrivals.quantile(quantile).as_secs_f64() * 1_000.0 - rtt as f64;
    let sample = Sample::default().checked(jobs);
    Ok(sample.and(P50, "ms", above(0.5)).and(P99, "ms", above(0.99)).and(P999, "ms", above(0.999)))
}
