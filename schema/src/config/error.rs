//! What is wrong with a configuration. These messages are what an operator sees; each names the key, the value, the
//! limit and where the value came from.

use std::fmt;
use std::path::PathBuf;

use super::broker_url::masked;
use super::origin::Origin;

/// A value as somebody gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Given {
    /// The key.
    pub key: String,
    /// The value, cut to a length that can be shown, without secrets.
    pub value: String,
    /// Where it came from.
    pub origin: Origin,
}

impl Given {
    pub(super) fn new(key: &str, value: &str, origin: Origin) -> Self {
        Self { key: cut(key), value: cut(&masked(value)), origin }
    }
}

/// `` `batch.linger` = `5 m` (environment WF_BATCH_LINGER) ``
impl fmt::Display for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` = `{}` ({})", self.key, self.value, self.origin)
    }
}

/// At most 80 characters of `text`, none of them one that would move the cursor of a terminal.
pub(super) fn cut(text: &str) -> String {
    let mut shown: String = text.chars().take(80).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(80).is_some() {
        shown.push('…');
    }
    shown
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("configuration file {} ({named_by}) cannot be read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Who named it: the command line, `WF_CONFIG`, or nobody.
        named_by: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("configuration file {} is not valid TOML", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where in the file, and why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A key that does not exist.
    #[error("unknown key `{key}` ({origin}){}", did_you_mean(nearest.as_deref()))]
    UnknownKey {
        /// The key.
        key: String,
        /// Where it stands.
        origin: Origin,
        /// A key that does exist and looks like it.
        nearest: Option<String>,
    },
    /// A section that was given a value of its own.
    #[error("`{section}` ({origin}) is a section, not a value: write `[{section}]` and its settings below it")]
    NotASection {
        /// The section.
        section: String,
        /// Where it stands.
        origin: Origin,
    },
    /// A value that is not what its key takes.
    #[error("{given} is not valid: expected {expected}")]
    Invalid {
        /// The value.
        given: Given,
        /// What was expected.
        expected: &'static str,
    },
    /// A value that is too small or too large.
    #[error("{given} is out of range: allowed is {min} to {max}")]
    OutOfRange {
        /// The value.
        given: Given,
        /// The least.
        min: &'static str,
        /// The most.
        max: &'static str,
    },
    /// Two values that are fine alone and not together.
    #[error("{given} must be {relation} {other}: {why}")]
    Conflict {
        /// The one value.
        given: Box<Given>,
        /// How they must stand to each other.
        relation: &'static str,
        /// The other value.
        other: Box<Given>,
        /// The reason.
        why: &'static str,
    },
    /// More than one thing is wrong.
    #[error("{} settings are wrong:{}", .0.len(), .0.iter().map(|error| format!("\n  {error}")).collect::<String>())]
    Several(Vec<ConfigError>),
}

impl ConfigError {
    /// Whether the same load might succeed later: no, somebody has to change something.
    pub fn is_retryable(&self) -> bool {
        false
    }

    /// One error for all that is wrong.
    pub(super) fn of(mut problems: Vec<Self>) -> Self {
        if problems.len() == 1 { problems.remove(0) } else { Self::Several(problems) }
    }
}

/// Something that looks like a mistake but harms nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Warning {
    /// An environment variable `WF_*` that sets nothing.
    UnknownVariable {
        /// Its name.
        name: String,
        /// A variable that does exist and looks like it.
        nearest: Option<String>,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownVariable { name, nearest } => {
                write!(f, "environment variable `{name}` sets nothing{}", did_you_mean(nearest.as_deref()))
            }
        }
    }
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map(|nearest| format!(": did you mean `{nearest}`?")).unwrap_or_default()
}
