//! One row of what was found.

use serde::Serialize;

use super::{Check, Verdict};

/// The longest name or message from outside that is shown, in characters.
const LONGEST: usize = 300;

/// What was found by one check, what is made of it, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The check.
    pub check: Check,
    /// What it is about, where a check looks at several things: a stream, a server.
    pub of: Option<String>,
    /// What is made of it.
    pub verdict: Verdict,
    /// What was found, with units.
    pub found: String,
    /// What a person should do, if anything.
    pub advice: Option<String>,
}

impl Finding {
    /// A finding.
    pub fn new(check: Check, verdict: Verdict, found: impl Into<String>) -> Self {
        Self { check, of: None, verdict, found: found.into(), advice: None }
    }

    pub(super) fn ok(check: Check, found: impl Into<String>) -> Self {
        Self::new(check, Verdict::Ok, found)
    }

    pub(super) fn note(check: Check, found: impl Into<String>) -> Self {
        Self::new(check, Verdict::Note, found)
    }

    pub(super) fn warning(check: Check, found: impl Into<String>) -> Self {
        Self::new(check, Verdict::Warning, found)
    }

    pub(super) fn problem(check: Check, found: impl Into<String>) -> Self {
        Self::new(check, Verdict::Problem, found)
    }

    /// About `of`.
    #[must_use]
    pub(super) fn of(mut self, of: &str) -> Self {
        self.of = Some(shown(of));
        self
    }

    /// With `advice`.
    #[must_use]
    pub(super) fn advice(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }
}

/// Text from outside as it may be shown: of a bounded length, and nothing that would move the cursor of a terminal.
pub(super) fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(LONGEST).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(LONGEST).is_some() {
        shown.push('…');
    }
    shown
}

/// What the error and its causes say, in one line.
pub(super) fn said(error: &(dyn std::error::Error + 'static)) -> String {
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !said.contains(&more) {
            said = format!("{said}: {more}");
        }
        cause = error.source();
    }
    shown(&said)
}
