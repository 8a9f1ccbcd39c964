//! The store in memory: nothing outlives it.

use std::collections::BTreeMap;
use std::collections::btree_map::Range;
use std::ops::Bound;

use bytes::Bytes;
use parking_lot::RwLock;

use super::{Durability, KeyRange, Room, Space, Store, StoreResult, Write};

type Tree = BTreeMap<Bytes, Bytes>;

#[derive(Default)]
pub(in crate::embedded) struct MemoryStore {
    spaces: [RwLock<Tree>; Space::COUNT],
}

impl MemoryStore {
    fn space(&self, space: Space) -> &RwLock<Tree> {
        // As many places as there are spaces.
        &self.spaces[space as usize]
    }
}

fn range<'a>(tree: &'a Tree, range: &KeyRange) -> Range<'a, Bytes, Bytes> {
    let to = range.to.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    tree.range::<[u8], _>((Bound::Included(range.from.as_slice()), to))
}

impl Store for MemoryStore {
    fn blocks(&self) -> bool {
        false
    }

    fn get(&self, space: Space, key: &[u8]) -> StoreResult<Option<Bytes>> {
        Ok(self.space(space).read().get(key).cloned())
    }

    fn keys(&self, space: Space, keys: &KeyRange, limit: usize) -> StoreResult<Vec<Bytes>> {
        Ok(range(&self.space(space).read(), keys).take(limit).map(|(key, _)| key.clone()).collect())
    }

    fn pairs(&self, space: Space, keys: &KeyRange, limit: usize) -> StoreResult<Vec<(Bytes, Bytes)>> {
        let tree = self.space(space).read();
        Ok(range(&tree, keys).take(limit).map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn last_key(&self, space: Space, keys: &KeyRange) -> StoreResult<Option<Bytes>> {
        Ok(range(&self.space(space).read(), keys).next_back().map(|(key, _)| key.clone()))
    }

    /// Not atomic to readers, which is enough: only the writer reads what it decides by.
    fn commit(&self, writes: &[Write], _: Durability) -> StoreResult<()> {
        for write in writes {
            let mut tree = self.space(write.space).write();
            match &write.value {
                Some(value) => tree.insert(Bytes::copy_from_slice(&write.key), value.clone()),
                None => tree.remove(write.key.as_slice()),
            };
        }
        Ok(())
    }

    fn room(&self) -> Room {
        Room::Enough
    }

    fn reopen(&self) -> StoreResult<()> {
        Ok(())
    }
}
