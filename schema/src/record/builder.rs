//! Writing a record.

use bytes::Bytes;

use super::{Failed, RecordHeader, layout};
use crate::{Failure, Kind, Limits, Millis, State, column, frame};

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
    /// One for each outcome that is not `Completed`, in order.
    pub(super) failures: Vec<Failed>,
    /// Whether outcome n is of job n at its first attempt, for all of them.
    pub(super) plain: bool,
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
        }
    }

    /// The number of outcomes.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there are no outcomes.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The size of the record before it is compressed, in bytes, roughly.
    pub fn raw_len(&self) -> usize {
        self.results.len()
            + 4 * self.states.len()
            + self.failures.iter().map(|f| f.failure.as_ref().map_or(8, |f| f.message.len() + 24)).sum::<usize>()
    }

    /// Adds an attempt that completed, with its result in the record's format (empty to store none).
    ///
    /// Returns whether it fitted: a record holds at most [`Limits::TABLE`] kinds and a batch's worth of outcomes.
    #[must_use]
    pub fn completed(&mut self, index: u32, attempt: u32, kind: &Kind, result: &[u8]) -> bool {
        self.add(index, attempt, kind, State::Completed, result)
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
        let added = self.add(index, attempt, kind, state, &[]);
        if added && state != State::Completed {
            self.failures.push(Failed { failure, retry_at });
        }
        added
    }

    fn add(&mut self, index: u32, attempt: u32, kind: &Kind, state: State, result: &[u8]) -> bool {
        let kind_at = match self.kind_of.last() {
            Some(last) if self.kinds[*last as usize] == *kind => *last as usize,
            _ => self.kinds.iter().position(|k| k == kind).unwrap_or(self.kinds.len()),
        };
        if kind_at >= Limits::TABLE || self.count as usize >= Limits::default().jobs {
            return false;
        }
        if kind_at == self.kinds.len() {
            self.kinds.push(kind.clone());
        }
        self.plain &= index == self.count && attempt == 1;
        self.kind_of.push(kind_at as u8);
        self.states.push(state as u8);
        column::push(&mut self.indexes, index);
        column::push(&mut self.attempts, attempt);
        column::push(&mut self.result_len, result.len() as u32);
        self.results.extend_from_slice(result);
        self.count += 1;
        true
    }

    /// The record as one message.
    pub fn encode(&self) -> Bytes {
        frame::seal(&layout::encode(self))
    }
}
