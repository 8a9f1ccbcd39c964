//! What came of many histories.

use std::collections::BTreeMap;
use std::time::Duration;

use super::draw::POINTS;
use super::play::Outcome;

/// The sums over all histories.
#[derive(Default)]
pub(crate) struct Report {
    seeds: u64,
    jobs: u64,
    lasted: Duration,
    hits: BTreeMap<String, u64>,
    pub(crate) failed: u64,
    /// By promise: how many histories broke it, and the first seeds that did.
    broken: BTreeMap<&'static str, (u64, Vec<u64>)>,
}

/// What must happen to a thousand histories, or they show less than they seem to.
const KINDS: &[&str] = &[
    "kill Ingest",
    "kill Executor",
    "kill Run",
    "drain",
    "cut off Ingest",
    "cut off Executor",
    "cut off Run",
    "server restart",
    "ack forgotten",
    "dedup ids forgotten",
    "delivery counts forgotten",
    "store rolled back",
    "lane full",
    "stale read",
    "records evicted",
    "reordered",
    "delivered again",
    "clock jumps",
    "spool's disk full",
    "request lost",
    "answer lost",
    "slow answer",
    "crash before",
    "crash after",
    "poison",
    "schedule fired",
    "redelivery",
];

impl Report {
    pub(crate) fn add(&mut self, seed: u64, outcome: &Outcome) {
        if let Some(first) = outcome.violations.first() {
            self.failed += 1;
            let (count, seeds) = self.broken.entry(first.what).or_default();
            *count += 1;
            seeds.push(seed);
        }
        self.seeds += 1;
        self.jobs += outcome.jobs as u64;
        self.lasted += outcome.lasted;
        for (what, count) in &outcome.hits {
            *self.hits.entry(what.clone()).or_default() += count;
        }
    }

    pub(crate) fn merge(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.jobs += other.jobs;
        self.lasted += other.lasted;
        self.failed += other.failed;
        for (what, (count, seeds)) in other.broken {
            let broken = self.broken.entry(what).or_default();
            broken.0 += count;
            broken.1.extend(seeds);
            broken.1.sort_unstable();
        }
        for (what, count) in other.hits {
            *self.hits.entry(what).or_default() += count;
        }
    }

    /// What never happened.
    pub(crate) fn missing(&self) -> Vec<String> {
        let points = points();
        let all = KINDS.iter().map(|kind| (*kind).to_owned()).chain(points);
        all.filter(|what| !self.hits.contains_key(what)).collect()
    }

    pub(crate) fn print(&self, took: Duration, tell: impl Fn(&str)) {
        let each = took.as_secs_f64() * 1e3 / self.seeds.max(1) as f64;
        tell(&format!(
            "{} histories, {} jobs, {} h of their time, {each:.1} ms each: {} broke a promise",
            self.seeds,
            self.jobs,
            self.lasted.as_secs() / 3_600,
            self.failed
        ));
        for (what, (count, seeds)) in &self.broken {
            let seeds: Vec<String> = seeds.iter().take(8).map(ToString::to_string).collect();
            tell(&format!("  {what:<28} {count:>8}  seeds {}", seeds.join(", ")));
        }
        tell("how often each thing happened:");
        for kind in KINDS {
            tell(&format!("  {:<28} {:>8}", kind, self.hits.get(*kind).copied().unwrap_or_default()));
        }
        tell("how often a node was gone at each point:");
        for point in points() {
            tell(&format!(
                "  {:<44} {:>8}",
                point.trim_start_matches("point: "),
                self.hits.get(&point).copied().unwrap_or_default()
            ));
        }
        let missing = self.missing();
        if !missing.is_empty() && self.seeds >= 1_000 {
            tell(&format!("never happened: {}", missing.join(", ")));
        }
    }
}

/// Where a node can be gone: before and after each thing that somebody else sees of it.
fn points() -> Vec<String> {
    let mut points: Vec<String> = POINTS
        .iter()
        .flat_map(|(role, op)| ["crash before", "crash after"].map(|when| format!("point: {role:?} {op:?} {when}")))
        .collect();
    points.sort();
    points.dedup();
    points
}
