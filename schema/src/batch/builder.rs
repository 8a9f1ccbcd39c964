//! Writing a batch.

use std::borrow::Cow;

use bytes::Bytes;

use super::{Header, JobView, layout};
use crate::Millis;
use crate::{Job, Kind, Limits, PastFailure, Policy, WireError, column, frame};

/// Kept free below what a reader takes, in bytes: for the header, the full tables and the last job's numbers.
const ROOM: usize = 64 * 1024;

/// A batch that jobs are still added to.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use wf_schema::{Batch, BatchBuilder, BatchId, Format, Header, Job, Limits};
///
/// let mut open = BatchBuilder::new(Header::new(BatchId::new(), Format::Json));
/// for n in 0..1000 {
///     open.push(&Job::new("math_add", &serde_json::json!({"a": n, "b": 1}))?)?;
/// }
/// let message = open.encode();
/// assert!(message.len() < 12 * 1000);
/// assert_eq!(Batch::decode(&message, &Limits::default())?.len(), 1000);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct BatchBuilder {
    pub(super) header: Header,
    pub(super) kinds: Vec<String>,
    pub(super) policies: Vec<Policy>,
    pub(super) count: u32,
    /// An index into `kinds` for each job.
    pub(super) kind_of: Vec<u8>,
    /// An index into `policies` for each job.
    pub(super) policy_of: Vec<u8>,
    pub(super) args_len: Vec<u8>,
    pub(super) args: Vec<u8>,
    /// Only once a job was carried over: its index, attempt and past failures, for every job.
    pub(super) carried: Option<Carried>,
}

/// What only batches of retried, moved or split jobs have.
#[derive(Clone, Debug, Default)]
pub(super) struct Carried {
    pub(super) indexes: Vec<u8>,
    pub(super) attempts: Vec<u8>,
    pub(super) history_len: Vec<u8>,
    pub(super) histories: Vec<u8>,
}

/// Why a job does not fit into an open batch.
///
/// A builder never writes what a reader with [`Limits::default`] would refuse: one such job would cost all the others
/// that travel with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PushError {
    /// The batch has as many jobs, distinct kinds or distinct policies as it can hold.
    #[error("the batch is full")]
    Full,
    /// The job's args are written in another format than the batch's.
    #[error("the batch holds args of another format")]
    Format,
    /// No batch takes the job: its args are larger than any reader accepts ([`Limits::args_bytes`] by default).
    #[error("the args are larger than any batch takes")]
    TooLarge,
    /// No batch takes the job: what it has for a kind is none.
    #[error("the kind is not valid")]
    Kind,
}

impl PushError {
    /// Whether the job fits into another, empty batch of its format.
    pub fn fits_elsewhere(self) -> bool {
        matches!(self, Self::Full | Self::Format)
    }
}

impl BatchBuilder {
    /// An empty batch.
    pub fn new(header: Header) -> Self {
        Self {
            header,
            kinds: Vec::new(),
            policies: Vec::new(),
            count: 0,
            kind_of: Vec::new(),
            policy_of: Vec::new(),
            args_len: Vec::new(),
            args: Vec::new(),
            carried: None,
        }
    }

    /// What all the jobs share.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Says when the jobs were enqueued, which may be known only once the batch is complete.
    pub fn set_enqueued_at(&mut self, at: Millis) {
        self.header.enqueued_at = at;
    }

    /// Gives the batch a trace, or none: what its jobs share may be known only once it is complete.
    pub fn set_trace(&mut self, trace: Option<String>) {
        self.header.trace = trace.filter(|trace| trace.len() <= Limits::TRACE);
    }

    /// The number of jobs.
    #[inline]
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there are no jobs.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The size of the batch before it is compressed, in bytes, to within its tables.
    #[inline]
    pub fn raw_len(&self) -> usize {
        let carried = self.carried.as_ref().map_or(0, Carried::raw_len);
        self.args.len() + self.args_len.len() + 2 * self.kind_of.len() + carried
    }

    /// Adds a job: the index that its id has.
    ///
    /// # Errors
    /// When the job does not fit into this batch; it is unchanged then.
    pub fn push(&mut self, job: &Job<'_>) -> Result<u32, PushError> {
        self.push_like(job, &job.args)
    }

    /// Adds a job like `job` but for its args.
    ///
    /// # Errors
    /// As [`BatchBuilder::push`].
    pub fn push_like(&mut self, job: &Job<'_>, args: &[u8]) -> Result<u32, PushError> {
        if job.format != self.header.format {
            return Err(PushError::Format);
        }
        let index = self.count;
        self.add(&job.kind, &job.policy, args)?;
        if let Some(carried) = &mut self.carried {
            carried.add(index, 1, &[]);
        }
        Ok(index)
    }

