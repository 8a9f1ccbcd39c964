//! The folder that a store on disk lives in: whose it is, and of which format.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::OpenError;
use crate::{OwnError, OwnFolder};

/// What the format file says. The number grows when what is written cannot be read by what came before.
const FORMAT: &str = "work-factory embedded broker, format ";
const VERSION: u32 = 1;

const FORMAT_FILE: &str = "format";
const FORMAT_DRAFT: &str = "format.new";
const DATABASE: &str = "db";

/// A folder that is this process's own, until dropped.
#[derive(Debug)]
pub(super) struct Folder(OwnFolder);

impl Folder {
    /// Makes the folder if need be, locks it, and checks its format.
    pub(super) fn claim(path: &Path) -> Result<Self, OpenError> {
        let io = |what| move |source| OpenError::Io { what, path: path.to_owned(), source };
        if path.exists() && !path.is_dir() {
            return Err(OpenError::NotAFolder { path: path.to_owned() });
        }
        OwnFolder::make(path).map_err(io("make the folder"))?;
        let format = path.join(FORMAT_FILE);
        if !format.exists() {
            // A process that died before the format was written has left no more than these. A database without so much
            // as a draft of a format belongs to a spool.
            let draft = path.join(FORMAT_DRAFT).exists();
            let ours = [OwnFolder::LOCK, FORMAT_DRAFT, if draft { DATABASE } else { FORMAT_DRAFT }];
            for entry in fs::read_dir(path).map_err(io("list the folder"))? {
                let name = entry.map_err(io("list the folder"))?.file_name();
                if !ours.iter().any(|own| name == *own) {
                    return Err(OpenError::Foreign { path: path.to_owned() });
                }
            }
        }
        let own = OwnFolder::lock(path).map_err(|error| match error {
            OwnError::InUse { pid } => OpenError::InUse { path: path.to_owned(), pid },
            OwnError::Foreign => OpenError::Foreign { path: path.to_owned() },
            OwnError::Io { what, source } => io(what)(source),
        })?;
        match fs::read_to_string(&format) {
            Ok(text) => check_format(path, &text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Written whole or not at all.
                let draft = path.join(FORMAT_DRAFT);
                let text = format!("{FORMAT}{VERSION}\n");
                write_synced(&draft, text.as_bytes()).map_err(io("write the format"))?;
                fs::rename(&draft, &format).map_err(io("write the format"))?;
                OwnFolder::sync(path).map_err(io("write the format"))?;
            }
            Err(error) => return Err(io("read the format")(error)),
        }
        Ok(Self(own))
    }

    /// Where the database is.
    pub(super) fn database(&self) -> PathBuf {
        self.0.path().join(DATABASE)
    }
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn check_format(path: &Path, text: &str) -> Result<(), OpenError> {
    let version = text.trim_end().strip_prefix(FORMAT).and_then(|version| version.parse().ok());
    match version {
        Some(VERSION) => Ok(()),
        Some(found) => Err(OpenError::Format { path: path.to_owned(), found, known: VERSION }),
        None => Err(OpenError::Foreign { path: path.to_owned() }),
    }
}
