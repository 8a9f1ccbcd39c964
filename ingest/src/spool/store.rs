//! Where the spool keeps its bytes: three ordered keyspaces on disk, changed atomically.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use fjall::config::CompressionPolicy;
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, PersistMode};

/// A keyspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Space {
    /// What is known of each entry, by lane and number.
    Records,
    /// The messages, by number.
    Messages,
    /// Records that cannot be used, as they were, by their key. Their messages stay where they are.
    Aside,
}

/// A value, or the absence of one, under a key.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) space: Space,
    pub(super) key: Vec<u8>,
    pub(super) value: Option<Bytes>,
}

impl Change {
    pub(super) fn put(space: Space, key: Vec<u8>, value: Bytes) -> Self {
        Self { space, key, value: Some(value) }
    }

    pub(super) fn remove(space: Space, key: Vec<u8>) -> Self {
        Self { space, key, value: None }
    }
}

/// Why the disk did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the spool's disk failed")]
pub(super) struct StoreError(#[source] pub(super) Arc<dyn std::error::Error + Send + Sync>);

impl StoreError {
    pub(super) fn new(source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self(Arc::new(source))
    }
}

/// Ordered keyspaces. Read from any thread, changed by the writer alone.
pub(super) trait Store: Send + Sync + 'static {
    /// The value under `key`.
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// The first `limit` keys from `from` on that start with `prefix`, with their values, in order.
    fn pairs(&self, space: Space, prefix: &[u8], from: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError>;

    /// Makes all changes or none; they survive the loss of power once this is done.
    fn commit(&self, changes: Vec<Change>) -> Result<(), StoreError>;
}

/// The keyspaces on disk.
pub(super) struct DiskStore {
    records: Keyspace,
    messages: Keyspace,
    aside: Keyspace,
    database: Database,
}

/// The journals may grow to this before memtables are flushed to let them go.
const JOURNAL_BYTES: u64 = 128 << 20;
/// What a keyspace keeps in memory before it writes it out, and as much again while it does.
const MEMTABLE_BYTES: u64 = 8 << 20;

impl DiskStore {
    /// Opens the database at `path`, or makes it. What was being written when a process or the power went is not there.
    pub(super) fn open(path: &Path) -> Result<Self, fjall::Error> {
        let database = Database::builder(path)
            .journal_compression(CompressionType::None)
            .max_journaling_size(JOURNAL_BYTES)
            .worker_threads(1)
            .cache_size(8 << 20)
            .manual_journal_persist(true)
            .open()?;
        let small = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES);
        // Messages come compressed, are written once, read once and removed: apart from the tree, no compaction
        // writes them again.
        let large = || {
            small().data_block_compression_policy(CompressionPolicy::disabled()).with_kv_separation(Some(
                KvSeparationOptions::default()
                    .compression(CompressionType::None)
                    .separation_threshold(512)
                    .file_target_size(64 << 20)
                    .staleness_threshold(0.25)
                    .age_cutoff(0.25),
            ))
        };
        let (records, messages) = (database.keyspace("records", small)?, database.keyspace("messages", large)?);
        Ok(Self { records, messages, aside: database.keyspace("aside", small)?, database })
    }

    fn space(&self, space: Space) -> &Keyspace {
        match space {
            Space::Records => &self.records,
            Space::Messages => &self.messages,
            Space::Aside => &self.aside,
        }
    }
}

impl Store for DiskStore {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.space(space).get(key).map_err(StoreError::new)?.map(Bytes::from))
    }

    fn pairs(&self, space: Space, prefix: &[u8], from: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let from = from.max(prefix).to_vec();
        let pairs = self.space(space).range(from..).take(limit).map(|item| item.into_inner());
        let mut found = Vec::new();
        for pair in pairs {
            let (key, value) = pair.map_err(StoreError::new)?;
            if !key.starts_with(prefix) {
                break;
            }
            found.push((key.into(), value.into()));
        }
        Ok(found)
    }

    fn commit(&self, changes: Vec<Change>) -> Result<(), StoreError> {
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncData));
        for Change { space, key, value } in changes {
            match value {
                Some(value) => batch.insert(self.space(space), key, value),
                None => batch.remove(self.space(space), key),
            }
        }
        batch.commit().map_err(StoreError::new)
    }
}

/// A store that could not be opened, until it can.
pub(super) struct Nothing;

fn nothing() -> StoreError {
    StoreError::new(std::io::Error::other("the spool's database is closed after an error"))
}

impl Store for Nothing {
    fn get(&self, _: Space, _: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Err(nothing())
    }

    fn pairs(&self, _: Space, _: &[u8], _: &[u8], _: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        Err(nothing())
    }

    fn commit(&self, _: Vec<Change>) -> Result<(), StoreError> {
        Err(nothing())
    }
}
