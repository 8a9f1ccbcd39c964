//! Queues, priorities and lanes: where a job waits.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::name::{NameError, checked};

/// The longest queue name, in bytes.
pub const MAX_QUEUE_LEN: usize = 64;

/// The name of a queue: 1 to 64 of `A-Z a-z 0-9 _ -`, so that it can be a token of a subject.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Queue(
    /// `None` is [`DEFAULT`]. Most jobs go there, and nothing is counted for it as they pass from thread to thread.
    Option<Arc<str>>,
);

/// What the default queue is called.
const DEFAULT: &str = "default";

impl Queue {
    /// The queue called `name`.
    ///
    /// # Errors
    /// When the name is empty, too long, or has a character outside `A-Z a-z 0-9 _ -`.
    pub fn new(name: &str) -> Result<Self, NameError> {
        if name == DEFAULT {
            return Ok(Self(None));
        }
        checked("queue", name, MAX_QUEUE_LEN, "_-").map(|name| Self(Some(name)))
    }

    /// The name.
    #[inline]
    pub fn as_str(&self) -> &str {
        self.0.as_deref().unwrap_or(DEFAULT)
    }
}

impl Default for Queue {
    /// The queue `default`.
    #[inline]
    fn default() -> Self {
        Self(None)
    }
}

impl PartialOrd for Queue {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Queue {
    /// By name.
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl TryFrom<String> for Queue {
    type Error = NameError;

    fn try_from(name: String) -> Result<Self, NameError> {
        Self::new(&name)
    }
}

impl From<Queue> for String {
    fn from(queue: Queue) -> Self {
        queue.as_str().to_owned()
    }
}

impl FromStr for Queue {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        Self::new(name)
    }
}

impl fmt::Display for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// How urgent a job is among the jobs of its queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// Served first: gets six parts of an executor's attention in ten.
    High,
    /// The default: three parts in ten.
    #[default]
    Normal,
    /// Served last, but never starved: one part in ten.
    Low,
}

impl Priority {
    /// All priorities, the most urgent first.
    pub const ALL: [Self; 3] = [Self::High, Self::Normal, Self::Low];

    /// The priority's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Normal => "normal",
            Self::Low => "low",
        }
    }

    /// The share of an executor's attention that the lane gets, beside the queue's other lanes.
    pub fn weight(self) -> u32 {
        match self {
            Self::High => 6,
            Self::Normal => 3,
            Self::Low => 1,
        }
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Priority {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::ALL
            .into_iter()
            .find(|p| p.as_str() == text)
            .ok_or_else(|| NameError::new("priority", text, "one of high, normal, low"))
    }
}

/// One queue at one priority: the unit in which jobs wait, travel and are held back.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Lane {
    /// The queue.
    pub queue: Queue,
    /// The priority within it.
    pub priority: Priority,
}

impl Lane {
    /// The lane of `queue` at `priority`.
    pub fn new(queue: Queue, priority: Priority) -> Self {
        Self { queue, priority }
    }

    /// The three lanes of `queue`, the most urgent first.
    pub fn of(queue: &Queue) -> [Self; 3] {
        Priority::ALL.map(|priority| Self::new(queue.clone(), priority))
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.queue, self.priority)
    }
}

impl FromStr for Lane {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (queue, priority) = text.split_once('.').ok_or_else(|| NameError::new("lane", text, "<queue>.<priority>"))?;
        Ok(Self::new(queue.parse()?, priority.parse()?))
    }
}
