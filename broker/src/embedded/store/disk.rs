//! The store on disk: fjall, an LSM tree that keeps larger values in files of their own.

use bytes::{Buf, Bytes};
use fjall::config::CompressionPolicy;
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, PersistMode};

use super::super::folder::Folder;
use super::{Durability, KeyRange, Space, Store, StoreError, StoreResult, Write};

/// The database and its trees. A tree costs many syncs to make, so the small spaces share one; the two that carry the
/// bytes are apart, each with its own pace of writing and clearing.
pub(in crate::embedded) struct DiskStore {
    messages: Keyspace,
    outcomes: Keyspace,
    others: Keyspace,
    database: Database,
    /// Dropped after the database, which others may open from then on.
    _folder: Folder,
}

/// The journals may grow to this before the oldest memtables are flushed to let them go.
const JOURNAL_BYTES: u64 = 512 << 20;

/// A tree keeps this much in memory before it writes it out, and as much again while it does. What a run holds grows
/// until its trees are at this, however many jobs it has: the less it is, the sooner memory is flat.
const MEMTABLE_BYTES: u64 = 16 << 20;

/// Batches come compressed, so nothing is compressed again.
fn keyspace_options() -> KeyspaceCreateOptions {
    let options = KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES);
    options.data_block_compression_policy(CompressionPolicy::disabled()).with_kv_separation(Some(
        // A queue writes each message once and soon deletes it: values apart from the tree are not rewritten by its
        // compactions, and a quarter of stale bytes is soon enough to collect a file.
        KvSeparationOptions::default()
            .compression(CompressionType::None)
            .separation_threshold(512)
            .file_target_size(64 << 20)
            .staleness_threshold(0.25)
            .age_cutoff(0.25),
    ))
}

impl DiskStore {
    pub(in crate::embedded) fn open(folder: Folder) -> StoreResult<Self> {
        let database = Database::builder(folder.database())
            .journal_compression(CompressionType::None)
            .max_journaling_size(JOURNAL_BYTES)
            // The writer says at each commit how safe it has to be.
            .manual_journal_persist(true)
            .open()
            .map_err(StoreError::new)?;
        let tree = |name| database.keyspace(name, keyspace_options).map_err(StoreError::new);
        let (messages, outcomes, others) = (tree("messages")?, tree("outcomes")?, tree("others")?);
        Ok(Self { messages, outcomes, others, database, _folder: folder })
    }

    fn tree(&self, space: Space) -> &Keyspace {
        match space {
            Space::Messages => &self.messages,
            Space::Outcomes => &self.outcomes,
            _ => &self.others,
        }
    }

    fn range(&self, space: Space, range: &KeyRange) -> fjall::Iter {
        let to = match &range.to {
            Some(to) => tagged(space, to),
            None => vec![space.tag() + 1],
        };
        self.tree(space).range(tagged(space, &range.from)..to)
    }
}

/// A key as the tree has it: first its space.
fn tagged(space: Space, key: &[u8]) -> Vec<u8> {
    let mut tagged = Vec::with_capacity(1 + key.len());
    tagged.push(space.tag());
    tagged.extend_from_slice(key);
    tagged
}

/// A key of a tree as its space has it.
fn untagged(key: fjall::UserKey) -> Bytes {
    let mut key = Bytes::from(key);
    key.advance(1);
    key
}

impl Store for DiskStore {
    fn blocks(&self) -> bool {
        true
    }

    fn get(&self, space: Space, key: &[u8]) -> StoreResult<Option<Bytes>> {
        Ok(self.tree(space).get(tagged(space, key)).map_err(StoreError::new)?.map(Bytes::from))
    }

    fn keys(&self, space: Space, range: &KeyRange, limit: usize) -> StoreResult<Vec<Bytes>> {
        self.range(space, range)
            .take(limit)
            .map(|item| item.key().map(untagged))
            .collect::<Result<_, _>>()
            .map_err(StoreError::new)
    }

    fn pairs(&self, space: Space, range: &KeyRange, limit: usize) -> StoreResult<Vec<(Bytes, Bytes)>> {
        self.range(space, range)
            .take(limit)
            .map(|item| item.into_inner().map(|(key, value)| (untagged(key), value.into())))
            .collect::<Result<_, _>>()
            .map_err(StoreError::new)
    }

    fn last_key(&self, space: Space, range: &KeyRange) -> StoreResult<Option<Bytes>> {
        let last = self.range(space, range).next_back().map(fjall::Guard::key);
        Ok(last.transpose().map_err(StoreError::new)?.map(untagged))
    }

    fn commit(&self, writes: Vec<Write>, durability: Durability) -> StoreResult<()> {
        let mode = match durability {
            Durability::Buffered => PersistMode::Buffer,
            Durability::Synced => PersistMode::SyncData,
        };
        if writes.is_empty() {
            return self.database.persist(mode).map_err(StoreError::new);
        }
        let mut batch = self.database.batch().durability(Some(mode));
        for write in writes {
            let (tree, key) = (self.tree(write.space), tagged(write.space, &write.key));
            match write.value {
                Some(value) => batch.insert(tree, key, value),
                None => batch.remove(tree, key),
            }
        }
        batch.commit().map_err(StoreError::new)
    }
}
