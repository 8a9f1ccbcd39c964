//! The disk under a folder: its room, its file system, and how long it takes to sync.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What one batch has, more or less.
const A_BATCH: usize = 16 << 10;

/// Entries of a folder that are counted, at most.
const MOST_ENTRIES: usize = 100_000;

/// The disk under a folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct DiskFacts {
    /// Bytes that this user may still write.
    pub(super) free: u64,
    /// Bytes that the folder takes.
    pub(super) taken: u64,
    /// The file system, where the system tells.
    pub(super) file_system: Option<String>,
}

/// Looks at the disk that `path` is on, or will be.
pub(super) fn look(path: &Path) -> io::Result<DiskFacts> {
    let place = std::fs::canonicalize(existing(path)?)?;
    let told = rustix::fs::statvfs(&place)?;
    // Only Linux has it.
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok();
    Ok(DiskFacts {
        free: told.f_bavail.saturating_mul(told.f_frsize),
        taken: if path.is_dir() { size(path)? } else { 0 },
        file_system: mounts.and_then(|mounts| file_system(&mounts, &place)),
    })
}

/// How long it takes to write a batch to the disk under `path` and sync it: up to `most` times, for about `within`.
pub(super) fn sync_times(path: &Path, most: usize, within: Duration) -> io::Result<Vec<Duration>> {
    let mut file = nameless(&existing(path)?)?;
    let batch = [b'?'; A_BATCH];
    let until = Instant::now() + within;
    let mut times = Vec::new();
    while times.len() < most && (times.is_empty() || Instant::now() < until) {
        file.write_all(&batch)?;
        let began = Instant::now();
        file.sync_data()?;
        times.push(began.elapsed());
    }
    Ok(times)
}

/// `path`, or the nearest folder above it that there is.
fn existing(path: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    let existing = path.ancestors().find(|folder| folder.is_dir()).map(Path::to_owned);
    existing.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
}

/// A file in `folder` whose name is gone at once, so that nothing is left of it however this ends.
fn nameless(folder: &Path) -> io::Result<File> {
    let path = folder.join(format!(".wf-doctor-{:016x}", fastrand::u64(..)));
    let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

/// The bytes of all files below `folder`.
fn size(folder: &Path) -> io::Result<u64> {
    let (mut bytes, mut seen, mut open) = (0, 0, vec![folder.to_owned()]);
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder)? {
            // What is removed meanwhile takes nothing.
            let Ok(about) = entry.as_ref().map_err(|_| ()).and_then(|entry| entry.metadata().map_err(|_| ())) else { continue };
            seen += 1;
            if seen > MOST_ENTRIES {
                return Ok(bytes);
            }
            if about.is_dir() {
                open.push(entry?.path());
            } else {
                bytes += about.len();
            }
        }
    }
    Ok(bytes)
}

/// The file system that `path` is on, as `mounts` (`/proc/self/mountinfo`) says.
fn file_system(mounts: &str, path: &Path) -> Option<String> {
    let mount = |line: &str| {
        let (place, kind) = line.split_once(" - ")?;
        let point = place.split(' ').nth(4)?.replace("\\040", " ");
        let kind = kind.split(' ').next()?.to_owned();
        path.starts_with(&point).then_some((point.len(), kind))
    };
    // The innermost; of several at one point, the last is on top.
    mounts.lines().filter_map(mount).max_by_key(|(depth, _)| *depth).map(|(_, kind)| kind)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_mount_tells_the_file_system() {
        let mounts = "22 1 254:0 / / rw - ext4 /dev/vda rw\n\
                      30 22 0:27 / /data rw,relatime shared:5 - xfs /dev/vdb rw\n\
                      31 30 0:28 / /data/with\\040space rw - tmpfs tmpfs rw\n\
                      nonsense\n";
        for (path, kind) in [("/home/x", "ext4"), ("/data/x", "xfs"), ("/database", "ext4"), ("/data/with space/x", "tmpfs")] {
            assert_eq!(file_system(mounts, Path::new(path)).as_deref(), Some(kind), "{path}");
        }
        assert_eq!(file_system("", Path::new("/")), None);
    }

    #[test]
    fn a_folder_that_is_not_there_yet_is_judged_by_the_one_above_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        let facts = look(&path).unwrap();
        assert!(facts.free > 0 && facts.taken == 0);
        assert_eq!(sync_times(&path, 3, Duration::from_secs(60)).unwrap().len(), 3);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        std::fs::create_dir_all(&path).unwrap();
        std::fs::write(path.join("file"), [0; 100]).unwrap();
        assert_eq!(look(dir.path()).unwrap().taken, 100);
    }
}
