//! Where the engine keeps its bytes: ordered keyspaces, changed atomically. On disk or in memory.

mod disk;
mod memory;

use bytes::Bytes;

pub(super) use disk::DiskStore;
pub(super) use memory::MemoryStore;

pub(super) use crate::{DiskError, Durability, KeyRange, Room};

/// An ordered keyspace. Its keys are made in [`super::keys`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Space {
    /// Messages by lane and sequence.
    Messages,
    /// Ids of messages by the time they were stored, for the dedup window.
    Ids,
    /// Scheduled messages by due time.
    Later,
    /// Crons by key.
    Crons,
    /// The next tick of each cron, by key: apart, so that a tick does not write the message again.
    Ticks,
    /// Outcome records by batch, run and version.
    Outcomes,
    /// The outcome records' keys by age, for retention.
    Ages,
    /// Keyed records by key.
    Records,
    /// The records' keys by the end of their time to live.
    Expiries,
    /// Dead letters by position.
    Dead,
    /// Held queues by name.
    Pauses,
    /// What there is one of: the store's id, the sequence, the outcome log's size.
    Meta,
}

impl Space {
    /// How many there are.
    const COUNT: usize = 12;

    /// What its keys start with on disk. Never given to another space: it is part of the format.
    fn tag(self) -> u8 {
        match self {
            Self::Messages => 1,
            Self::Ids => 2,
            Self::Later => 3,
            Self::Crons => 4,
            Self::Ticks => 5,
            Self::Outcomes => 6,
            Self::Ages => 7,
            Self::Records => 8,
            Self::Expiries => 9,
            Self::Dead => 10,
            Self::Pauses => 11,
            Self::Meta => 12,
        }
    }
}

/// One change: a value, or the absence of one, under a key.
#[derive(Debug)]
pub(super) struct Write {
    pub(super) space: Space,
    pub(super) key: Vec<u8>,
    pub(super) value: Option<Bytes>,
}

pub(super) type StoreResult<T> = Result<T, DiskError>;

/// Ordered keyspaces. Read from any thread, committed to by the writer alone.
pub(super) trait Store: Send + Sync + 'static {
    /// Whether reads may wait for a disk, so that async code must not make them on its own threads.
    fn blocks(&self) -> bool;

    /// The value under `key`.
    fn get(&self, space: Space, key: &[u8]) -> StoreResult<Option<Bytes>>;

    /// The first `limit` keys of `range`, in order. Reads no values.
    fn keys(&self, space: Space, range: &KeyRange, limit: usize) -> StoreResult<Vec<Bytes>>;

    /// The first `limit` keys of `range` with their values, in order.
    fn pairs(&self, space: Space, range: &KeyRange, limit: usize) -> StoreResult<Vec<(Bytes, Bytes)>>;

    /// The last key of `range`.
    fn last_key(&self, space: Space, range: &KeyRange) -> StoreResult<Option<Bytes>>;

    /// Makes all `writes`, in order, or none. With no writes and [`Durability::Synced`], makes safe what was
    /// committed before.
    fn commit(&self, writes: &[Write], durability: Durability) -> StoreResult<()>;

    /// How much room there is.
    fn room(&self) -> Room;

    /// Closes it and opens it again, after a commit that failed. Who reads waits meanwhile.
    fn reopen(&self) -> StoreResult<()>;
}

/// Calls `each` with every key of `range`, a page at a time.
pub(super) fn each_key<E: From<DiskError>>(
    store: &dyn Store,
    space: Space,
    mut range: KeyRange,
    mut each: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    const PAGE: usize = 16_384;
    loop {
        let page = store.keys(space, &range, PAGE)?;
        for key in &page {
            each(key)?;
        }
        match page.last() {
            Some(last) if page.len() == PAGE => range = range.after(last),
            _ => return Ok(()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::folder::Folder;
    use super::*;

    fn put(space: Space, key: &[u8], value: &'static [u8]) -> Write {
        Write { space, key: key.to_vec(), value: Some(Bytes::from_static(value)) }
    }

    /// Both stores do the same.
    fn behaves(store: &dyn Store) {
        assert_eq!(store.get(Space::Meta, b"a").unwrap(), None);
        store
            .commit(
                &[
                    put(Space::Meta, b"a", b"1"),
                    put(Space::Meta, b"ab", b"2"),
                    put(Space::Meta, b"b", b"3"),
                    put(Space::Dead, b"a", b"4"),
                    Write { space: Space::Meta, key: b"a".to_vec(), value: None },
                    put(Space::Meta, b"a", b"5"),
                ],
                Durability::Synced,
            )
            .unwrap();
        assert_eq!(store.get(Space::Meta, b"a").unwrap().unwrap(), "5");
        assert_eq!(store.get(Space::Dead, b"a").unwrap().unwrap(), "4");
        assert_eq!(store.keys(Space::Meta, &KeyRange::prefix(b"a"), 9).unwrap(), ["a", "ab"]);
        assert_eq!(store.keys(Space::Meta, &KeyRange::all().after(b"a"), 1).unwrap(), ["ab"]);
        assert_eq!(store.last_key(Space::Meta, &KeyRange::prefix(b"a")).unwrap().unwrap(), "ab");
        assert_eq!(store.pairs(Space::Meta, &KeyRange::all(), 9).unwrap().len(), 3);
        assert_eq!(store.last_key(Space::Ages, &KeyRange::all()).unwrap(), None);
    }

    #[test]
    fn the_stores_behave_alike() {
        behaves(&MemoryStore::default());
        let folder = tempfile::tempdir().unwrap();
        behaves(&DiskStore::open(Folder::claim(folder.path()).unwrap()).unwrap());
    }
}
