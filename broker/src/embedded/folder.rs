//! The folder that a store on disk lives in: whose it is, and of which format.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use super::OpenError;

/// What the format file says. The number grows when what is written cannot be read by what came before.
const FORMAT: &str = "work-factory embedded broker, format ";
const VERSION: u32 = 1;

const LOCK_FILE: &str = "lock";
const FORMAT_FILE: &str = "format";
const FORMAT_DRAFT: &str = "format.new";
const DATABASE: &str = "db";
/// fjall writes it last when it makes a database.
const DATABASE_MADE: &str = "version";

/// A folder that is this process's own, until dropped.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// Locked. The lock is the file system's, so it ends with the process, however that ends.
    _lock: File,
}

impl Folder {
    /// Makes the folder if need be, locks it, and checks its format.
    pub(super) fn claim(path: &Path) -> Result<Self, OpenError> {
        let io = |what| move |source| OpenError::Io { what, path: path.to_owned(), source };
        if path.exists() && !path.is_dir() {
            return Err(OpenError::NotAFolder { path: path.to_owned() });
        }
        make(path).map_err(io("make the folder"))?;
        let format = path.join(FORMAT_FILE);
        if !format.exists() {
            // A process that died before the format was written has left no more than these.
            let ours = [LOCK_FILE, FORMAT_DRAFT, DATABASE];
            for entry in fs::read_dir(path).map_err(io("list the folder"))? {
                let name = entry.map_err(io("list the folder"))?.file_name();
                if !ours.iter().any(|own| name == *own) {
                    return Err(OpenError::Foreign { path: path.to_owned() });
                }
            }
        }
        let lock = lock(path)?;
        match fs::read_to_string(&format) {
            Ok(text) => check_format(path, &text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Written whole or not at all.
                let draft = path.join(FORMAT_DRAFT);
                let text = format!("{FORMAT}{VERSION}\n");
                write_synced(&draft, text.as_bytes()).map_err(io("write the format"))?;
                fs::rename(&draft, &format).map_err(io("write the format"))?;
                sync(path).map_err(io("write the format"))?;
            }
            Err(error) => return Err(io("read the format")(error)),
        }
        let folder = Self { path: path.to_owned(), _lock: lock };
        let database = folder.database();
        if database.exists() && !database.join(DATABASE_MADE).exists() {
            // A process died while it made the database. There is nothing in it yet.
            fs::remove_dir_all(&database).map_err(io("clear an unfinished database"))?;
        }
        Ok(folder)
    }

    /// Where the database is.
    pub(super) fn database(&self) -> PathBuf {
        self.path.join(DATABASE)
    }
}

/// Makes the folder and those above it, so that they are there also after the power went.
fn make(path: &Path) -> io::Result<()> {
    let path = std::path::absolute(path)?;
    let missing: Vec<_> = path.ancestors().take_while(|folder| !folder.exists()).collect();
    fs::create_dir_all(&path)?;
    missing.into_iter().filter_map(Path::parent).try_for_each(sync)
}

/// Makes the names in a folder durable.
fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn lock(path: &Path) -> Result<File, OpenError> {
    let io = |what| move |source| OpenError::Io { what, path: path.to_owned(), source };
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path.join(LOCK_FILE))
        .map_err(io("open the lock file"))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            // Only for people: it may not be written yet.
            let mut pid = String::new();
            let read = (&file).take(20).read_to_string(&mut pid);
            let pid = read.ok().and_then(|_| pid.trim().parse().ok());
            return Err(OpenError::InUse { path: path.to_owned(), pid });
        }
        Err(TryLockError::Error(source)) => return Err(io("lock the folder")(source)),
    }
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(io("write the lock file"))?;
    Ok(file)
}

fn check_format(path: &Path, text: &str) -> Result<(), OpenError> {
    let version = text.trim_end().strip_prefix(FORMAT).and_then(|version| version.parse().ok());
    match version {
        Some(VERSION) => Ok(()),
        Some(found) => Err(OpenError::Format { path: path.to_owned(), found, known: VERSION }),
        None => Err(OpenError::Foreign { path: path.to_owned() }),
    }
}
