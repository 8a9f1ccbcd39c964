//! Moving the wall clock of single processes, by libfaketime (in Debian, the package `faketime`). Only the wall clock:
//! timers, and the clock of the journals, go on as they are.

use std::path::{Path, PathBuf};

/// Where distributions put it.
const PLACES: &[&str] =
    &["/usr/lib/x86_64-linux-gnu/faketime", "/usr/lib/aarch64-linux-gnu/faketime", "/usr/lib64/faketime", "/usr/lib/faketime"];

fn library() -> Option<PathBuf> {
    PLACES.iter().map(|place| Path::new(place).join("libfaketimeMT.so.1")).find(|file| file.is_file())
}

/// Why clocks cannot be moved here, if they cannot.
pub(crate) fn unavailable() -> Option<String> {
    library()
        .is_none()
        .then(|| "clocks are moved by libfaketime, which is not here (in Debian: apt-get install faketime)".to_owned())
}

/// What a process needs in its environment so that its clock follows the file at `path`.
pub(crate) fn environment(path: &Path) -> Vec<(String, String)> {
    let variables = [
        ("LD_PRELOAD", library().unwrap_or_default()),
        ("FAKETIME_TIMESTAMP_FILE", path.to_owned()),
        ("FAKETIME_NO_CACHE", "1".into()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
    ];
    variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_string_lossy().into_owned())).collect()
}

/// Moves the clock that follows the file at `path` to so many seconds from the true time.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn set(path: &Path, seconds: i64) -> std::io::Result<()> {
    // Replaced as a whole, for it is read at any moment.
    let next = path.with_extension("next");
    std::fs::write(&next, format!("{seconds:+}s\n"))?;
    std::fs::rename(next, path)
}
