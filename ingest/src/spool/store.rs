//! Where the spool keeps its bytes: three ordered keyspaces on disk, changed atomically.

use bytes::Bytes;
use wf_broker::{Change as DiskChange, DiskError, Durability, KeyRange, KeyspaceLayout, Keyspaces, Layout, Room};

use super::SpoolError;
use super::folder::Folder;

/// A keyspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// What is known of each entry, by lane and number.
    Records,
    /// The messages, by number.
    Messages,
    /// Records that cannot be used, as they were, by their key. Their messages stay where they are.
    Aside,
}

/// In the order of [`Space`].
pub(super) static LAYOUT: Layout = Layout {
    keyspaces: &[
        KeyspaceLayout { name: "records", apart: false },
        KeyspaceLayout { name: "messages", apart: true },
        KeyspaceLayout { name: "aside", apart: false },
    ],
    memtable_bytes: 8 << 20,
    journal_bytes: 128 << 20,
    cache_bytes: 8 << 20,
    threads: Some(1),
    reserve: 64 << 20,
};

/// A value, or the absence of one, under a key.
#[derive(Clone, Debug)]
pub struct Change {
    /// Where the key is.
    pub space: Space,
    /// The key.
    pub key: Vec<u8>,
    /// The value; `None` removes it.
    pub value: Option<Bytes>,
}

impl Change {
    pub(super) fn put(space: Space, key: Vec<u8>, value: Bytes) -> Self {
        Self { space, key, value: Some(value) }
    }

    pub(super) fn remove(space: Space, key: Vec<u8>) -> Self {
        Self { space, key, value: None }
    }
}

/// Ordered keyspaces. Read from any thread, changed by the writer alone.
pub trait Store: Send + Sync + 'static {
    /// The value under `key`.
    ///
    /// # Errors
    /// When the disk cannot be read.
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, DiskError>;

    /// The first `limit` keys from `from` on that start with `prefix`, with their values, in order.
    ///
    /// # Errors
    /// When the disk cannot be read.
    fn pairs(&self, space: Space, prefix: &[u8], from: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, DiskError>;

    /// Makes all changes or none; they survive the loss of power once this is done.
    ///
    /// # Errors
    /// When the disk cannot be written; then all or none of them are made.
    fn commit(&self, changes: Vec<Change>) -> Result<(), DiskError>;

    /// Closes it and opens it again, after a commit that failed.
    ///
    /// # Errors
    /// When it cannot be opened.
    fn reopen(&self) -> Result<(), SpoolError>;

    /// Whether there is room to put more.
    fn has_room(&self) -> bool;
}

/// The keyspaces on disk.
pub(super) struct DiskStore {
    keyspaces: Keyspaces,
    /// Dropped after the database, which others may open from then on.
    folder: Folder,
}

impl DiskStore {
    /// Opens what is in `folder`, or makes it.
    pub(super) fn open(folder: Folder) -> Result<Self, SpoolError> {
        let open = |folder: &Folder| Keyspaces::open(&folder.database(), &LAYOUT);
        let keyspaces = match open(&folder) {
            Err(error) if error.is_damage() => {
                folder.set_aside(&error)?;
                open(&folder)
            }
            opened => opened,
        };
        Ok(Self { keyspaces: keyspaces.map_err(|error| folder.not_open(error))?, folder })
    }
}

impl Store for DiskStore {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, DiskError> {
        self.keyspaces.get(space as usize, key)
    }

    fn pairs(&self, space: Space, prefix: &[u8], from: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, DiskError> {
        let range = KeyRange { from: from.max(prefix).to_vec(), to: KeyRange::prefix(prefix).to };
        self.keyspaces.pairs(space as usize, &range, limit)
    }

    fn commit(&self, changes: Vec<Change>) -> Result<(), DiskError> {
        let on_disk = |Change { space, key, value }| DiskChange { keyspace: space as usize, key, value };
        self.keyspaces.commit(changes.into_iter().map(on_disk), Durability::Synced)
    }

    fn reopen(&self) -> Result<(), SpoolError> {
        let reopened = match self.keyspaces.reopen() {
            Err(error) if error.is_damage() => {
                self.folder.set_aside(&error)?;
                self.keyspaces.reopen()
            }
            reopened => reopened,
        };
        reopened.map_err(|error| self.folder.not_open(error))
    }

    fn has_room(&self) -> bool {
        self.keyspaces.room() == Room::Enough
    }
}
