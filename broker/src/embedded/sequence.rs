//! The sequence: one number for each message, record and dead letter, never given twice.

use super::OpenCause;
use super::keys;
use super::store::{Space, Store};
use super::writer::Round;

/// Numbers taken at a time: a restart skips what was not used of them.
const BLOCK: u64 = 1 << 20;

pub(super) struct Sequence {
    next: u64,
    /// Up to here, this excluded, numbers are marked in the store as given.
    taken: u64,
}

impl Sequence {
    pub(super) fn open(store: &dyn Store) -> Result<Self, OpenCause> {
        let next = match store.get(Space::Meta, keys::SEQUENCE)? {
            Some(value) => keys::read_numbers::<1>(&value)?[0],
            None => 1,
        };
        Ok(Self { next, taken: next })
    }

    /// The next number. The round that uses it marks it as given.
    pub(super) fn next(&mut self, round: &mut Round) -> u64 {
        if self.next == self.taken {
            self.taken += BLOCK;
            round.put(Space::Meta, keys::SEQUENCE.to_vec(), keys::number(self.taken));
        }
        let next = self.next;
        self.next += 1;
        next
    }
}
