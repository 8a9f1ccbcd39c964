//! What a benchmark came to: figures of each side, and the ratios between them.

use std::path::Path;

use anyhow::Context;
use serde::Serialize;

use crate::format::{number, table};
use crate::machine::Machine;
use crate::plot::Line;

/// The whole of a result. Also what `--json` writes.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) bench: &'static str,
    /// What is measured, in a sentence.
    pub(crate) about: &'static str,
    pub(crate) machine: Machine,
    /// What it was measured with.
    pub(crate) settings: Vec<(String, String)>,
    pub(crate) figures: Vec<Figure>,
    pub(crate) ratios: Vec<Ratio>,
    /// What was followed over time, where something was.
    pub(crate) series: Vec<Line>,
    /// How many jobs were enqueued, and found done exactly once.
    pub(crate) jobs_checked: u64,
    /// What a reader should know.
    pub(crate) notes: Vec<String>,
}

/// One measure of one side, over the rounds.
#[derive(Debug, Serialize)]
pub(crate) struct Figure {
    pub(crate) side: String,
    pub(crate) what: String,
    pub(crate) unit: &'static str,
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    /// In the order of the rounds.
    pub(crate) samples: Vec<f64>,
}

/// One side beside another, round by round.
#[derive(Debug, Serialize)]
pub(crate) struct Ratio {
    pub(crate) what: String,
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    pub(crate) goal: Option<Goal>,
    /// Whether the median is where it should be.
    pub(crate) reached: Option<bool>,
}

/// Where a ratio should be.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Goal {
    AtLeast(f64),
    AtMost(f64),
}

impl Goal {
    fn holds(self, value: f64) -> bool {
        match self {
            Self::AtLeast(bound) => value >= bound,
            Self::AtMost(bound) => value <= bound,
        }
    }

    fn shown(self) -> String {
        match self {
            Self::AtLeast(bound) => format!(">= {}", number(bound)),
            Self::AtMost(bound) => format!("<= {}", number(bound)),
        }
    }
}

impl Report {
    pub(crate) fn new(bench: &'static str, about: &'static str) -> Self {
        let machine = Machine::here().with_program("nats-server", &wf_nats::testing::nats_server(), "--version");
        let (settings, figures, ratios, series, notes) = Default::default();
        Self { bench, about, machine, settings, figures, ratios, series, jobs_checked: 0, notes }
    }

    pub(crate) fn setting(&mut self, name: &str, value: impl ToString) {
        self.settings.push((name.to_owned(), value.to_string()));
    }

    pub(crate) fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// Adds a sample of `what`, as `side` had it in this round.
    pub(crate) fn sample(&mut self, side: &str, what: &str, unit: &'static str, value: f64) {
        let at = self.figures.iter().position(|figure| figure.side == side && figure.what == what);
        let at = at.unwrap_or_else(|| {
            let (side, what) = (side.to_owned(), what.to_owned());
            self.figures.push(Figure { side, what, unit, median: 0.0, min: 0.0, max: 0.0, samples: Vec::new() });
            self.figures.len() - 1
        });
        let figure = &mut self.figures[at];
        figure.samples.push(value);
        (figure.median, figure.min, figure.max) = spread(&figure.samples);
    }

    pub(crate) fn figure(&self, side: &str, what: &str) -> Option<&Figure> {
        self.figures.iter().find(|figure| figure.side == side && figure.what == what)
    }

    /// Adds the ratio of `what` between two sides, taken within each round. Left out when one of them was not measured.
    pub(crate) fn ratio(&mut self, name: impl Into<String>, what: &str, side: &str, to: &str, goal: Option<Goal>) {
        let (Some(above), Some(below)) = (self.figure(side, what), self.figure(to, what)) else { return };
        let each: Vec<f64> = above.samples.iter().zip(&below.samples).map(|(above, below)| above / below).collect();
        self.ratio_of(name, &each, goal);
    }

    /// Adds a ratio that was taken otherwise, a value a round.
    pub(crate) fn ratio_of(&mut self, name: impl Into<String>, each: &[f64], goal: Option<Goal>) {
        let (median, min, max) = spread(each);
        let reached = goal.map(|goal| goal.holds(median));
        self.ratios.push(Ratio { what: name.into(), median, min, max, goal, reached });
    }

    /// Prints it, and writes it where the command line says.
    pub(crate) fn finish(&self, json: Option<&Path>) -> anyhow::Result<()> {
        print(&self.text());
        if let Some(path) = json {
            let text = serde_json::to_string_pretty(self)?;
            std::fs::write(path, text + "\n").with_context(|| format!("the report cannot be written to {}", path.display()))?;
        }
        Ok(())
    }

    fn text(&self) -> String {
        let mut text = format!("{}: {}\n{}\n", self.bench, self.about, self.machine.line());
        for (name, value) in &self.settings {
            text.push_str(&format!("{name}: {value}\n"));
        }
        let heading = ["side", "measure", "unit", "median", "min", "max", "rounds"].map(str::to_owned).to_vec();
        let figures = self.figures.iter().map(|f| {
            let numbers = [f.median, f.min, f.max].map(number);
            [vec![f.side.clone(), f.what.clone(), f.unit.to_owned()], numbers.to_vec(), vec![f.samples.len().to_string()]]
                .concat()
        });
        text.push('\n');
        text.push_str(&table(&std::iter::once(heading).chain(figures).collect::<Vec<_>>(), 3));
        if !self.ratios.is_empty() {
            let heading = ["ratio", "median", "min", "max", "goal", ""].map(str::to_owned).to_vec();
            let ratios = self.ratios.iter().map(|r| {
                let verdict = r.reached.map_or("", |reached| if reached { "reached" } else { "NOT REACHED" });
                let goal = r.goal.map(Goal::shown).unwrap_or_default();
                [vec![r.what.clone()], [r.median, r.min, r.max].map(number).to_vec(), vec![goal, verdict.to_owned()]].concat()
            });
            text.push('\n');
            text.push_str(&table(&std::iter::once(heading).chain(ratios).collect::<Vec<_>>(), 1));
        }
        if self.jobs_checked > 0 {
            text.push_str(&format!("\n{} jobs, each done exactly once\n", number(self.jobs_checked as f64)));
        }
        for note in &self.notes {
            text.push_str(&format!("note: {note}\n"));
        }
        text
    }
}

/// Median, least and most.
pub(crate) fn spread(samples: &[f64]) -> (f64, f64, f64) {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (Some(min), Some(max)) = (sorted.first(), sorted.last()) else { return (f64::NAN, f64::NAN, f64::NAN) };
    let middle = sorted.len() / 2;
    let median = if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 };
    (median, *min, *max)
}

fn print(text: &str) {
    use std::io::Write;
    // A reader that has gone away wants no more.
    let _unread = std::io::stdout().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_the_median_between_least_and_most() {
        assert_eq!(spread(&[3.0, 1.0, 2.0]), (2.0, 1.0, 3.0));
        assert_eq!(spread(&[4.0, 1.0]), (2.5, 1.0, 4.0));
        assert!(spread(&[]).0.is_nan());
    }

    #[test]
    fn goals_bind_on_their_own_side() {
        assert!(Goal::AtLeast(0.95).holds(0.95) && !Goal::AtLeast(0.95).holds(0.94));
        assert!(Goal::AtMost(1.5).holds(1.5) && !Goal::AtMost(1.5).holds(1.6));
    }
}
