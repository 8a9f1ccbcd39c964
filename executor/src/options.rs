//! What an executor is told about its node.

use std::ops::RangeInclusive;
use std::time::Duration;

use wf_schema::{Limits, Queue};

/// The settings of an executor. Each is checked where it is set, so one that cannot be never gets as far as a start.
///
/// ```
/// use wf_executor::ExecutorOptions;
///
/// # fn main() -> Result<(), wf_executor::OptionError> {
/// let options = ExecutorOptions::new("press-1")?.concurrency(200)?;
/// assert_eq!(options.queues().len(), 1);
/// assert!(options.concurrency(0).is_err());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct ExecutorOptions {
    name: String,
    queues: Vec<Queue>,
    concurrency: usize,
    prefetch_bytes: usize,
    prefetch_work: Duration,
    checkpoint: Duration,
    drain_deadline: Duration,
    limits: Limits,
    turns: Option<usize>,
    faults: Vec<KnownFault>,
}

/// A fault that was mended, and that a simulation puts back to see that it is found.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KnownFault {
    /// Look-ups of redelivered batches keep their places until their turn.
    HeldLookups,
    /// What was scheduled for want of room is published to its lane once there is some.
    ForgottenDetours,
}

/// A setting that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{option} is {value}; {limit}")]
pub struct OptionError {
    option: &'static str,
    value: String,
    limit: String,
}

const NAME: RangeInclusive<usize> = 1..=128;
const CONCURRENCY: RangeInclusive<usize> = 1..=100_000;
pub(crate) const PREFETCH_BYTES: RangeInclusive<usize> = 64 << 10..=1 << 30;
const PREFETCH_WORK: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(600);
const CHECKPOINT: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(60);
const DRAIN: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(24 * 3600);

impl ExecutorOptions {
    /// An executor called `name` (1 to 128 bytes; it stands in records and dead letters) that serves the queue
    /// `default`, with the defaults said at each setting.
    ///
    /// # Errors
    /// When the name is empty, too long, or has control characters.
    pub fn new(name: impl Into<String>) -> Result<Self, OptionError> {
        let name = name.into();
        if !NAME.contains(&name.len()) || name.chars().any(char::is_control) {
            let limit = "from 1 to 128 bytes without control characters".to_owned();
            return Err(OptionError { option: "name", value: name.chars().take(80).collect(), limit });
        }
        Ok(Self {
            name,
            queues: vec![Queue::default()],
            concurrency: 50,
            prefetch_bytes: 8 << 20,
            prefetch_work: Duration::from_secs(2),
            checkpoint: Duration::from_secs(1),
            drain_deadline: Duration::from_secs(30),
            limits: Limits::default(),
            turns: None,
            faults: Vec::new(),
        })
    }

    /// Serves `queues`, at all priorities, in place of `default`. More can be added while it runs, so none is fine.
    #[must_use]
    pub fn serving(mut self, queues: impl IntoIterator<Item = Queue>) -> Self {
        self.queues = queues.into_iter().collect();
        self
    }

    /// How many jobs run at once; 50 unless set.
    ///
    /// # Errors
    /// Outside 1 to 100,000.
    pub fn concurrency(mut self, jobs: usize) -> Result<Self, OptionError> {
        self.concurrency = within("concurrency", jobs, &CONCURRENCY)?;
        Ok(self)
    }

    /// The bytes of messages fetched or asked for, over all lanes; 8 MiB unless set. Work is never held back for it
    /// altogether: a lane of which nothing waits may always fetch one message more.
    ///
    /// # Errors
    /// Outside 64 KiB to 1 GiB.
    pub fn prefetch_bytes(mut self, bytes: usize) -> Result<Self, OptionError> {
        self.prefetch_bytes = within("prefetch_bytes", bytes, &PREFETCH_BYTES)?;
        Ok(self)
    }

    /// The work fetched ahead, in measured run time; 2 s unless set.
    ///
    /// # Errors
    /// Outside 10 ms to 10 min.
    pub fn prefetch_work(mut self, time: Duration) -> Result<Self, OptionError> {
        self.prefetch_work = within("prefetch_work", time, &PREFETCH_WORK)?;
        Ok(self)
    }

    /// How often a batch that takes long records what is done: what a crash repeats at most. 1 s unless set.
    ///
    /// # Errors
    /// Outside 10 ms to 1 min.
    pub fn checkpoint(mut self, every: Duration) -> Result<Self, OptionError> {
        self.checkpoint = within("checkpoint", every, &CHECKPOINT)?;
        Ok(self)
    }

    /// How long running jobs may go on once the executor drains, if the drain says nothing else; 30 s unless set.
    ///
    /// # Errors
    /// Above a day.
    pub fn drain_deadline(mut self, time: Duration) -> Result<Self, OptionError> {
        self.drain_deadline = within("drain_deadline", time, &DRAIN)?;
        Ok(self)
    }

    /// What it is willing to hold in memory of one message.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// How many batches of a lane start jobs at a time, instead of as many as there are cores: so that a simulation is the
    /// same on every machine.
    #[doc(hidden)]
    #[must_use]
    pub fn turns(mut self, turns: usize) -> Self {
        self.turns = Some(turns.max(1));
        self
    }

    /// Puts a known fault back.
    #[doc(hidden)]
    #[must_use]
    pub fn with_fault(mut self, fault: KnownFault) -> Self {
        self.faults.push(fault);
        self
    }

    pub(crate) fn has_fault(&self, fault: KnownFault) -> bool {
        self.faults.contains(&fault)
    }

    /// What the executor is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The queues served from the start.
    pub fn queues(&self) -> &[Queue] {
        &self.queues
    }

    /// The nearest to `bytes` that can be fetched ahead.
    pub(crate) fn within_prefetch(bytes: usize) -> usize {
        bytes.clamp(*PREFETCH_BYTES.start(), *PREFETCH_BYTES.end())
    }

    pub(crate) fn slots(&self) -> usize {
        self.concurrency
    }

    /// How many batches of a lane start jobs at a time: few, but no core is idle.
    pub(crate) fn lane_turns(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        self.turns.unwrap_or_else(cores).min(self.concurrency)
    }

    pub(crate) fn budget(&self) -> (usize, Duration) {
        (self.prefetch_bytes, self.prefetch_work)
    }

    pub(crate) fn checkpoint_interval(&self) -> Duration {
        self.checkpoint
    }

    pub(crate) fn deadline(&self) -> Duration {
        self.drain_deadline
    }

    pub(crate) fn reading(&self) -> &Limits {
        &self.limits
    }
}

fn within<T: PartialOrd + std::fmt::Debug>(option: &'static str, value: T, range: &RangeInclusive<T>) -> Result<T, OptionError> {
    if range.contains(&value) {
        Ok(value)
    } else {
        let limit = format!("from {:?} to {:?}", range.start(), range.end());
        Err(OptionError { option, value: format!("{value:?}"), limit })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_is_refused_with_its_limit() {
        let options = ExecutorOptions::new("n").unwrap();
        let error = options.clone().concurrency(0).unwrap_err().to_string();
        assert_eq!(error, "concurrency is 0; from 1 to 100000");
        let error = options.prefetch_work(Duration::from_secs(3600)).unwrap_err().to_string();
        assert_eq!(error, "prefetch_work is 3600s; from 10ms to 600s");
        assert!(ExecutorOptions::new("").is_err());
        assert!(ExecutorOptions::new("a\nb").is_err());
    }
}
