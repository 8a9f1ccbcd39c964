//! What became of an attempt.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Millis;

/// How one attempt at a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum State {
    /// The handler returned a result.
    Completed = 0,
    /// The attempt failed, and there will be another.
    Retryable = 1,
    /// The attempt failed, and there will not be another: the job is a dead letter.
    Discarded = 2,
    /// Somebody cancelled the job.
    Cancelled = 3,
    /// The job was not started in time: it is a dead letter.
    Expired = 4,
    /// The attempt was not made here: the job went on to another executor, or to a later time.
    Moved = 5,
}

impl State {
    /// Whether nothing more will happen to the job by itself.
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Retryable | Self::Moved)
    }

    /// The state's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Retryable => "retryable",
            Self::Discarded => "discarded",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
            Self::Moved => "moved",
        }
    }

    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        [Self::Completed, Self::Retryable, Self::Discarded, Self::Cancelled, Self::Expired, Self::Moved]
            .get(byte as usize)
            .copied()
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Why an attempt failed: a type for machines, a message for people.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Failure {
    /// What sort of failure: the handler's own word, or one of `panic`, `timeout`, `no_handler`, `bad_args`, `expired`,
    /// `undecodable`, `executor_lost`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What happened.
    pub message: String,
}

impl Failure {
    /// The longest type that is kept, in bytes.
    pub const MAX_KIND: usize = 64;
    /// The longest message that is kept, in bytes.
    pub const MAX_MESSAGE: usize = 2_048;

    /// A failure of type `kind`. Both texts are cut to what is kept.
    pub fn new(kind: impl Into<String>, message: impl Into<String>) -> Self {
        Self { kind: cut(kind.into(), Self::MAX_KIND), message: cut(message.into(), Self::MAX_MESSAGE) }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.message)
    }
}

/// An attempt that failed before, as a retried job carries it along.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PastFailure {
    /// Which attempt, from 1.
    pub attempt: u32,
    /// When it failed.
    pub at: Millis,
    /// Why.
    pub failure: Failure,
}

/// At most `max` bytes of `text`, cut between characters.
fn cut(mut text: String, max: usize) -> String {
    if text.len() > max {
        let end = (0..=max).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_between_characters() {
        let failure = Failure::new("t", "ü".repeat(2_000));
        assert_eq!(failure.message.len(), Failure::MAX_MESSAGE);
        assert_eq!(cut("aü".into(), 2), "a");
    }
}
