//! `ceiling`: what the pipeline costs beside a loop that does nothing but the unavoidable.

mod raw;

use work_factory::Job;

use crate::cli::Options;
use crate::report::{Goal, Report};
use crate::rounds::{Sample, Side, measure};
use crate::work;
use crate::yard::Yard;

/// How the server of a pair of sides is synced.
const SYNCS: [(&str, bool); 2] = [("default sync", false), ("sync always", true)];

pub(crate) async fn ceiling(options: &Options) -> anyhow::Result<()> {
    let mut report = Report::new(
        "ceiling",
        "the pipeline beside a bare loop on async-nats that encodes, publishes, consumes, decodes and acks",
    );
    let jobs: u64 = options.sized(4_000_000, 20_000);
    report.setting("jobs", jobs);
    report.setting("job", "a typed no-op, postcard args of one number");
    report.setting("profile", "local, batches as it makes them; the bare loop uses batches of as many jobs");
    let yards = SYNCS.map(|(name, always)| (name, Yard::new(always, Default::default())));
    let mut sides = Vec::new();
    for (sync, yard) in &yards {
        sides.push(Side::new(format!("ours, {sync}"), move || ours(yard, jobs, job)));
        sides.push(Side::new(format!("bare loop, {sync}"), move || raw::run(yard.link().url(), jobs)));
        sides.push(Side::new(format!("ours, outcomes stored, {sync}"), move || {
            ours(yard, jobs, |n| job(n).map(Job::store_result))
        }));
    }
    measure(&mut report, options, 5, sides).await?;
    for (sync, _) in &yards {
        let (ours, bare, stored) =
            (format!("ours, {sync}"), format!("bare loop, {sync}"), format!("ours, outcomes stored, {sync}"));
        report.ratio(format!("ours / bare loop, {sync}"), "rate", &ours, &bare, Some(Goal::AtLeast(0.6)));
        report.ratio(format!("outcomes stored / none, {sync}"), "rate", &stored, &ours, Some(Goal::AtLeast(0.6)));
    }
    let always = Some(Goal::AtLeast(0.4));
    report.ratio("ours: sync always / default", "rate", "ours, sync always", "ours, default sync", always);
    report.ratio("bare loop: sync always / default", "rate", "bare loop, sync always", "bare loop, default sync", None);
    report.finish(options.json.as_deref())
}

/// One job of the ceiling: its number, for a handler that only takes note of it.
fn job(n: u64) -> anyhow::Result<Job<'static>> {
    Ok(Job::compact("noop", &n)?)
}

async fn ours(
    yard: &Yard,
    jobs: u64,
    make: impl Fn(u64) -> anyhow::Result<Job<'static>> + Send + Sync + 'static,
) -> anyhow::Result<Sample> {
    let factory = yard.factory("local", &[]).await?;
    let flowed = work::end_to_end(&factory, &factory, jobs, make).await?;
    factory.close().await?;
    Ok(Sample::rate(jobs, flowed.took).and("batch", "jobs", jobs as f64 / flowed.batches as f64))
}
