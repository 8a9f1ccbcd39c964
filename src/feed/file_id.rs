//! Which file an open file is, whatever name it was opened by.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

/// The device and inode of a regular file: the same through links, and through `/dev/stdin`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    /// The file that is open as `file`; `None` for pipes, terminals and the like.
    pub fn of(file: impl AsFd) -> Option<Self> {
        let about = file.as_fd().try_clone_to_owned().map(File::from).and_then(|file| file.metadata()).ok()?;
        about.is_file().then(|| Self { device: about.dev(), inode: about.ino() })
    }
}
