//! `sweep`: what distance costs, and what lossy links and thin connections do.

use std::time::Duration;

use wf_nats::testing::Conditions;
use wf_schema::config::Profile;
use work_factory::Job;

use crate::cli::Options;
use crate::plot::{self, Axes, Line, Scale};
use crate::report::{Goal, Report};
use crate::rounds::{Sample, Side, measure};
use crate::work::{self, pair};
use crate::yard::Yard;

/// The round-trip times, in milliseconds.
pub(crate) const RTTS: [u64; 6] = [0, 1, 10, 50, 100, 200];

/// The sides that are not about distance alone.
const LOSSY: &str = "wireless at 100 ms with 30 ms of jitter and 1% lost";
const CLEAN: &str = "wireless at 100 ms";
const ONE: &str = "one connection of 10 MB/s at 100 ms";
const TWO: &str = "two connections of 10 MB/s at 100 ms";

pub(crate) async fn sweep(options: &Options) -> anyhow::Result<()> {
    let mut report =
        Report::new("sweep", "end-to-end jobs/s over the round-trip time, ingest and executors both far from the broker");
    // Enough of them that the way in and the way out, a second at the longest, are a small part.
    let jobs: u64 = options.sized(48_000_000, 20_000);
    let large = options.sized(200_000, 2_000);
    let rtts: &[u64] = options.sized(&RTTS, &[0, 10]);
    report.setting("jobs", jobs);
    report.setting("job", "math_add of two numbers, JSON args, typed handler");
    report.setting("jobs of the sides with thin connections", format!("{large}, with 1,000 random letters each"));
    report.setting("broker", "nats-server, its default sync, behind the link at every distance");
    // A server for each distance, so that links do not share it.
    let yards: Vec<(u64, Yard)> = rtts.iter().map(|rtt| (*rtt, Yard::at(Duration::from_millis(*rtt)))).collect();
    let far = Conditions { delay: Duration::from_millis(50), ..Conditions::default() };
    let lossy = Yard::new(false, Conditions { jitter: Duration::from_millis(30), loss: 0.01, ..far.clone() });
    let thin = Yard::new(false, Conditions { connection_rate: Some(10_000_000), ..far });

    let mut sides = Vec::new();
    for profile in Profile::ALL {
        for (rtt, yard) in &yards {
            sides.push(Side::new(name(profile, *rtt), move || flow(yard, profile, &[], jobs, work::job)));
        }
    }
    let lossy = &lossy;
    sides.push(Side::new(LOSSY, move || flow(lossy, Profile::Wireless, &[], jobs, work::job)));
    let thin = &thin;
    sides.push(Side::new(ONE, move || flow(thin, Profile::Wan, &[("broker.connections", "1")], large, padded)));
    sides.push(Side::new(TWO, move || flow(thin, Profile::Wan, &[("broker.connections", "2")], large, padded)));
    measure(&mut report, options, 3, sides).await?;

    for profile in Profile::ALL {
        let goal = (profile == Profile::Wan).then_some(Goal::AtLeast(0.95));
        for rtt in rtts.iter().skip(1) {
            let goal = goal.filter(|_| *rtt == 100);
            report.ratio(format!("{profile}: at {rtt} ms to at 0 ms"), "rate", &name(profile, *rtt), &name(profile, 0), goal);
        }
    }
    report.ratio("wireless at 100 ms: jitter and loss to none", "rate", LOSSY, CLEAN, Some(Goal::AtLeast(0.5)));
    report.ratio("thin connections: two to one", "rate", TWO, ONE, None);
    for (what, most) in [("enqueue", 12.0), ("ack and outcome", 2.0)] {
        let seeds = |side: &str| side != ONE && side != TWO;
        let all: Vec<f64> =
            report.figures.iter().filter(|f| f.what == what && seeds(&f.side)).flat_map(|f| f.samples.clone()).collect();
        report.ratio_of(format!("bytes a job, all sides: {what}"), &all, Some(Goal::AtMost(most)));
    }
    if let Some(path) = &options.svg {
        let line = |profile: Profile| {
            let points = rtts.iter().filter_map(|rtt| Some((*rtt as f64, report.figure(&name(profile, *rtt), "rate")?.median)));
            Line { name: profile.to_string(), points: points.collect() }
        };
        let lines: Vec<Line> = Profile::ALL.into_iter().map(line).collect();
        let title = "Jobs per second over the round-trip time, by profile";
        plot::draw(path, &Axes { title, x: "round trip, ms", y: "jobs/s", scale: Scale::Even }, &lines)?;
    }
    report.finish(options.json.as_deref())
}

fn name(profile: Profile, rtt: u64) -> String {
    format!("{profile} at {rtt} ms")
}

/// One end-to-end run, producers and executors each on a link of their own, as two sites would be.
async fn flow(
    yard: &Yard,
    profile: Profile,
    settings: &[(&str, &str)],
    jobs: u64,
    make: fn(u64) -> anyhow::Result<Job<'static>>,
) -> anyhow::Result<Sample> {
    let profile = profile.as_str();
    let (near, far) = (yard.factory(profile, settings).await?, yard.other_factory(profile, settings).await?);
    let (up, other_up) = (yard.link().bytes_up(), yard.other().bytes_up());
    let flowed = work::end_to_end(&near, &far, jobs, make).await?;
    let each = |bytes: u64| bytes as f64 / jobs as f64;
    let (enqueue, ack) = (each(yard.link().bytes_up() - up), each(yard.other().bytes_up() - other_up));
    near.close().await?;
    far.close().await?;
    let sample = Sample::rate(jobs, flowed.took).and("batch", "jobs", jobs as f64 / flowed.batches as f64);
    Ok(sample.and("enqueue", "bytes/job", enqueue).and("ack and outcome", "bytes/job", ack))
}

/// Job number `n` of the seed's, with a thousand letters that no codec makes shorter.
fn padded(n: u64) -> anyhow::Result<Job<'static>> {
    let mut random = fastrand::Rng::with_seed(n);
    let pad: String = std::iter::repeat_with(|| random.alphanumeric()).take(1_000).collect();
    let work::Pair { a, b } = pair(n);
    Ok(Job::new("math_add", &serde_json::json!({ "a": a, "b": b, "pad": pad }))?)
}