    /// Adds a job like the one added last but for its args: the same kind, policy and format. Cheaper than the others,
    /// which have to find that out.
    ///
    /// # Errors
    /// When the job does not fit into this batch, or there is none that it could be like; it is unchanged then.
    #[inline]
    pub fn push_alike(&mut self, args: &[u8]) -> Result<u32, PushError> {
        let (Some(&kind), Some(&policy)) = (self.kind_of.last(), self.policy_of.last()) else { return Err(PushError::Kind) };
        self.has_room(args)?;
        let index = self.count;
        self.put(kind, policy, args);
        if let Some(carried) = &mut self.carried {
            carried.add(index, 1, &[]);
        }
        Ok(index)
    }

    /// Adds a job of another batch under the id it was born with, as `attempt`, with `history` in place of its own
    /// if given. For retries, moves, splits and dead letters.
    ///
    /// The header is to have the id of the batch that the job was born in, which is the id of the batch it is in.
    ///
    /// # Errors
    /// When the job does not fit into this batch; it is unchanged then.
    pub fn carry(&mut self, job: &JobView<'_>, attempt: u32, history: Option<&[PastFailure]>) -> Result<(), PushError> {
        if job.batch.header.format != self.header.format {
            return Err(PushError::Format);
        }
        let history = match history {
            Some(history) => Cow::Owned(layout::encode_history(history)),
            // One that no reader would look at takes no room either.
            None => Cow::Borrowed(Some(job.raw_history()).filter(|h| h.len() <= Limits::HISTORY_BYTES).unwrap_or_default()),
        };
        if self.raw_len() + history.len() + job.args().len() > Limits::default().raw_bytes - ROOM {
            return Err(PushError::Full);
        }
        let before = self.count;
        self.add(job.kind().as_str(), job.policy(), job.args())?;
        let like_new = job.index() == before && attempt == 1 && history.is_empty();
        if self.carried.is_none() && like_new {
            return Ok(());
        }
        let carried = self.carried.get_or_insert_with(|| {
            let mut carried = Carried::default();
            (0..before).for_each(|index| carried.add(index, 1, &[]));
            carried
        });
        carried.add(job.index(), attempt.max(1), &history);
        Ok(())
    }

    #[inline]
    fn has_room(&self, args: &[u8]) -> Result<(), PushError> {
        let limits = Limits::default();
        if args.len() > limits.args_bytes {
            return Err(PushError::TooLarge);
        }
        if self.count as usize >= limits.jobs || self.raw_len() + args.len() > limits.raw_bytes - ROOM {
            return Err(PushError::Full);
        }
        Ok(())
    }

    #[inline]
    fn put(&mut self, kind_at: u8, policy_at: u8, args: &[u8]) {
        self.kind_of.push(kind_at);
        self.policy_of.push(policy_at);
        column::push(&mut self.args_len, args.len() as u32);
        self.args.extend_from_slice(args);
        self.count += 1;
    }

    fn add(&mut self, kind: &str, policy: &Policy, args: &[u8]) -> Result<(), PushError> {
        self.has_room(args)?;
        // Neighbours are mostly alike, so the last used entry is looked at first.
        let kind_at = place(&self.kinds, self.kind_of.last(), |k| k == kind);
        let policy_at = place(&self.policies, self.policy_of.last(), |p| p == policy);
        if kind_at >= Limits::TABLE || policy_at >= Limits::TABLE {
            return Err(PushError::Full);
        }
        if kind_at == self.kinds.len() {
            // Looked at once a batch rather than once a job: what is in the table is a kind.
            Kind::check(kind).map_err(|_| PushError::Kind)?;
            self.kinds.push(kind.to_owned());
        }
        if policy_at == self.policies.len() {
            self.policies.push(policy.clone());
        }
        self.put(kind_at as u8, policy_at as u8, args);
        Ok(())
    }

    /// The batch as one message.
    pub fn encode(&self) -> Bytes {
        frame::seal(&layout::encode(self))
    }
}

/// Where `table` has what `is` looks for, or its length if it has not.
fn place<T>(table: &[T], last: Option<&u8>, is: impl Fn(&T) -> bool) -> usize {
    match last.map(|at| *at as usize) {
        Some(at) if is(&table[at]) => at,
        _ => table.iter().position(is).unwrap_or(table.len()),
    }
}

impl Carried {
    fn raw_len(&self) -> usize {
        self.indexes.len() + self.attempts.len() + self.history_len.len() + self.histories.len()
    }

    fn add(&mut self, index: u32, attempt: u32, history: &[u8]) {
        column::push(&mut self.indexes, index);
        column::push(&mut self.attempts, attempt);
        column::push(&mut self.history_len, history.len() as u32);
        self.histories.extend_from_slice(history);
    }
}

impl From<PushError> for WireError {
    fn from(_: PushError) -> Self {
        Self::Malformed("a job that fits into no batch")
    }
}
