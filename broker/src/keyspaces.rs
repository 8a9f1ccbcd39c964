//! Ordered keyspaces on local disk, changed atomically: where the embedded broker and the spool keep their bytes.
//!
//! fjall, an LSM tree that keeps larger values in files of their own. What is asked of it here, and what it leaves
//! open, is in this place: how safe a commit is, [what a crash may leave](journal), and what to do about a disk that
//! has no room.

mod clearing;
mod commit;
mod disk_error;
mod journal;
mod key_range;
mod keyspaces_error;
#[cfg(test)]
mod tests;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use fjall::config::CompressionPolicy;
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, PersistMode};
use parking_lot::{Mutex, RwLock};

use clearing::Clearing;
pub use disk_error::DiskError;
pub(crate) use disk_error::is_no_room;
pub use key_range::KeyRange;
pub use keyspaces_error::KeyspacesError;

/// fjall writes it last when it makes a database.
const MADE: &str = "version";
/// A key that is in the first keyspace of a commit which found earlier ones not yet synced. Nobody else's: see
/// [`Keyspaces`].
const UNSYNCED: [u8; 1] = [0];

/// How a database is laid out. The names, and which values are apart, are part of what is on disk.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// The keyspaces: from then on each is known by its place.
    pub keyspaces: &'static [KeyspaceLayout],
    /// What a keyspace keeps in memory before it writes it out, and as much again while it does, in bytes.
    pub memtable_bytes: u64,
    /// The journals may grow to this before the oldest memtables are written out to let them go: 64 MiB at least.
    pub journal_bytes: u64,
    /// The cache for what is read, in bytes.
    pub cache_bytes: u64,
    /// Threads that write out memtables and compact; `None`: one for each core, four at most.
    pub threads: Option<usize>,
    /// With less than this free on the disk, in bytes, there is no room for more: removing takes some, too.
    pub reserve: u64,
}

/// How one keyspace is laid out.
#[derive(Clone, Copy, Debug)]
pub struct KeyspaceLayout {
    /// Its name.
    pub name: &'static str,
    /// Whether values of more than 512 bytes are in files of their own, and nothing is compressed: for what comes
    /// compressed, is written once, read once and removed. No compaction writes it again.
    pub apart: bool,
}

/// One change: a value, or the absence of one, under a key.
#[derive(Clone, Debug)]
pub struct Change {
    /// The keyspace's place in the [`Layout`].
    pub keyspace: usize,
    /// The key.
    pub key: Vec<u8>,
    /// The value; `None`: none any more.
    pub value: Option<Bytes>,
}

/// How safe a commit is when it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Survives the end of the process.
    Buffered,
    /// Survives the loss of power, and with it all that was committed before.
    Synced,
}

/// How much room a disk has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// Enough for more.
    Enough,
    /// Less than the [reserve](Layout::reserve): enough to remove something.
    Little,
    /// Not even that.
    None,
}

/// The keyspaces of a database. Read from any thread, committed to by one at a time. Keys of one or two zero bytes are
/// no keys for anybody else.
///
/// A commit that failed leaves it closed to others: whether it was made is known only after [`Keyspaces::reopen`].
/// What was read before can be read until then.
pub struct Keyspaces {
    path: PathBuf,
    layout: &'static Layout,
    /// `None` after it could not be opened anew.
    open: RwLock<Option<Open>>,
}

struct Open {
    /// Dropped first: it may be at work on the data.
    clearing: Mutex<Clearing>,
    data: Data,
}

/// The database. Clones are the same.
#[derive(Clone)]
struct Data {
    keyspaces: Vec<Keyspace>,
    database: Database,
    /// Whether there are commits that the loss of power may still take back. Held while one is made.
    unsynced: Arc<Mutex<bool>>,
}

