//! The count over all rounds: a table for people, JSON for programs.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::path::Path;

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::check::Findings;
use super::round::Outcome;
use super::scenario::Scenario;
use crate::format::table;
use crate::machine::Machine;
use crate::tell;

/// The whole of a result. Also what `--json` writes.
#[derive(Debug, Serialize)]
pub(crate) struct Tally {
    bench: &'static str,
    machine: Machine,
    settings: BTreeMap<&'static str, String>,
    scenarios: Vec<Row>,
    skipped: Vec<Skipped>,
    failed: Vec<Failed>,
    interrupted: bool,
}

/// A scenario, over its rounds.
#[derive(Debug, Serialize)]
struct Row {
    scenario: &'static str,
    about: &'static str,
    rounds: u64,
    /// How often something was done to the factory.
    faults: u64,
    seconds: f64,
    #[serde(flatten)]
    findings: Findings,
}

/// A scenario that could not be played.
#[derive(Debug, Serialize)]
struct Skipped {
    scenario: &'static str,
    why: String,
}

/// A round that broke a promise, or could not be played to its end.
#[derive(Debug, Serialize)]
struct Failed {
    scenario: &'static str,
    seed: u64,
    why: Vec<String>,
    journals: Option<String>,
}

impl Tally {
    pub(crate) fn new(rounds: u64, seed: u64, small: bool, at_once: u8) -> Self {
        let server = wf_nats::testing::nats_server();
        let machine = Machine::here().with_program("nats-server", &server, "--version");
        let settings = [
            ("rounds", rounds.to_string()),
            ("seed", seed.to_string()),
            ("small", small.to_string()),
            ("at once", at_once.to_string()),
            ("lease", format!("{:?}", super::setup::LEASE)),
        ];
        let (scenarios, skipped, failed) = (Vec::new(), Vec::new(), Vec::new());
        Self { bench: "faults", machine, settings: settings.into(), scenarios, skipped, failed, interrupted: false }
    }

    pub(crate) fn skipped(&mut self, scenario: &Scenario, why: String) {
        tell(&format!("{}: skipped: {why}", scenario.name));
        self.skipped.push(Skipped { scenario: scenario.name, why });
    }

    pub(crate) fn interrupted(&mut self) {
        self.interrupted = true;
    }

    /// Adds a round, and says how it went.
    pub(crate) fn add(&mut self, scenario: &Scenario, seed: u64, outcome: anyhow::Result<Outcome>) {
        match outcome {
            Ok(outcome) => {
                let Findings { jobs, accepted, completed, dead, .. } = outcome.findings;
                let seconds = outcome.took.as_secs_f64();
                let name = scenario.name;
                tell(&format!(
                    "{name} {seed}: {jobs} jobs, {accepted} accepted, {completed} completed, {dead} dead, {seconds:.1} s{}",
                    if outcome.findings.is_bad() { ": FAILED" } else { "" }
                ));
                outcome.findings.words.iter().for_each(|words| tell(&format!("  {words}")));
                if outcome.findings.is_bad() {
                    let journals = outcome.kept.as_ref().map(|kept| kept.display().to_string());
                    tell(&format!("  again: faults {name} --seed {seed}; journals: {}", journals.as_deref().unwrap_or("-")));
                    self.failed.push(Failed { scenario: name, seed, why: outcome.findings.words.clone(), journals });
                }
                let row = self.row(scenario);
                row.rounds += 1;
                row.faults += outcome.disturbances as u64;
                row.seconds += seconds;
                row.findings += outcome.findings;
            }
            Err(error) => {
                tell(&format!("{} {seed}: NOT PLAYED: {error:#}", scenario.name));
                self.failed.push(Failed { scenario: scenario.name, seed, why: vec![format!("{error:#}")], journals: None });
            }
        }
    }

    fn row(&mut self, scenario: &Scenario) -> &mut Row {
        let at = self.scenarios.iter().position(|row| row.scenario == scenario.name).unwrap_or_else(|| {
            let (scenario, about, findings) = (scenario.name, scenario.about, Findings::default());
            self.scenarios.push(Row { scenario, about, rounds: 0, faults: 0, seconds: 0.0, findings });
            self.scenarios.len() - 1
        });
        &mut self.scenarios[at]
    }

    /// Prints it, and writes it where the command line says.
    ///
    /// # Errors
    /// When a promise was broken, or a round was not played.
    pub(crate) fn finish(&self, json: Option<&Path>) -> anyhow::Result<()> {
        // A reader that has gone away wants no more.
        let _unread = std::io::stdout().write_all(self.text().as_bytes());
        if let Some(path) = json {
            let text = serde_json::to_string_pretty(self)?;
            std::fs::write(path, text + "\n").with_context(|| format!("the report cannot be written to {}", path.display()))?;
        }
        anyhow::ensure!(self.failed.is_empty(), "{} rounds failed", self.failed.len());
        anyhow::ensure!(!self.interrupted, "interrupted");
        Ok(())
    }

    fn text(&self) -> String {
        let heading = [
            "scenario",
            "rounds",
            "faults",
            "jobs",
            "accepted",
            "unknown",
            "completed",
            "dead",
            "buried",
            "condemned",
            "lost",
            "duplicated",
            "repeated",
            "doubled",
            "reordered",
            "stuck",
            "false accepts",
            "false errors",
            "broken",
            "recovery s",
        ];
        let mut rows = vec![heading.map(str::to_owned).to_vec()];
        let mut all = Row { scenario: "all", about: "", rounds: 0, faults: 0, seconds: 0.0, findings: Findings::default() };
        for row in &self.scenarios {
            rows.push(row.cells());
            all.rounds += row.rounds;
            all.faults += row.faults;
            all.findings += row.findings.clone();
        }
        rows.push(all.cells());
        let mut text = format!("faults\n{}\n", self.machine.line());
        for (name, value) in &self.settings {
            text.push_str(&format!("{name}: {value}\n"));
        }
        text.push('\n');
        text.push_str(&table(&rows, 1));
        for Skipped { scenario, why } in &self.skipped {
            text.push_str(&format!("{scenario}: skipped: {why}\n"));
        }
        for Failed { scenario, seed, .. } in &self.failed {
            text.push_str(&format!("FAILED: {scenario} --seed {seed}\n"));
        }
        text
    }
}

impl Row {
    fn cells(&self) -> Vec<String> {
        let found = &self.findings;
        let counts = [
            self.rounds,
            self.faults,
            found.jobs,
            found.accepted,
            found.unknown,
            found.completed,
            found.dead,
            found.buried_done,
            found.condemned,
            found.lost,
            found.duplicated,
        ];
        let more =
            [found.repeated, found.doubled, found.reordered, found.stuck, found.false_accepts, found.false_errors, found.broken];
        let counts = counts.into_iter().chain(more).map(|count| count.to_string());
        let recovery = format!("{:.1}", found.recovery_ms as f64 / 1e3);
        std::iter::once(self.scenario.to_owned()).chain(counts).chain([recovery]).collect()
    }
}

/// A bar on a terminal; elsewhere the lines of the rounds are enough.
pub(crate) fn progress(rounds: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(rounds);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos} of {len} rounds, {elapsed}, about {eta} left") {
        bar.set_style(style);
    }
    bar
}
