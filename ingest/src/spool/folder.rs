//! The folder that a spool lives in: one process's own at a time.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use wf_broker::{OwnError, OwnFolder};
use wf_schema::now;

use super::SpoolError;
use super::store::DiskStore;

const DATABASE: &str = "db";
/// What the names of what is aside start with.
const DAMAGED: &str = "damaged-";
/// fjall writes it last when it makes a database.
const DATABASE_MADE: &str = "version";

/// A folder that is this process's own, until dropped.
#[derive(Debug)]
pub(super) struct Folder(OwnFolder);

impl Folder {
    /// Makes the folder if need be, and locks it.
    pub(super) fn claim(path: &Path) -> Result<Self, SpoolError> {
        let io = |what, source| SpoolError::Folder { what, path: path.to_owned(), source: Arc::new(source) };
        OwnFolder::make(path).map_err(|error| io("make", error))?;
        OwnFolder::lock(path).map(Self).map_err(|error| match error {
            OwnError::InUse { pid } => SpoolError::InUse { path: path.to_owned(), pid },
            OwnError::Io { source, .. } => io("lock", source),
        })
    }

    /// Opens what is in it. A database that cannot be opened is kept aside, for people to look at, and a new one takes
    /// its place: jobs that come must not suffer for those that are there. What is aside is told of each time.
    pub(super) fn open(&self) -> Result<DiskStore, SpoolError> {
        let database = self.path().join(DATABASE);
        let io = |what| move |source| SpoolError::Folder { what, path: self.path().to_owned(), source: Arc::new(source) };
        if database.exists() && !database.join(DATABASE_MADE).exists() {
            // A process died while it made it. There is nothing in it yet.
            fs::remove_dir_all(&database).map_err(io("clear"))?;
        }
        let failed = |error: fjall::Error| SpoolError::Open { path: self.path().to_owned(), source: Arc::new(error) };
        let error = match DiskStore::open(&database) {
            Ok(store) => return self.tell_of_damage().map(|()| store).map_err(io("list")),
            // The last commit, most likely: the power went before all of it was written, so nobody was told of it.
            Err(fjall::Error::JournalRecovery(error)) => {
                let aside = self.cut_tail(&database).map_err(io("mend"))?;
                tracing::error!(aside = %aside.display(), %error, "the spool's last commit was torn and was cut off; the journal as it was is kept aside");
                match DiskStore::open(&database) {
                    Ok(store) => return Ok(store),
                    Err(error) => error,
                }
            }
            Err(error) => error,
        };
        if !is_damage(&error) {
            return Err(failed(error));
        }
        let aside = self.path().join(format!("{DAMAGED}{DATABASE}-{}", now()));
        tracing::error!(
            aside = %aside.display(),
            error = &error as &dyn std::error::Error,
            "the spool is damaged and was kept aside: jobs in it that were not shipped stay there"
        );
        fs::rename(&database, &aside).and_then(|()| OwnFolder::sync(self.path())).map_err(io("set aside"))?;
        DiskStore::open(&database).map_err(failed)
    }

    /// Takes the end off what was written last, so that it counts as not written; keeps the journal as it was aside.
    fn cut_tail(&self, database: &Path) -> io::Result<PathBuf> {
        let number = |path: &Path| path.file_stem()?.to_str()?.parse::<u64>().ok();
        let mut journals = Vec::new();
        for entry in fs::read_dir(database)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "jnl") {
                journals.extend(number(&path).map(|number| (number, path)));
            }
        }
        let (_, journal) = journals.into_iter().max().ok_or(io::ErrorKind::NotFound)?;
        let aside = self.path().join(format!("{DAMAGED}journal-{}", now()));
        fs::copy(&journal, &aside)?;
        File::open(&aside)?.sync_all()?;
        OwnFolder::sync(self.path())?;
        let mut file = OpenOptions::new().read(true).write(true).open(&journal)?;
        // A journal is made with zeros in front of it; its commits end with a mark that has none.
        let end = last_byte(&mut file)?;
        file.set_len(end.saturating_sub(1))?;
        file.sync_all()?;
        Ok(aside)
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Reminds people of what is aside.
    fn tell_of_damage(&self) -> io::Result<()> {
        for entry in fs::read_dir(self.path())? {
            let path = entry?.path();
            if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(DAMAGED)) {
                tracing::warn!(path = %path.display(), "a damaged part of the spool is still aside");
            }
        }
        Ok(())
    }
}

/// Where the last byte of `file` ends that is not zero.
fn last_byte(file: &mut File) -> io::Result<u64> {
    let mut piece = vec![0; 1 << 20];
    let mut end = file.metadata()?.len();
    while end > 0 {
        let start = end.saturating_sub(piece.len() as u64);
        let piece = &mut piece[..(end - start) as usize];
        file.seek(io::SeekFrom::Start(start))?;
        file.read_exact(piece)?;
        if let Some(at) = piece.iter().rposition(|byte| *byte != 0) {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

/// Whether what is written there is at fault, and not the disk, its rights, or another process.
fn is_damage(error: &fjall::Error) -> bool {
    let io = super::error::io_cause(error).map(io::Error::kind);
    !matches!(error, fjall::Error::Locked) && matches!(io, None | Some(io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof))
}
