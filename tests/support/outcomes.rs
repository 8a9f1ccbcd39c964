//! Outcome lines, compared as sets: in which order jobs end is nobody's promise.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use serde_json::Value;

/// What the lines of a run's results say.
#[derive(Default)]
pub(crate) struct Outcomes {
    ids: HashSet<String>,
    /// What became of jobs, and of how many the same.
    pub(crate) told: BTreeMap<String, u64>,
}

impl Outcomes {
    /// Reads lines. Fails when one is no outcome, or two are about the same job.
    #[track_caller]
    pub(crate) fn read(text: &str) -> Self {
        let mut outcomes = Self::default();
        for line in text.lines() {
            let outcome: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            let id = outcome["id"].as_str().unwrap_or_else(|| panic!("no id: {line}")).to_owned();
            assert!(outcomes.ids.insert(id), "a second line about the same job: {line}");
            *outcomes.told.entry(told(&outcome)).or_default() += 1;
        }
        outcomes
    }

    #[track_caller]
    pub(crate) fn in_file(path: &Path) -> Self {
        Self::read(&std::fs::read_to_string(path).unwrap())
    }

    /// How many jobs there are.
    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }

    /// Fails unless they are what was `expected`.
    #[track_caller]
    pub(crate) fn assert_are(&self, expected: &BTreeMap<String, u64>) {
        assert!(self.told == *expected, "{}", differences(&self.told, expected));
    }
}

/// An outcome without its id, which differs from run to run.
fn told(outcome: &Value) -> String {
    let text = |key: &str| outcome[key].as_str().unwrap_or("-").to_owned();
    let end = match &outcome["error"] {
        Value::Null => outcome["result"].to_string(),
        error => format!("{}: {}", error["type"].as_str().unwrap_or("-"), error["message"].as_str().unwrap_or("-")),
    };
    format!("{} {} {} {} {end}", text("kind"), text("queue"), text("state"), outcome["attempts"])
}

fn differences(found: &BTreeMap<String, u64>, expected: &BTreeMap<String, u64>) -> String {
    let count = |map: &BTreeMap<String, u64>, key: &String| map.get(key).copied().unwrap_or(0);
    let keys: HashSet<&String> = found.keys().chain(expected.keys()).collect();
    let mut differing: Vec<_> = keys.into_iter().filter(|key| count(found, key) != count(expected, key)).collect();
    differing.sort();
    let shown =
        differing.iter().take(12).map(|key| format!("\n  {key}: {} times, expected {}", count(found, key), count(expected, key)));
    format!("{} outcomes are not as they should be:{}", differing.len(), shown.collect::<String>())
}

/// How many whole lines the file has now.
pub(crate) fn line_count(path: &Path) -> usize {
    std::fs::read(path).map(|bytes| bytes.iter().filter(|byte| **byte == b'\n').count()).unwrap_or(0)
}
