//! The folder that a spool lives in: one process's own at a time.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use wf_broker::{KeyspacesError, OwnError, OwnFolder};
use wf_schema::now;

use super::SpoolError;

const DATABASE: &str = "db";
/// What the names of what is aside start with.
const DAMAGED: &str = "damaged-";
/// What may lie beside the database: what the program keeps there of the broker, and what a file system puts into its
/// root.
const BESIDE: [&str; 3] = ["broker.json", "broker.json.new", "lost+found"];

/// A folder that is this process's own, until dropped.
#[derive(Debug)]
pub(super) struct Folder(OwnFolder);

impl Folder {
    /// Makes the folder if need be, and locks it, unless it holds something else, which is left alone. What is aside in
    /// it is told of each time.
    pub(super) fn claim(path: &Path) -> Result<Self, SpoolError> {
        let io = |what, source| SpoolError::Folder { what, path: path.to_owned(), source: Arc::new(source) };
        let foreign = || SpoolError::Foreign { path: path.to_owned() };
        if path.exists() && !path.is_dir() {
            return Err(foreign());
        }
        OwnFolder::make(path).map_err(|error| io("make", error))?;
        for entry in fs::read_dir(path).map_err(|error| io("list", error))? {
            let name = entry.map_err(|error| io("list", error))?.file_name();
            let name = name.to_string_lossy();
            if ![OwnFolder::LOCK, DATABASE].contains(&&*name) && !BESIDE.contains(&&*name) && !name.starts_with(DAMAGED) {
                return Err(foreign());
            }
        }
        let folder = OwnFolder::lock(path).map(Self).map_err(|error| match error {
            OwnError::InUse { pid } => SpoolError::InUse { path: path.to_owned(), pid },
            OwnError::Foreign => foreign(),
            OwnError::Io { source, .. } => io("lock", source),
        })?;
        folder.tell_of_damage().map_err(|error| io("list", error))?;
        Ok(folder)
    }

    /// Where the database is.
    pub(super) fn database(&self) -> PathBuf {
        self.path().join(DATABASE)
    }

    /// Keeps a database that cannot be opened aside, for people to look at, so that a new one can take its place: jobs
    /// that come must not suffer for those that are there.
    pub(super) fn set_aside(&self, error: &KeyspacesError) -> Result<(), SpoolError> {
        let io = |source| SpoolError::Folder { what: "set aside", path: self.path().to_owned(), source: Arc::new(source) };
        let aside = self.path().join(format!("{DAMAGED}{DATABASE}-{}", now()));
        tracing::error!(
            aside = %aside.display(),
            error = error as &dyn std::error::Error,
            "the spool is damaged and was kept aside: jobs in it that were not shipped stay there"
        );
        fs::rename(self.database(), &aside).and_then(|()| OwnFolder::sync(self.path())).map_err(io)
    }

    /// The error for a database that cannot be opened.
    pub(super) fn not_open(&self, error: KeyspacesError) -> SpoolError {
        SpoolError::Open { path: self.path().to_owned(), source: Arc::new(error) }
    }

    fn path(&self) -> &Path {
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
