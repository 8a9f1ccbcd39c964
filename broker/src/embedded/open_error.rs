//! Why an embedded broker could not be opened.

use std::io;
use std::path::PathBuf;

use super::keys::Garbled;
use super::store::DiskError;
use crate::{Cause, KeyspacesError};

/// Why an embedded broker could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process, or another broker of this one, has it open.
    #[error("{} is in use by {}", path.display(), user(*pid))]
    InUse {
        /// The folder.
        path: PathBuf,
        /// The process that has it, if it can be told.
        pid: Option<u32>,
    },
    /// There is a file, or something else that is no folder.
    #[error("{} is not a folder", path.display())]
    NotAFolder {
        /// The path.
        path: PathBuf,
    },
    /// The folder holds something else, which is better left alone.
    #[error("{} holds something that is not an embedded broker", path.display())]
    Foreign {
        /// The folder.
        path: PathBuf,
    },
    /// It was written by another version of this program.
    #[error("{} has format {found}; this program knows format {known}", path.display())]
    Format {
        /// The folder.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The format that this program reads and writes.
        known: u32,
    },
    /// The folder cannot be read or written.
    #[error("cannot {what} at {}", path.display())]
    Io {
        /// What was tried, as a verb.
        what: &'static str,
        /// The folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Its disk has no room, and some is needed to open it.
    #[error("the disk of the broker in {} has no room", path.display())]
    NoRoom {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: Cause,
    },
    /// What is stored there cannot be read.
    #[error("the broker in {} cannot be read", path.display())]
    Damaged {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Cause,
    },
    /// A broker in memory could not start.
    #[error("the broker in memory could not start")]
    Memory(#[source] Cause),
}

impl OpenError {
    /// Whether it may work later without anybody changing anything: when whoever has it lets go.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::InUse { .. })
    }
}

fn user(pid: Option<u32>) -> String {
    match pid {
        Some(pid) if pid == std::process::id() => "this process".to_owned(),
        Some(pid) => format!("another process (pid {pid})"),
        None => "another process".to_owned(),
    }
}

/// What goes wrong while a store is opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenCause {
    #[error(transparent)]
    Store(#[from] DiskError),
    #[error(transparent)]
    Keyspaces(#[from] KeyspacesError),
    #[error(transparent)]
    Garbled(#[from] Garbled),
    #[error("no thread could be started")]
    Thread(#[source] io::Error),
}
