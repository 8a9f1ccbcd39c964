//! A Faktory server of a benchmark's own.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use tempfile::TempDir;

/// How long it may take to start, and to stop.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often it is looked whether it has.
const LOOK: Duration = Duration::from_millis(20);

/// A Faktory server on a port of its own, with a store of its own and the Redis that it starts by itself. Ended when
/// dropped.
pub(super) struct Daemon {
    child: Child,
    address: SocketAddr,
    dir: TempDir,
}

impl Daemon {
    /// The program: what `WF_FAKTORY` names, or the first in the `PATH`.
    pub(super) fn program() -> Option<PathBuf> {
        std::env::var_os("WF_FAKTORY").map(PathBuf::from).or_else(|| in_path("faktory"))
    }

    /// Starts `program` with its defaults for development, and waits until it is ready.
    ///
    /// # Errors
    /// When it does not start.
    pub(super) fn start(program: &Path) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("wf-faktory-").tempdir()?;
        let address = free_port()?;
        let log = File::create(dir.path().join("log"))?;
        let mut command = Command::new(program);
        command.args(["-e", "development", "-l", "warn"]).env_remove("FAKTORY_PASSWORD").env_remove("FAKTORY_ENV");
        // By itself it would keep its store, and look for its configuration, in the user's home folder.
        command.arg("-d").arg(dir.path().join("db")).arg("-c").arg(dir.path());
        // Its web page is for nobody here.
        command.args(["-b", &address.to_string(), "-w", "127.0.0.1:0"]);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("{} does not start", program.display()))?;
        let mut daemon = Self { child, address, dir };
        daemon.ready()?;
        Ok(daemon)
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    fn ready(&mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            let ended = self.child.try_wait()?.is_some();
            let log = || std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            anyhow::ensure!(!ended && began.elapsed() < PATIENCE, "Faktory does not start; it says:\n{}", log());
            std::thread::sleep(LOOK);
        }
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Asked to, it ends its Redis too; killed, it would leave that behind where the kernel does not see to it.
        let asked = Command::new("kill").arg(self.child.id().to_string()).status().is_ok_and(|status| status.success());
        let began = Instant::now();
        while asked && began.elapsed() < PATIENCE && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(LOOK);
        }
        // Nothing is left to do about one that cannot be killed.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// The first program called `name` in the `PATH`.
pub(super) fn in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|program| program.is_file())
}

/// It takes no port 0, so it is given one that was free a moment ago.
fn free_port() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}
