//! Why keyspaces cannot be opened.

use std::io;
use std::path::PathBuf;

use super::disk_error::io_cause;

/// Why keyspaces cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyspacesError {
    /// What was safe on disk is so no more: commits are damaged that others were made after.
    #[error(
        "{} is damaged at byte {at}, in commits that were safe on disk: {} has one that was made after them, at byte {next}. \
         Nothing was changed. Keep the folder as it is, and restore a copy of it in its place",
        journal.display(), later.display()
    )]
    Corrupt {
        /// The journal that is damaged.
        journal: PathBuf,
        /// Where: the first byte of what cannot be read.
        at: u64,
        /// The journal that has a later commit. Often the same.
        later: PathBuf,
        /// Where that commit begins.
        next: u64,
    },
    /// The folder cannot be read or written.
    #[error("cannot {what}: {}", path.display())]
    Io {
        /// What was tried, as a verb.
        what: &'static str,
        /// What it was tried with.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The database says no.
    #[error("the database cannot be opened")]
    Database(#[source] fjall::Error),
}

impl From<fjall::Error> for KeyspacesError {
    fn from(error: fjall::Error) -> Self {
        Self::Database(error)
    }
}

impl KeyspacesError {
    /// Whether what is written there is at fault, and not the disk, its rights, or another process.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Corrupt { .. } => true,
            Self::Io { .. } => false,
            Self::Database(error) => {
                let io = io_cause(error).map(io::Error::kind);
                let readable = matches!(io, None | Some(io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof));
                !matches!(error, fjall::Error::Locked) && readable
            }
        }
    }
}
