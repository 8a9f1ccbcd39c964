//! What can be set: how jobs are gathered, how much may be on its way, how long anybody waits.

use std::sync::Arc;
use std::time::Duration;

use wf_broker::Broker;

use crate::{MeasuredRunTimes, Spool, Window};

/// When a batch is full, and how long it may wait to become so. Whichever is reached first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchOptions {
    /// The longest that a job waits for others to travel with.
    pub linger: Duration,
    /// The size on the wire, in bytes, estimated from how well the batches before could be compressed.
    pub wire_bytes: usize,
    /// The number of jobs.
    pub jobs: usize,
    /// The size before compression, in bytes.
    pub raw_bytes: usize,
    /// The time that the jobs are expected to run, one after another; needs [`ProducerOptions::run_times`].
    pub run_time: Duration,
}

impl Default for BatchOptions {
    /// Those of the profile `local`: 1 ms, 32 KiB, 4,000 jobs, 8 MiB, 1 s.
    fn default() -> Self {
        Self {
            linger: Duration::from_millis(1),
            wire_bytes: 32 << 10,
            jobs: 4_000,
            raw_bytes: 8 << 20,
            run_time: Duration::from_secs(1),
        }
    }
}

/// How long a publish goes on trying.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// While the lane is full. A batch that waits for room in its lane leaves the window to others.
    pub full: Duration,
    /// While the broker cannot be reached. Counted from the first try; a try under way is not cut short.
    pub away: Duration,
}

impl Default for Patience {
    /// A minute each: for callers that have nowhere else to go with their jobs.
    fn default() -> Self {
        Self { full: Duration::from_secs(60), away: Duration::from_secs(60) }
    }
}

/// Knows how long jobs run, from whoever measures it.
pub trait RunTimes: Send + Sync + 'static {
    /// How long a job of `kind` is expected to run; zero if that is not known. Called for each job: keep it quick.
    fn expected(&self, kind: &str) -> Duration;
}

/// How a [`crate::Producer`] works.
#[derive(Clone)]
pub struct ProducerOptions {
    /// When a batch is full.
    pub batch: BatchOptions,
    /// How much may be on its way to the broker, unanswered.
    pub window: Window,
    /// How much may wait in front of the window, in bytes before compression, open batches included. What does not
    /// fit waits with its caller.
    pub room: usize,
    /// How long a caller waits for room before it is told to come back later.
    pub room_timeout: Duration,
    /// How long a publish goes on trying. A producer answers people, so it gives up sooner than a [`crate::Publisher`]
    /// does by itself.
    pub patience: Patience,
    /// The largest args of one job, in bytes; at most what [`wf_schema::Limits`] allow by default.
    pub args_limit: usize,
    /// How long nothing may be heard of the broker, while something is asked of it, before it counts as unreachable:
    /// from then on nobody waits for it.
    pub unreachable_after: Duration,
    /// Where jobs go while the broker cannot be reached. Without, they are refused.
    pub spool: Option<Spool>,
    /// Knows how long jobs run; [`crate::MeasuredRunTimes`], for one. Without, batches are not cut by run time.
    pub run_times: Option<Arc<dyn RunTimes>>,
}

impl Default for ProducerOptions {
    fn default() -> Self {
        Self {
            batch: BatchOptions::default(),
            window: Window::default(),
            room: 16 << 20,
            room_timeout: Duration::from_secs(5),
            patience: Patience { full: Duration::ZERO, away: Duration::from_secs(10) },
            args_limit: 256 << 10,
            unreachable_after: Duration::from_secs(3),
            spool: None,
            run_times: None,
        }
    }
}

impl ProducerOptions {
    /// Follows how long jobs run, as executors say at `broker`. Must be called inside a tokio runtime.
    #[must_use]
    pub fn measured(mut self, broker: &Arc<dyn Broker>) -> Self {
        self.run_times = Some(Arc::new(MeasuredRunTimes::follow(broker.clone())));
        self
    }
}

impl std::fmt::Debug for ProducerOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProducerOptions")
            .field("batch", &self.batch)
            .field("window", &self.window)
            .field("room", &self.room)
            .field("room_timeout", &self.room_timeout)
            .field("patience", &self.patience)
            .field("args_limit", &self.args_limit)
            .field("unreachable_after", &self.unreachable_after)
            .field("spool", &self.spool)
            .field("run_times", &self.run_times.is_some())
            .finish()
    }
}

/// How HTTP is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpOptions {
    /// The largest body in bytes, once decompressed. Bulk bodies are streamed, so this costs no memory.
    pub body_limit: u64,
    /// The largest body in bytes of a request that must be read whole before anything of it is published: one with
    /// `?atomic=true` or an `Idempotency-Key`.
    pub whole_limit: usize,
    /// How long a caller may take to send the head of a request; also how long an idle connection is kept.
    pub header_timeout: Duration,
    /// How long a caller may stay silent in the middle of a body, or not read an answer.
    pub idle_timeout: Duration,
    /// The pace at which a body must come, in bytes a second once decompressed, after the first `idle_timeout`.
    pub body_pace: u64,
    /// The longest that a body may take to come. Time in which the server holds its caller back does not count, for
    /// this or for `body_pace`.
    pub body_timeout: Duration,
    /// The most memory, in bytes, for all bodies that are being read or wait for room in a batch. Who finds none waits,
    /// and is then told to come back later.
    pub body_memory: usize,
    /// The longest that a caller may wait for an outcome.
    pub wait_limit: Duration,
    /// How many callers may wait for outcomes at once.
    pub waiters: usize,
    /// How many connections may be open at once; further ones wait in the operating system's queue.
    pub connections: usize,
    /// How long requests under way may go on once the server is told to stop.
    pub drain_deadline: Duration,
    /// How long the record of an `Idempotency-Key` is kept.
    pub idempotency_ttl: Duration,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            body_limit: 1 << 30,
            whole_limit: 16 << 20,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            body_pace: 1 << 10,
            body_timeout: Duration::from_secs(3_600),
            body_memory: 256 << 20,
            wait_limit: Duration::from_secs(60),
            waiters: 1_024,
            connections: 8_192,
            drain_deadline: Duration::from_secs(10),
            idempotency_ttl: Duration::from_secs(24 * 3600),
        }
    }
}
