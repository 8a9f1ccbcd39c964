//! How a command ends: what its exit code says.

use std::process::ExitCode;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// All well.
    Done = 0,
    /// It failed, or some jobs did not complete.
    Failed = 1,
    /// The command line or the configuration is wrong.
    Usage = 2,
    /// The broker cannot be reached.
    Unreachable = 3,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
