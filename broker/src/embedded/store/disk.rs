//! The store on disk.

use bytes::{Buf, Bytes};

use super::super::folder::Folder;
use super::{DiskError, Durability, KeyRange, Room, Space, Store, StoreResult, Write};
use crate::{Change, KeyspaceLayout, Keyspaces, KeyspacesError, Layout};

/// A keyspace costs many syncs to make, so the small spaces share one; the two that carry the bytes are apart, each with
/// its own pace of writing and clearing.
static LAYOUT: Layout = Layout {
    keyspaces: &[
        KeyspaceLayout { name: "messages", apart: true },
        KeyspaceLayout { name: "outcomes", apart: true },
        KeyspaceLayout { name: "others", apart: true },
    ],
    // What a run holds grows until its keyspaces are at this, however many jobs it has: the less it is, the sooner
    // memory is flat.
    memtable_bytes: 16 << 20,
    journal_bytes: 512 << 20,
    cache_bytes: 32 << 20,
    threads: None,
    // About what the journal and the memtables of messages may still want to write.
    reserve: 128 << 20,
};

pub(in crate::embedded) struct DiskStore {
    keyspaces: Keyspaces,
    /// Dropped after the database, which others may open from then on.
    _folder: Folder,
}

impl DiskStore {
    pub(in crate::embedded) fn open(folder: Folder) -> Result<Self, KeyspacesError> {
        Ok(Self { keyspaces: Keyspaces::open(&folder.database(), &LAYOUT)?, _folder: folder })
    }
}

/// The keyspace that a space is in.
fn place(space: Space) -> usize {
    match space {
        Space::Messages => 0,
        Space::Outcomes => 1,
        _ => 2,
    }
}

/// A key as the keyspace has it: first its space.
fn tagged(space: Space, key: &[u8]) -> Vec<u8> {
    let mut tagged = Vec::with_capacity(1 + key.len());
    tagged.push(space.tag());
    tagged.extend_from_slice(key);
    tagged
}

fn tagged_range(space: Space, range: &KeyRange) -> KeyRange {
    let to = match &range.to {
        Some(to) => tagged(space, to),
        None => vec![space.tag() + 1],
    };
    KeyRange { from: tagged(space, &range.from), to: Some(to) }
}

/// A key of a keyspace as its space has it.
fn untagged(mut key: Bytes) -> Bytes {
    key.advance(1);
    key
}

impl Store for DiskStore {
    fn blocks(&self) -> bool {
        true
    }

    fn get(&self, space: Space, key: &[u8]) -> StoreResult<Option<Bytes>> {
        self.keyspaces.get(place(space), &tagged(space, key))
    }

    fn keys(&self, space: Space, range: &KeyRange, limit: usize) -> StoreResult<Vec<Bytes>> {
        let keys = self.keyspaces.keys(place(space), &tagged_range(space, range), limit)?;
        Ok(keys.into_iter().map(untagged).collect())
    }

    fn pairs(&self, space: Space, range: &KeyRange, limit: usize) -> StoreResult<Vec<(Bytes, Bytes)>> {
        let pairs = self.keyspaces.pairs(place(space), &tagged_range(space, range), limit)?;
        Ok(pairs.into_iter().map(|(key, value)| (untagged(key), value)).collect())
    }

    fn last_key(&self, space: Space, range: &KeyRange) -> StoreResult<Option<Bytes>> {
        Ok(self.keyspaces.last_key(place(space), &tagged_range(space, range))?.map(untagged))
    }

    fn commit(&self, writes: &[Write], durability: Durability) -> StoreResult<()> {
        let changes = writes.iter().map(|Write { space, key, value }| Change {
            keyspace: place(*space),
            key: tagged(*space, key),
            value: value.clone(),
        });
        self.keyspaces.commit(changes, durability)
    }

    fn room(&self) -> Room {
        self.keyspaces.room()
    }

    fn reopen(&self) -> StoreResult<()> {
        self.keyspaces.reopen().map_err(DiskError::new)
    }
}
