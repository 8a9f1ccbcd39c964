//! Folders on local disk that are one process's own at a time.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

/// The hold on a folder, until dropped. The lock is the file system's, so it ends with the process, however that ends.
#[derive(Debug)]
pub struct OwnFolder {
    path: PathBuf,
    _lock: File,
}

/// Why a folder is not this process's own.
#[derive(Debug, thiserror::Error)]
pub enum OwnError {
    /// Another process has it, or another part of this one.
    #[error("it is in use")]
    InUse {
        /// The process that has it, if it can be told.
        pid: Option<u32>,
    },
    /// Its lock file has something else in it.
    #[error("its file `lock` is not a lock file of this program")]
    Foreign,
    /// The file system does not allow it.
    #[error("cannot {what}")]
    Io {
        /// What was tried, as a verb.
        what: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl OwnFolder {
    /// The name of the file in it that is locked. It has the process's number, for people.
    pub const LOCK: &str = "lock";

    /// Makes the folder and those above it, so that they are there also after the power went.
    ///
    /// # Errors
    /// What the file system says.
    pub fn make(path: &Path) -> io::Result<()> {
        let path = std::path::absolute(path)?;
        let missing: Vec<_> = path.ancestors().take_while(|folder| !folder.exists()).collect();
        fs::create_dir_all(&path)?;
        missing.into_iter().filter_map(Path::parent).try_for_each(Self::sync)
    }

    /// Locks the folder, which has to be there.
    ///
    /// # Errors
    /// When somebody else has it, its lock file is not ours, or it cannot be written.
    pub fn lock(path: &Path) -> Result<Self, OwnError> {
        let io = |what| move |source| OwnError::Io { what, source };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path.join(Self::LOCK))
            .map_err(io("open the lock file"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                // Only for people: it may not be written yet.
                let mut pid = String::new();
                let read = (&file).take(20).read_to_string(&mut pid);
                return Err(OwnError::InUse { pid: read.ok().and_then(|_| pid.trim().parse().ok()) });
            }
            Err(TryLockError::Error(source)) => return Err(io("lock the folder")(source)),
        }
        // Somebody else's file may have this name.
        let mut start = String::new();
        let read = (&file).take(20).read_to_string(&mut start);
        if read.is_err() || !start.trim_end().bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(OwnError::Foreign);
        }
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(io("write the lock file"))?;
        Ok(Self { path: path.to_owned(), _lock: file })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the names in a folder durable.
    ///
    /// # Errors
    /// What the file system says.
    pub fn sync(folder: &Path) -> io::Result<()> {
        File::open(folder)?.sync_all()
    }
}
