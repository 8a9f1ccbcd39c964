//! What is logged, and how.

use std::fmt;

use super::setting::Setting;

/// Which log lines are written: a level, or comma-separated `target=level`, as tracing's filters have it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LogFilter(String);

impl LogFilter {
    /// The filter's directives.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Setting for LogFilter {
    const EXPECTED: &'static str =
        "one of off, error, warn, info, debug, trace, or `target=level` pairs, e.g. `info,wf_nats=debug`";
    const LIST: bool = true;

    fn parse(text: &str) -> Option<Self> {
        let is_level = |text: &str| ["off", "error", "warn", "info", "debug", "trace"].contains(&text);
        let is_target = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-:".contains(&b));
        let directives: Vec<_> = text.split(',').map(str::trim).collect();
        let fits = directives.iter().all(|directive| match directive.split_once('=') {
            Some((target, level)) => is_target(target) && is_level(level),
            None => is_level(directive),
        });
        fits.then(|| Self(directives.join(",")))
    }

    fn shown(&self) -> String {
        self.0.clone()
    }
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line, for machines.
    Json,
}

impl Setting for LogFormat {
    const EXPECTED: &'static str = "one of text, json";

    fn parse(text: &str) -> Option<Self> {
        match text {
            "text" => Some(Self::Text),
            "json" => Some(Self::Json),
            _ => None,
        }
    }

    fn shown(&self) -> String {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
        .to_owned()
    }
}
