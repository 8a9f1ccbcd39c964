//! What can go wrong with a spool.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use wf_broker::DiskError;

/// Why a spool cannot be opened, or does not take jobs.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpoolError {
    /// Another process has it open.
    #[error("the spool {} is in use{}", .path.display(), .pid.map(|pid| format!(" by process {pid}")).unwrap_or_default())]
    InUse {
        /// The folder.
        path: PathBuf,
        /// That process, if it has said so yet.
        pid: Option<u32>,
    },
    /// It is a file, or a folder that holds something else.
    #[error("{} holds something that is not a spool, so it is left alone: name another folder", .path.display())]
    Foreign {
        /// What was named.
        path: PathBuf,
    },
    /// The folder cannot be used.
    #[error("cannot {what} the spool {}", .path.display())]
    Folder {
        /// What cannot be done with it, as a verb.
        what: &'static str,
        /// The folder.
        path: PathBuf,
        /// Why not.
        #[source]
        source: Arc<io::Error>,
    },
    /// The database in the folder cannot be opened.
    #[error("the spool {} cannot be opened", .path.display())]
    Open {
        /// The folder.
        path: PathBuf,
        /// Why not.
        #[source]
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// It holds as much as it may.
    #[error("the spool is full: {limit} bytes")]
    Full {
        /// [`crate::SpoolOptions::bytes`].
        limit: u64,
    },
    /// The disk has no room.
    #[error("the spool's disk has no room")]
    NoSpace,
    /// The disk failed. Whether the jobs are in the spool is not known.
    #[error("the spool's disk failed")]
    Disk(#[source] Arc<dyn std::error::Error + Send + Sync>),
    /// It was closed.
    #[error("the spool is closed")]
    Closed,
}

impl SpoolError {
    /// How long to wait before there may be room again.
    pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(30);

    /// Whether there is no room for now.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Full { .. } | Self::NoSpace)
    }
}

impl From<DiskError> for SpoolError {
    fn from(error: DiskError) -> Self {
        if error.is_no_room() { Self::NoSpace } else { Self::Disk(error.cause()) }
    }
}
