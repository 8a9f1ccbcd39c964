//! All that was found.

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::{Check, Finding, Measured, Verdict};

/// The form of the JSON document. Fields may be added to it; when one is changed or removed, the number grows.
const FORMAT: u32 = 1;

/// How an examination ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// Everything was looked at.
    Complete,
    /// Somebody stopped it.
    Interrupted,
    /// Its time was over.
    TimedOut,
}

/// How many findings there are of each verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// As it should be.
    pub ok: usize,
    /// Worth knowing, or not checked.
    pub note: usize,
    /// Jobs can be lost on a bad day, or it is slower than it could be.
    pub warning: usize,
    /// It does not work, or loses jobs on a good day.
    pub problem: usize,
}

/// All that was found, and what is made of it. As JSON, one document.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    format: u32,
    /// The version of this program.
    pub version: &'static str,
    /// The broker, without user and password; `None` if the configuration does not name one that can be.
    pub broker: Option<String>,
    /// Whether the broker was reached; `None` if that was not tried.
    pub reached: Option<bool>,
    /// The worst of the verdicts.
    pub verdict: Verdict,
    /// How many findings there are of each.
    pub counts: Counts,
    /// How it ended.
    pub ended: Ended,
    /// How long it took.
    #[serde(rename = "elapsed_s", serialize_with = "seconds")]
    pub elapsed: Duration,
    /// What was found, in the order of [`Check::ALL`].
    pub checks: Vec<Finding>,
    /// The numbers behind it.
    pub measured: Measured,
}

impl Report {
    pub(super) fn new(broker: Option<String>, reached: Option<bool>, mut checks: Vec<Finding>, measured: Measured) -> Self {
        checks.sort_by_key(|finding| finding.check);
        let count = |verdict| checks.iter().filter(|finding| finding.verdict == verdict).count();
        let counts = Counts {
            ok: count(Verdict::Ok),
            note: count(Verdict::Note),
            warning: count(Verdict::Warning),
            problem: count(Verdict::Problem),
        };
        Self {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION"),
            broker,
            reached,
            verdict: checks.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Ok),
            counts,
            ended: Ended::Complete,
            elapsed: Duration::ZERO,
            checks,
            measured,
        }
    }

    /// That it `ended` so after `elapsed`.
    #[must_use]
    pub(super) fn ended(mut self, ended: Ended, elapsed: Duration) -> Self {
        (self.ended, self.elapsed) = (ended, elapsed);
        self
    }
}

fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_millis() as f64 / 1000.0)
}

/// A table, each advice on a line of its own, and a line that sums it up.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let checks = Check::ALL.iter().map(|check| check.as_str().len()).max().unwrap_or(0);
        let verdicts = Verdict::ALL.iter().map(|verdict| verdict.as_str().len()).max().unwrap_or(0);
        writeln!(f, "{:<checks$}  {:<verdicts$}  FOUND", "CHECK", "VERDICT")?;
        for finding in &self.checks {
            let of = finding.of.as_deref().map(|of| format!("{of}: ")).unwrap_or_default();
            writeln!(f, "{:<checks$}  {:<verdicts$}  {of}{}", finding.check, finding.verdict.as_str(), finding.found)?;
            if let Some(advice) = &finding.advice {
                writeln!(f, "{:indent$}-> {advice}", "", indent = checks + verdicts + 4)?;
            }
        }
        let Counts { ok, note, warning, problem } = self.counts;
        let of = |n: usize, name: &str| match n {
            0 => String::new(),
            1 => format!("1 {name}, "),
            n => format!("{n} {name}s, "),
        };
        let how = match self.ended {
            Ended::Complete => "",
            Ended::Interrupted => "interrupted, the rest was not checked: ",
            Ended::TimedOut => "the time was over, the rest was not checked: ",
        };
        let (problem, warning, note) = (of(problem, "problem"), of(warning, "warning"), of(note, "note"));
        writeln!(f, "{how}{problem}{warning}{note}{ok} ok ({:.1} s)", self.elapsed.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_aligned_and_summed_up() {
        let findings = vec![
            Finding::warning(Check::Durability, "syncs to disk every 2 min").of("n1").advice("set it to always"),
            Finding::ok(Check::Server, "nats-server 2.15.1"),
            Finding::note(Check::Consumers, "none yet"),
        ];
        let report = Report::new(None, Some(true), findings, Measured::default());
        assert_eq!(report.verdict, Verdict::Warning);
        let report = report.ended(Ended::Interrupted, Duration::from_millis(1_234));
        let expected = "\
CHECK        VERDICT  FOUND
server       ok       nats-server 2.15.1
consumers    note     none yet
durability   warning  n1: syncs to disk every 2 min
                      -> set it to always
interrupted, the rest was not checked: 1 warning, 1 note, 1 ok (1.2 s)
";
        assert_eq!(report.to_string(), expected);
    }
}
