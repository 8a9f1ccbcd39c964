//! Rounds: the sides of a comparison take turns, so that what else the machine does meets all of them.

use std::time::Duration;

use anyhow::Context;
use futures::future::LocalBoxFuture;

use crate::cli::Options;
use crate::report::Report;
use crate::tell;

/// What one measurement came to.
#[derive(Debug, Default)]
pub(crate) struct Sample {
    measures: Vec<(&'static str, &'static str, f64)>,
    jobs: u64,
}

impl Sample {
    /// `jobs`, each found done exactly once, in `took`.
    pub(crate) fn rate(jobs: u64, took: Duration) -> Self {
        Self::default().checked(jobs).and("rate", "jobs/s", jobs as f64 / took.as_secs_f64())
    }

    /// Says that this many jobs more were found done exactly once.
    pub(crate) fn checked(mut self, jobs: u64) -> Self {
        self.jobs += jobs;
        self
    }

    /// Adds another measure.
    pub(crate) fn and(mut self, what: &'static str, unit: &'static str, value: f64) -> Self {
        self.measures.push((what, unit, value));
        self
    }
}

/// One side: what is done to measure it, once a round.
pub(crate) struct Side<'a> {
    pub(crate) name: String,
    measure: Box<dyn Fn() -> LocalBoxFuture<'a, anyhow::Result<Sample>> + 'a>,
}

impl<'a> Side<'a> {
    pub(crate) fn new<F>(name: impl Into<String>, measure: impl Fn() -> F + 'a) -> Self
    where
        F: Future<Output = anyhow::Result<Sample>> + 'a,
    {
        Self { name: name.into(), measure: Box::new(move || Box::pin(measure())) }
    }
}

/// Measures all sides in turns, `usual` rounds unless the command line says otherwise, into `report`. Every round
/// begins with another side.
///
/// # Errors
/// The first that failed: a side that loses a job has no rate.
pub(crate) async fn measure(report: &mut Report, options: &Options, usual: u32, sides: Vec<Side<'_>>) -> anyhow::Result<()> {
    let rounds = options.rounds(usual);
    let mut sides: Vec<Side<'_>> = sides.into_iter().filter(|side| options.wants(&side.name)).collect();
    anyhow::ensure!(!sides.is_empty(), "no side is called like that");
    report.setting("rounds", rounds);
    for round in 1..=rounds {
        for side in &sides {
            let sample = (side.measure)().await.with_context(|| format!("{} in round {round}", side.name))?;
            let shown: Vec<String> = sample
                .measures
                .iter()
                .map(|(what, unit, value)| format!("{what} {} {unit}", crate::format::number(*value)))
                .collect();
            tell(&format!("round {round} of {rounds}: {}: {}", side.name, shown.join(", ")));
            for (what, unit, value) in sample.measures {
                report.sample(&side.name, what, unit, value);
            }
            report.jobs_checked += sample.jobs;
        }
        sides.rotate_left(1);
    }
    // As they were given, for whoever reads the table.
    Ok(())
}
