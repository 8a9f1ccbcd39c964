//! The folder that a spool lives in: one process's own at a time.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use wf_schema::now;

use super::SpoolError;
use super::store::DiskStore;

const LOCK: &str = "lock";
const DATABASE: &str = "db";
/// fjall writes it last when it makes a database.
const DATABASE_MADE: &str = "version";

/// A folder that is this process's own, until dropped. The lock is the file system's: it ends with the process, however
/// that ends.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Makes the folder if need be, and locks it.
    pub(super) fn claim(path: &Path) -> Result<Self, SpoolError> {
        let io = |what| move |source| SpoolError::Folder { what, path: path.to_owned(), source: Arc::new(source) };
        let missing: Vec<PathBuf> = match std::path::absolute(path) {
            Ok(path) => path.ancestors().take_while(|folder| !folder.exists()).map(Path::to_owned).collect(),
            Err(error) => return Err(io("find")(error)),
        };
        fs::create_dir_all(path).map_err(io("make"))?;
        // Or its name might be gone after the power was.
        missing.iter().filter_map(|folder| folder.parent()).try_for_each(sync).map_err(io("make"))?;
        let mut lock =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path.join(LOCK)).map_err(io("lock"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                // Only for people: it may not be written yet.
                let mut pid = String::new();
                let read = (&lock).take(20).read_to_string(&mut pid);
                let pid = read.ok().and_then(|_| pid.trim().parse().ok());
                return Err(SpoolError::InUse { path: path.to_owned(), pid });
            }
            Err(TryLockError::Error(source)) => return Err(io("lock")(source)),
        }
        let written = lock.set_len(0).and_then(|()| lock.rewind()).and_then(|()| writeln!(lock, "{}", std::process::id()));
        written.map_err(io("lock"))?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// Opens what is in it. A database that cannot be opened is kept aside, for people to look at, and a new one takes
    /// its place: jobs that come must not suffer for those that are there. What is aside is told of each time.
    pub(super) fn open(&self) -> Result<DiskStore, SpoolError> {
        let database = self.path.join(DATABASE);
        let io = |what| move |source| SpoolError::Folder { what, path: self.path.clone(), source: Arc::new(source) };
        if database.exists() && !database.join(DATABASE_MADE).exists() {
            // A process died while it made it. There is nothing in it yet.
            fs::remove_dir_all(&database).map_err(io("clear"))?;
        }
        let error = match DiskStore::open(&database) {
            Ok(store) => return self.tell_of_others().map(|()| store).map_err(io("list")),
            Err(error) if is_damage(&error) => error,
            Err(error) => return Err(SpoolError::Open { path: self.path.clone(), source: Arc::new(error) }),
        };
        let aside = self.path.join(format!("{DATABASE}.damaged-{}", now()));
        tracing::error!(
            aside = %aside.display(),
            error = &error as &dyn std::error::Error,
            "the spool is damaged and was kept aside: jobs in it that were not shipped stay there"
        );
        fs::rename(&database, &aside).and_then(|()| sync(&self.path)).map_err(io("set aside"))?;
        DiskStore::open(&database).map_err(|error| SpoolError::Open { path: self.path.clone(), source: Arc::new(error) })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Reminds people of damaged databases.
    fn tell_of_others(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.path)? {
            let path = entry?.path();
            if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&format!("{DATABASE}.damaged-"))) {
                tracing::warn!(path = %path.display(), "a damaged spool is still aside");
            }
        }
        Ok(())
    }
}

/// Whether what is written there is at fault, and not the disk, its rights, or another process.
fn is_damage(error: &fjall::Error) -> bool {
    let io = super::error::io_cause(error).map(io::Error::kind);
    !matches!(error, fjall::Error::Locked) && matches!(io, None | Some(io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof))
}

/// Makes the names in a folder durable.
fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
