//! `slow`: whether jobs that take their time keep all executors busy.

use std::cell::Cell;
use std::time::{Duration, Instant};

use work_factory::{Job, Producer};

use crate::cli::Options;
use crate::nodes::{self, Node};
use crate::report::{Goal, Report};
use crate::rounds::{Sample, Side, measure};
use crate::work::{self, NAPS, Nap, nap};
use crate::yard::Yard;

const EXECUTORS: u64 = 4;
const SLOTS: u64 = 50;

pub(crate) async fn slow(options: &Options) -> anyhow::Result<()> {
    let mut report = Report::new("slow", "jobs that sleep, on four executor processes of 50 jobs at once");
    report.setting("profile", "local");
    report.note("the ideal is the time that the sleeps take when every slot sleeps without a pause");
    let yard = &Yard::at(Duration::ZERO);
    // Each round of a cold side needs kinds that no executor ever ran.
    let fresh = &Cell::new(0);
    let mut sides = Vec::new();
    for ms in [1, 20, 100] {
        // Five seconds of work for all slots.
        let jobs = EXECUTORS * SLOTS * options.sized(5_000, 200) / ms;
        sides.push(Side::new(format!("{jobs} jobs of {ms} ms"), move || stream(yard, jobs, ms, next(fresh))));
    }
    let at_once = 1_000;
    sides.push(Side::new("1,000 jobs of 100 ms at once, kind unknown", move || burst(yard, at_once, false, next(fresh))));
    sides.push(Side::new("1,000 jobs of 100 ms at once, kind known", move || burst(yard, at_once, true, next(fresh))));
    measure(&mut report, options, 5, sides).await?;
    let figures: Vec<(String, Vec<f64>)> = report
        .figures
        .iter()
        .filter(|figure| figure.what == "of the ideal")
        .map(|figure| (figure.side.clone(), figure.samples.clone()))
        .collect();
    for (side, samples) in figures {
        if side.contains("at once") {
            let times: Vec<f64> = samples.iter().map(|part| 1.0 / part).collect();
            report.ratio_of(format!("time / ideal: {side}"), &times, Some(Goal::AtMost(1.5)));
        } else {
            let goal = side.ends_with(" 20 ms").then_some(Goal::AtLeast(0.9));
            report.ratio_of(format!("utilisation: {side}"), &samples, goal);
        }
    }
    report.finish(options.json.as_deref())
}

/// A kind that was not used before in this run.
fn next(fresh: &Cell<u32>) -> u32 {
    let kind = fresh.get();
    fresh.set((kind + 1) % NAPS);
    kind
}

/// Jobs as fast as they are taken, until all are done.
async fn stream(yard: &Yard, jobs: u64, ms: u64, kind: u32) -> anyhow::Result<Sample> {
    let nodes = executors(yard).await?;
    let factory = yard.factory("local", &[]).await?;
    let producer = factory.producer();
    let began = Instant::now();
    enqueue(&producer, 0..jobs, ms, kind).await?;
    nodes::settled(&nodes, jobs).await?;
    let took = began.elapsed();
    nodes::end(nodes, jobs).await?;
    producer.close().await?;
    factory.close().await?;
    Ok(sample(jobs, ms, took).checked(jobs))
}

/// A thousand jobs in one call, to executors that idle.
async fn burst(yard: &Yard, jobs: u64, known: bool, kind: u32) -> anyhow::Result<Sample> {
    const MS: u64 = 100;
    let nodes = executors(yard).await?;
    let factory = yard.factory("local", &[]).await?;
    let producer = factory.producer();
    let before = if known { EXECUTORS * SLOTS } else { 0 };
    if known {
        // The executors measure the kind, and this producer hears of it.
        enqueue(&producer, jobs..jobs + before, MS, kind).await?;
        nodes::settled(&nodes, before).await?;
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
    let began = Instant::now();
    enqueue(&producer, 0..jobs, MS, kind).await?;
    nodes::settled(&nodes, before + jobs).await?;
    let took = began.elapsed();
    nodes::end(nodes, before + jobs).await?;
    producer.close().await?;
    factory.close().await?;
    Ok(sample(jobs, MS, took).and("time", "ms", took.as_secs_f64() * 1e3).checked(before + jobs))
}

fn sample(jobs: u64, ms: u64, took: Duration) -> Sample {
    let ideal = (jobs * ms) as f64 / 1e3 / (EXECUTORS * SLOTS) as f64;
    Sample::default().and("of the ideal", "", ideal / took.as_secs_f64())
}

async fn executors(yard: &Yard) -> anyhow::Result<Vec<Node>> {
    let mut nodes = Vec::new();
    for _ in 0..EXECUTORS {
        nodes.push(Node::executor(&yard.link().url(), "local", &[("executor.concurrency", &SLOTS.to_string())]).await?);
    }
    Ok(nodes)
}

async fn enqueue(producer: &Producer, numbers: std::ops::Range<u64>, ms: u64, kind: u32) -> anyhow::Result<()> {
    let (first, kind) = (numbers.start, nap(kind));
    let job = move |n: u64| Ok(Job::new(&kind, &Nap { n: first + n, ms })?.into_owned());
    work::enqueue(producer, numbers.end - first, &job).await
}
