//! `sweep`: what distance costs.

use std::time::Duration;

use wf_schema::config::Profile;

use crate::cli::Options;
use crate::plot::{self, Axes, Line, Scale};
use crate::report::{Goal, Report};
use crate::rounds::{Sample, Side, measure};
use crate::work;
use crate::yard::Yard;

/// The round-trip times, in milliseconds.
pub(crate) const RTTS: [u64; 6] = [0, 1, 10, 50, 100, 200];

pub(crate) async fn sweep(options: &Options) -> anyhow::Result<()> {
    let mut report =
        Report::new("sweep", "end-to-end jobs/s over the round-trip time, ingest and executors both far from the broker");
    let jobs: u64 = options.sized(6_000_000, 20_000);
    let rtts: &[u64] = options.sized(&RTTS, &[0, 10]);
    report.setting("jobs", jobs);
    report.setting("job", "math_add of two numbers, JSON args, typed handler");
    report.setting("broker", "nats-server, its default sync, behind the link at every distance");
    // A server for each distance, so that links do not share it.
    let yards: Vec<(u64, Yard)> = rtts.iter().map(|rtt| (*rtt, Yard::at(Duration::from_millis(*rtt)))).collect();
    let sides = Profile::ALL.into_iter().flat_map(|profile| yards.iter().map(move |(rtt, yard)| (profile, *rtt, yard)));
    let sides = sides.map(|(profile, rtt, yard)| {
        Side::new(name(profile, rtt), move || async move {
            // Producers and executors each on a link of their own, as two sites would be.
            let (near, far) = (yard.factory(profile.as_str(), &[]).await?, yard.other_factory(profile.as_str(), &[]).await?);
            let (up, other_up) = (yard.link().bytes_up(), yard.other().bytes_up());
            let flowed = work::end_to_end(&near, &far, jobs, work::job).await?;
            let each = |bytes: u64| bytes as f64 / jobs as f64;
            let (enqueue, ack) = (each(yard.link().bytes_up() - up), each(yard.other().bytes_up() - other_up));
            near.close().await?;
            far.close().await?;
            let sample = Sample::rate(jobs, flowed.took).and("batch", "jobs", jobs as f64 / flowed.batches as f64);
            Ok(sample.and("enqueue", "bytes/job", enqueue).and("ack and outcome", "bytes/job", ack))
        })
    });
    measure(&mut report, options, 3, sides.collect()).await?;
    for profile in Profile::ALL {
        let goal = (profile == Profile::Wan).then_some(Goal::AtLeast(0.95));
        for rtt in rtts.iter().skip(1) {
            let goal = goal.filter(|_| *rtt == 100);
            report.ratio(format!("{profile}: at {rtt} ms to at 0 ms"), "rate", &name(profile, *rtt), &name(profile, 0), goal);
        }
    }
    for (what, most) in [("enqueue", 12.0), ("ack and outcome", 2.0)] {
        let all: Vec<f64> = report.figures.iter().filter(|figure| figure.what == what).flat_map(|f| f.samples.clone()).collect();
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
