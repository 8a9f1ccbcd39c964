//! A small disk that can be filled up: a tmpfs in a mount namespace of its own, so that nobody else sees it and nothing
//! is left of it, whatever becomes of us.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// How long mounting may take.
const PATIENCE: Duration = Duration::from_secs(10);
const BALLAST: &str = "ballast";

/// Gone when dropped, with all that is on it.
#[derive(Debug)]
pub(crate) struct Disk {
    /// Keeps the namespace, until its standard input is closed.
    holder: Child,
    path: PathBuf,
}

impl Disk {
    /// Whether this machine lets us have one, and if not, why.
    pub(crate) fn unavailable() -> Option<String> {
        let folder = tempfile::tempdir().ok()?;
        let made = Self::mount(folder.path(), 1 << 20);
        made.err().map(|error| format!("no small disk can be mounted here: {error:#}"))
    }

    /// A disk of `bytes`, with a mount point in `folder`.
    ///
    /// # Errors
    /// Without the right to mount.
    pub(crate) fn mount(folder: &Path, bytes: u64) -> anyhow::Result<Self> {
        let point = folder.join("disk");
        fs::create_dir_all(&point)?;
        let script = r#"mount -t tmpfs -o "size=$1" tmpfs "$2" && touch "$2/mounted" && exec cat"#;
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script, "sh", &bytes.to_string()]).arg(&point);
        let holder = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().context("no unshare")?;
        // Through the holder's eyes, for whom alone it is mounted.
        let path = PathBuf::from(format!("/proc/{}/root{}", holder.id(), point.display()));
        let mut disk = Self { holder, path };
        let began = Instant::now();
        while !disk.path.join("mounted").exists() {
            if let Some(status) = disk.holder.try_wait()? {
                bail!("mounting a tmpfs ended with {status}; it takes root");
            }
            anyhow::ensure!(began.elapsed() < PATIENCE, "mounting takes too long");
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(disk)
    }

    /// Where it is, for every process that may look into others' namespaces.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Fills it up to the last byte.
    ///
    /// # Errors
    /// When something else than a full disk ends the writing.
    pub(crate) fn fill(&self) -> std::io::Result<()> {
        let mut file = OpenOptions::new().create(true).append(true).open(self.path.join(BALLAST))?;
        let mut block = &[0u8; 64 << 10][..];
        loop {
            match file.write(block) {
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull && block.len() > 1 => {
                    block = &block[..block.len() / 2]
                }
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Makes room again.
    ///
    /// # Errors
    /// When it was not full.
    pub(crate) fn free(&self) -> std::io::Result<()> {
        fs::remove_file(self.path.join(BALLAST))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // It may have ended already.
        self.holder.kill().ok();
        self.holder.wait().ok();
    }
}