impl Keyspaces {
    /// Opens the database at `path`, or makes it; the folder it is in has to be this process's own. Of what was being
    /// committed when a process or the power went, all is there or nothing. The end of a journal that has to be cut off
    /// for that is said in the log.
    ///
    /// # Errors
    /// When it is [damaged](KeyspacesError::is_damage), or cannot be read or written. It is then as it was.
    pub fn open(path: &Path, layout: &'static Layout) -> Result<Self, KeyspacesError> {
        let open = Open::at(path, layout)?;
        Ok(Self { path: path.to_owned(), layout, open: RwLock::new(Some(open)) })
    }

    /// Closes it and opens it again: after a commit that failed nothing is certain but what the disk says when it is
    /// asked anew. Who reads waits meanwhile.
    ///
    /// # Errors
    /// As [`Keyspaces::open`]. It is closed then, until this is asked again and works.
    pub fn reopen(&self) -> Result<(), KeyspacesError> {
        let mut open = self.open.write();
        // It must be closed before it can be opened.
        drop(open.take());
        *open = Some(Open::at(&self.path, self.layout)?);
        Ok(())
    }

    /// How much room the disk has. If that is not enough, what was removed and is still there is cleared from it, in the
    /// background: ask again. Asked by who commits.
    pub fn room(&self) -> Room {
        // Where that cannot be said there is room: a commit says otherwise.
        let free = rustix::fs::statvfs(&self.path).map_or(u64::MAX, |disk| disk.f_bavail.saturating_mul(disk.f_frsize));
        let room = match free {
            free if free >= self.layout.reserve => Room::Enough,
            // Clearing begins with writing out what is in memory.
            free if free >= 2 * self.layout.memtable_bytes => Room::Little,
            _ => Room::None,
        };
        if let Some(open) = &*self.open.read() {
            let mut clearing = open.clearing.lock();
            match room {
                Room::Enough => clearing.is_needless(),
                Room::Little => clearing.is_needed(&open.data),
                Room::None => {}
            }
        }
        room
    }

    /// The value under `key`.
    ///
    /// # Errors
    /// What the disk says.
    pub fn get(&self, keyspace: usize, key: &[u8]) -> Result<Option<Bytes>, DiskError> {
        self.with(|data| Ok(data.keyspace(keyspace)?.get(key).map_err(DiskError::new)?.map(Bytes::from)))
    }

    /// The first `limit` keys of `range`, in order. Reads no values.
    ///
    /// # Errors
    /// What the disk says.
    pub fn keys(&self, keyspace: usize, range: &KeyRange, limit: usize) -> Result<Vec<Bytes>, DiskError> {
        self.with(|data| {
            let keys = data.range(keyspace, range)?.take(limit).map(|item| item.key().map(Bytes::from));
            keys.collect::<Result<_, _>>().map_err(DiskError::new)
        })
    }

    /// The first `limit` keys of `range` with their values, in order.
    ///
    /// # Errors
    /// What the disk says.
    pub fn pairs(&self, keyspace: usize, range: &KeyRange, limit: usize) -> Result<Vec<(Bytes, Bytes)>, DiskError> {
        self.with(|data| {
            let pairs = data.range(keyspace, range)?.take(limit).map(fjall::Guard::into_inner);
            pairs
                .map(|pair| pair.map(|(key, value)| (key.into(), value.into())))
                .collect::<Result<_, _>>()
                .map_err(DiskError::new)
        })
    }

    /// The last key of `range`.
    ///
    /// # Errors
    /// What the disk says.
    pub fn last_key(&self, keyspace: usize, range: &KeyRange) -> Result<Option<Bytes>, DiskError> {
        self.with(|data| {
            let last = data.range(keyspace, range)?.next_back().map(fjall::Guard::key);
            Ok(last.transpose().map_err(DiskError::new)?.map(Bytes::from))
        })
    }

    /// Makes all `changes`, in order, or none. With none of them and [`Durability::Synced`], makes safe what was
    /// committed before.
    ///
    /// # Errors
    /// What the disk says. Whether it was made is not known then, and nothing more is until it was opened anew.
    pub fn commit(&self, changes: impl IntoIterator<Item = Change>, durability: Durability) -> Result<(), DiskError> {
        self.with(|data| data.commit(changes, durability))
    }

