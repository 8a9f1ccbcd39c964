//! The oldest entries of a keyspace that grows at its end and is cleared from its start.

use std::collections::VecDeque;

use bytes::Bytes;

use super::store::{KeyRange, Space, Store, StoreResult};

const PAGE: usize = 1024;

/// Walks a keyspace from its start, a page at a time. It never looks back, and so never wades through the traces of
/// what was cleared.
pub(super) struct Oldest {
    space: Space,
    page: VecDeque<Bytes>,
    rest: KeyRange,
}

impl Oldest {
    pub(super) fn new(space: Space) -> Self {
        Self { space, page: VecDeque::new(), rest: KeyRange::all() }
    }

    /// The oldest key that was not yet taken and is committed.
    pub(super) fn peek(&mut self, store: &dyn Store) -> StoreResult<Option<&Bytes>> {
        if self.page.is_empty() {
            self.page = store.keys(self.space, &self.rest, PAGE)?.into();
            if let Some(last) = self.page.back() {
                self.rest = KeyRange::all().after(last);
            }
        }
        Ok(self.page.front())
    }

    /// The same, without looking into the store.
    pub(super) fn known(&self) -> Option<&Bytes> {
        self.page.front()
    }

    /// Takes the oldest key.
    pub(super) fn pop(&mut self) -> Option<Bytes> {
        self.page.pop_front()
    }
}
