//! What is made of a finding.

use serde::Serialize;

/// What is made of a finding, the mildest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Worth knowing, or not checked.
    Note,
    /// Accepted jobs can be lost on a bad day, or the factory is slower than it could be.
    Warning,
    /// The factory does not work, or loses accepted jobs on a good day.
    Problem,
}

impl Verdict {
    /// All verdicts, the worst first.
    pub const ALL: [Self; 4] = [Self::Problem, Self::Warning, Self::Note, Self::Ok];

    /// The verdict's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }
}
