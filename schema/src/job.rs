//! A job on its way in: what to run, where, and how it is to be treated.

use std::borrow::Cow;
use std::time::Duration;

use serde::Serialize;

use crate::{Backoff, Kind, Lane, Millis, NameError, Policy, Priority, Queue, now};

/// How the args and the results of a batch's jobs are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// JSON text, from HTTP, files and the nats CLI.
    #[default]
    Json,
    /// postcard, from typed Rust producers.
    Postcard,
}

/// One unit of work: a kind, its args and its policy, bound for a lane.
///
/// Borrows its kind, and from the text it was read from what else it can; [`Job::into_owned`] cuts it loose.
#[derive(Clone, Debug, PartialEq)]
pub struct Job<'a> {
    /// Which handler runs it.
    pub kind: Cow<'a, str>,
    /// What the handler is given, written in `format`.
    pub args: Cow<'a, [u8]>,
    /// How the args are written.
    pub format: Format,
    /// How it is to be treated.
    pub policy: Policy,
    /// Where it waits.
    pub lane: Lane,
    /// Not to be started before; `None` is at once.
    pub run_at: Option<Millis>,
}

impl<'a> Job<'a> {
    /// A job of `kind` whose handler is given `args`, written as JSON; in the default lane, with the default policy.
    ///
    /// ```
    /// # fn main() -> Result<(), wf_schema::JobError> {
    /// use wf_schema::{Job, Priority};
    ///
    /// let job = Job::new("math_add", &(1.0, 2.0))?.priority(Priority::High).max_attempts(3);
    /// assert_eq!(&*job.args, b"[1.0,2.0]");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// When `kind` is no kind, or `args` cannot be written as JSON.
    pub fn new(kind: &'a str, args: &impl Serialize) -> Result<Self, JobError> {
        let args = serde_json::to_vec(args).map_err(|error| JobError::Args(error.to_string()))?;
        Self::written(kind, args, Format::Json)
    }

    /// The same with `args` written as postcard: smaller and faster, for handlers that are typed Rust too.
    ///
    /// # Errors
    /// When `kind` is no kind, or `args` cannot be written as postcard.
    #[inline]
    pub fn compact(kind: &'a str, args: &impl Serialize) -> Result<Self, JobError> {
        // Room for what most args are, so that they do not grow into it bit by bit.
        let args = postcard::to_extend(args, Vec::with_capacity(32)).map_err(|error| JobError::Args(error.to_string()))?;
        Self::written(kind, args, Format::Postcard)
    }

    #[inline]
    fn written(kind: &'a str, args: Vec<u8>, format: Format) -> Result<Self, JobError> {
        Kind::check(kind)?;
        Ok(Self {
            kind: Cow::Borrowed(kind),
            args: Cow::Owned(args),
            format,
            policy: Policy::default(),
            lane: Lane::default(),
            run_at: None,
        })
    }
}

impl Job<'_> {
    /// Sends it to `queue`.
    pub fn queue(mut self, queue: Queue) -> Self {
        self.lane.queue = queue;
        self
    }

    /// Gives it `priority` within its queue.
    pub fn priority(mut self, priority: Priority) -> Self {
        self.lane.priority = priority;
        self
    }

    /// Lets it be tried `attempts` times in all (at least 1, at most [`Policy::MAX_ATTEMPTS`]).
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.policy.max_attempts = attempts.clamp(1, Policy::MAX_ATTEMPTS);
        self
    }

    /// Lets one attempt take `timeout` (at least a millisecond, at most [`Policy::MAX_TIMEOUT`]).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.policy.timeout_ms = millis(timeout.min(Policy::MAX_TIMEOUT)).max(1);
        self
    }

    /// Pauses between attempts as `backoff` says.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.policy.backoff = backoff;
        self
    }

    /// Makes it worthless once `after` has passed since it was enqueued.
    pub fn expires_in(mut self, after: Duration) -> Self {
        self.policy.expires_in_ms = Some(millis(after));
        self
    }

    /// Asks for its outcome to be stored, so that its result can be asked for.
    pub fn store_result(mut self) -> Self {
        self.policy.store_result = true;
        self
    }

    /// Holds it back until `at`.
    pub fn run_at(mut self, at: Millis) -> Self {
        self.run_at = Some(at);
        self
    }

    /// Holds it back for `delay` from now.
    pub fn delay(self, delay: Duration) -> Self {
        self.run_at(now().saturating_add(millis(delay)))
    }

    /// Whether `other` is like this one but for its args: the same kind, format, policy, lane and time.
    #[inline]
    pub fn is_like(&self, other: &Job<'_>) -> bool {
        // Mostly the very same text, which needs no reading.
        (std::ptr::eq(&*self.kind, &*other.kind) || self.kind == other.kind)
            && self.format == other.format
            && self.lane == other.lane
            && self.policy == other.policy
            && self.run_at == other.run_at
    }

    /// The job with everything it borrowed copied.
    pub fn into_owned(self) -> Job<'static> {
        Job { kind: Cow::Owned(self.kind.into_owned()), args: Cow::Owned(self.args.into_owned()), ..self }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Why something is not a job.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JobError {
    /// The kind or the queue is no name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// It is not JSON, or not of the form of a job; says which field.
    #[error("{0}")]
    Form(String),
    /// The args cannot be written in the format asked for.
    #[error("the args cannot be written: {0}")]
    Args(String),
    /// A value is outside its limits.
    #[error("{field} is {value}; {limit}")]
    Limit {
        /// The field.
        field: &'static str,
        /// What it is.
        value: String,
        /// What is allowed, and what to do.
        limit: String,
    },
}

impl JobError {
    pub(crate) fn limit(field: &'static str, value: impl ToString, limit: impl Into<String>) -> Self {
        Self::Limit { field, value: value.to_string(), limit: limit.into() }
    }
}
