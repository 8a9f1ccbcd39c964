//! Writing a record.

use bytes::Bytes;

use super::{Failed, Mark, RecordHeader, layout};
use crate::{Failure, Kind, Limits, Millis, State, column, frame};

/// Kept free below what a reader takes, in bytes: for the header, a full table of kinds and the last outcome's numbers.
const ROOM: usize = 64 * 1024;

/// A record that outcomes are still added to.
#[derive(Clone, Debug)]
pub struct RecordBuilder {
    pub(super) header: RecordHeader,
    pub(super) kinds: Vec<Kind>,
    pub(super) count: u32,
    pub(super) kind_of: Vec<u8>,
    pub(super) states: Vec<u8>,
    pub(super) indexes: Vec<u8>,
    pub(super) attempts: Vec<u8>,
    pub(super) result_len: Vec<u8>,
    pub(super) results: Vec<u8>,
    /// The postcard of one [`Failed`] for each outcome that is not `Completed`, in order.
    pub(super) failures: Vec<u8>,
    /// Whether outcome n is of job n at its first attempt, for all of them.
    pub(super) plain: bool,
    pub(super) mark: Option<Mark>,
}

impl RecordBuilder {
    /// An empty record.
    pub fn new(header: RecordHeader) -> Self {
        Self {
            header,
            kinds: Vec::new(),
            count: 0,
            kind_of: Vec::new(),
            states: Vec::new(),
            indexes: Vec::new(),
            attempts: Vec::new(),
            result_len: Vec::new(),
            results: Vec::new(),
            failures: Vec::new(),
            plain: true,
            mark: None,
        }
    }

    /// Marks what its writer begins next. Of [`Mark::Jobs`] at most as many as a message may have.
    #[must_use]
    pub fn marking(mut self, mark: Mark) -> Self {
        self.mark = Some(mark);
        self
    }

    /// The number of outcomes.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there are no outcomes.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The size of the record before it is compressed, in bytes, to within its tables.
    pub fn raw_len(&self) -> usize {
        let numbers = self.indexes.len() + self.attempts.len() + self.result_len.len();
        self.results.len() + self.failures.len() + numbers + 2 * self.states.len()
    }

    /// Adds an attempt that completed, with its result in the record's format (empty to store none).
    ///
    /// Returns whether it fitted. If not, the record is unchanged and full, and an empty one takes the outcome: it
    /// holds a batch's worth of outcomes, [`Limits::TABLE`] kinds, and what [`Limits::default`] lets a reader take. Only a
    /// result that is nearly as large as that ([`Limits::raw_bytes`]) fits nowhere.
    #[must_use]
    pub fn completed(&mut self, index: u32, attempt: u32, kind: &Kind, result: &[u8]) -> bool {
        self.add(index, attempt, kind, State::Completed, result, &[])
    }

    /// Adds an attempt that ended otherwise, as `state` says: why, and when the job goes on if it does.
    ///
    /// Returns whether it fitted, as [`RecordBuilder::completed`] does.
    #[must_use]
    pub fn failed(
        &mut self,
        index: u32,
        attempt: u32,
        kind: &Kind,
        state: State,
        failure: Option<Failure>,
        retry_at: Option<Millis>,
    ) -> bool {
        if state == State::Completed {
            return self.completed(index, attempt, kind, &[]);
        }
        // Texts made by hand may be of any length.
        let failure = failure.map(|failure| Failure::new(failure.kind, failure.message));
        self.add(index, attempt, kind, state, &[], &frame::write(&Failed { failure, retry_at }, Vec::new()))
    }

    fn add(&mut self, index: u32, attempt: u32, kind: &Kind, state: State, result: &[u8], failed: &[u8]) -> bool {
        let kind_at = match self.kind_of.last() {
            Some(last) if self.kinds[*last as usize] == *kind => *last as usize,
            _ => self.kinds.iter().position(|k| k == kind).unwrap_or(self.kinds.len()),
        };
        let limits = Limits::default();
        let too_large = self.raw_len() + result.len() + failed.len() > limits.raw_bytes - ROOM;
        if kind_at >= Limits::TABLE || self.count as usize >= limits.jobs || too_large {
            return false;
        }
        if kind_at == self.kinds.len() {
            self.kinds.push(kind.clone());
        }
        let attempt = attempt.max(1);
        self.plain &= index == self.count && attempt == 1;
        self.kind_of.push(kind_at as u8);
        self.states.push(state as u8);
        column::push(&mut self.indexes, index);
        column::push(&mut self.attempts, attempt);
        column::push(&mut self.result_len, result.len() as u32);
        self.results.extend_from_slice(result);
        self.failures.extend_from_slice(failed);
        self.count += 1;
        true
    }

    /// The record as one message.
    pub fn encode(&self) -> Bytes {
        frame::seal(&layout::encode(self))
    }
}