    fn with<T>(&self, act: impl FnOnce(&Data) -> Result<T, DiskError>) -> Result<T, DiskError> {
        act(&self.open.read().as_ref().ok_or_else(DiskError::closed)?.data)
    }
}

impl Open {
    fn at(path: &Path, layout: &Layout) -> Result<Self, KeyspacesError> {
        if path.exists() && !path.join(MADE).exists() {
            // A process died while it made it. There is nothing in it yet.
            let io = |source| KeyspacesError::Io { what: "clear an unfinished database", path: path.to_owned(), source };
            fs::remove_dir_all(path).map_err(io)?;
        }
        journal::mend(path)?;
        let builder = Database::builder(path)
            .journal_compression(CompressionType::None)
            .max_journaling_size(layout.journal_bytes)
            .cache_size(layout.cache_bytes)
            // Each commit says how safe it has to be.
            .manual_journal_persist(true);
        let builder = match layout.threads {
            Some(threads) => builder.worker_threads(threads),
            None => builder,
        };
        let database = builder.open()?;
        let keyspaces = layout.keyspaces.iter().map(|one| database.keyspace(one.name, || one.options(layout)));
        let keyspaces = keyspaces.collect::<Result<_, _>>()?;
        Ok(Self { clearing: Mutex::default(), data: Data { keyspaces, database, unsynced: Arc::default() } })
    }
}

impl Data {
    fn keyspace(&self, place: usize) -> Result<&Keyspace, DiskError> {
        let missing = || DiskError::new(io::Error::other("there is no such keyspace"));
        self.keyspaces.get(place).ok_or_else(missing)
    }

    fn range(&self, keyspace: usize, range: &KeyRange) -> Result<fjall::Iter, DiskError> {
        let (keyspace, from) = (self.keyspace(keyspace)?, range.from.clone());
        Ok(match range.to.clone() {
            Some(to) => keyspace.range(from..to),
            None => keyspace.range(from..),
        })
    }

    fn commit(&self, changes: impl IntoIterator<Item = Change>, durability: Durability) -> Result<(), DiskError> {
        let mode = match durability {
            Durability::Buffered => PersistMode::Buffer,
            Durability::Synced => PersistMode::SyncData,
        };
        let mut unsynced = self.unsynced.lock();
        let mut batch = self.database.batch().durability(Some(mode));
        for Change { keyspace, key, value } in changes {
            match value {
                Some(value) => batch.insert(self.keyspace(keyspace)?, key, value),
                None => batch.remove(self.keyspace(keyspace)?, key),
            }
        }
        if batch.is_empty() {
            self.database.persist(mode).map_err(DiskError::new)?;
            *unsynced &= durability == Durability::Buffered;
            return Ok(());
        }
        if *unsynced {
            // Or, torn in one of those and whole here, the journal would look as if something safe was damaged.
            batch.insert(self.keyspace(0)?, UNSYNCED, Bytes::new());
        }
        batch.commit().map_err(DiskError::new)?;
        *unsynced = durability == Durability::Buffered;
        Ok(())
    }
}

impl KeyspaceLayout {
    fn options(&self, layout: &Layout) -> KeyspaceCreateOptions {
        let options = KeyspaceCreateOptions::default().max_memtable_size(layout.memtable_bytes);
        if !self.apart {
            return options;
        }
        options.data_block_compression_policy(CompressionPolicy::disabled()).with_kv_separation(Some(
            KvSeparationOptions::default()
                .compression(CompressionType::None)
                .separation_threshold(512)
                .file_target_size(64 << 20)
                // A queue writes each message once and soon deletes it: a quarter of stale bytes is soon enough to
                // collect a file.
                .staleness_threshold(0.25)
                .age_cutoff(0.25),
        ))
    }
}

impl std::fmt::Debug for Keyspaces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keyspaces").field("path", &self.path).finish_non_exhaustive()
    }
}
