//! A nats-server of a test's own.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::nats_server;

/// How long a server may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(30);

/// Lines of the server's log that are kept.
const LOG_LINES: usize = 200;

/// How a test's server is started.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    jetstream: bool,
    sync_always: bool,
    domain: Option<String>,
    config: String,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self { jetstream: true, sync_always: false, domain: None, config: String::new() }
    }
}

impl ServerOptions {
    /// With JetStream, synced to disk now and then, and with the server's own limits.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether JetStream is on; it is by default.
    #[must_use]
    pub fn jetstream(mut self, on: bool) -> Self {
        self.jetstream = on;
        self
    }

    /// Whether every write is synced to disk before it is answered. A killed process loses nothing either way, only
    /// a machine without power would.
    #[must_use]
    pub fn sync_always(mut self, on: bool) -> Self {
        self.sync_always = on;
        self
    }

    /// The domain of its JetStream; none by default.
    #[must_use]
    pub fn domain(mut self, domain: &str) -> Self {
        self.domain = Some(domain.to_owned());
        self
    }

    pub(super) fn in_domain(&self) -> Option<&str> {
        self.domain.as_deref()
    }

    /// Adds lines to the server's configuration file, e.g. `max_payload: 64KB`.
    #[must_use]
    pub fn config(mut self, lines: &str) -> Self {
        self.config.push_str(lines);
        self.config.push('\n');
        self
    }
}

/// A nats-server on a port of its own, with a store of its own. Killed when dropped.
pub struct TestServer {
    options: ServerOptions,
    dir: TempDir,
    port: u16,
    child: Option<Child>,
    /// Where it listens for other servers of its cluster, if it does.
    routes: Arc<AtomicU16>,
    /// Where it listens for leaf nodes, if it does.
    leaves: Arc<AtomicU16>,
    log: Arc<Mutex<VecDeque<String>>>,
}

impl TestServer {
    /// Starts a server and waits until it is ready.
    pub fn start(options: ServerOptions) -> Self {
        let dir = tempfile::Builder::new().prefix("wf-nats-").tempdir().unwrap();
        let mut server =
            Self { options, dir, port: 0, child: None, routes: Arc::default(), leaves: Arc::default(), log: Arc::default() };
        server.launch();
        server
    }

    /// Its address; the same over restarts.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Its URL; the same over restarts.
    pub fn url(&self) -> String {
        format!("nats://{}", self.address())
    }

    /// Where it listens for the other servers of its cluster, which it says a moment after it is ready.
    pub(super) fn route_address(&self) -> SocketAddr {
        self.once_told(&self.routes, "cluster")
    }

    /// Where it listens for leaf nodes, which it says a moment after it is ready.
    pub(super) fn leaf_address(&self) -> SocketAddr {
        self.once_told(&self.leaves, "port for leaf nodes")
    }

    fn once_told(&self, port: &AtomicU16, what: &str) -> SocketAddr {
        let begin = Instant::now();
        loop {
            match port.load(Ordering::Acquire) {
                0 if begin.elapsed() > PATIENCE => panic!("the server has no {what}; it says:\n{}", self.log()),
                0 => std::thread::sleep(Duration::from_millis(5)),
                port => return (Ipv4Addr::LOCALHOST, port).into(),
            }
        }
    }

    /// The id of its process, for signals.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the server is not running").id()
    }

    /// Whether it was started, and not killed or stopped since.
    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// Sends it a signal, e.g. `STOP`, `CONT`, `USR2` (lame duck mode).
    pub fn signal(&self, signal: &str) {
        let status = Command::new("kill").arg(format!("-{signal}")).arg(self.pid().to_string()).status().unwrap();
        assert!(status.success(), "kill -{signal} failed");
    }

    /// Kills it with SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().unwrap();
        }
    }

    /// Lets it stop by itself.
    pub fn stop(&mut self) {
        self.signal("TERM");
        let mut child = self.child.take().unwrap();
        let begin = Instant::now();
        while child.try_wait().unwrap().is_none() {
            if begin.elapsed() > PATIENCE {
                child.kill().ok();
                panic!("the server did not stop within {PATIENCE:?}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Starts it again after [`TestServer::kill`] or [`TestServer::stop`], on the same store and port.
    pub fn restart(&mut self) {
        self.kill();
        self.launch();
    }

    /// A copy of its store as it is now. Only of a server that was stopped it is whole.
    pub fn copy_store(&self) -> StoreCopy {
        assert!(!self.is_running(), "stop the server first");
        let dir = tempfile::Builder::new().prefix("wf-nats-copy-").tempdir().unwrap();
        copy(&self.store(), &dir.path().join("store"));
        StoreCopy(dir)
    }

    /// Puts `earlier` in the place of its store: whatever was stored since is lost, as by a machine that wrote to its
    /// disk lazily and lost power. Not while it runs.
    pub fn roll_back(&self, earlier: &StoreCopy) {
        assert!(!self.is_running(), "kill the server first");
        std::fs::remove_dir_all(self.store()).unwrap();
        copy(&earlier.0.path().join("store"), &self.store());
    }

    fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    /// Changes what it is started with from the next [`TestServer::restart`] on.
    pub fn reconfigure(&mut self, options: ServerOptions) {
        self.options = options;
    }

    /// The last lines of its log.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().iter().fold(String::new(), |log, line| log + line + "\n")
    }

    fn launch(&mut self) {
        let ServerOptions { jetstream, sync_always, domain, config } = &self.options;
        // -1 is any free port; the log tells which.
        let port = if self.port == 0 { -1 } else { i32::from(self.port) };
        let mut lines = format!("listen: \"127.0.0.1:{port}\"\n");
        if *jetstream {
            let store = self.store();
            let sync = if *sync_always { "sync_interval: always" } else { "" };
            let domain = domain.as_ref().map_or_else(String::new, |domain| format!("domain: {domain}"));
            let store = store.display();
            lines.push_str(&format!("jetstream {{ store_dir: \"{store}\"\n max_file_store: 64GB\n {sync}\n {domain} }}\n"));
        }
        lines.push_str(config);
        let file = self.dir.path().join("server.conf");
        std::fs::write(&file, lines).unwrap();
        let mut child = Command::new(nats_server())
            .arg("-c")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{} does not start: {error}", nats_server().display()));
        let (told, ready) = channel();
        let stderr = child.stderr.take().unwrap();
        let (log, routes, leaves) = (self.log.clone(), self.routes.clone(), self.leaves.clone());
        self.child = Some(child);
        // Reads to the end, so that the server never waits for its log to be read.
        std::thread::spawn(move || follow(BufReader::new(stderr), &log, [&routes, &leaves], &told));
        match ready.recv_timeout(PATIENCE) {
            Ok(port) => self.port = port,
            Err(_) => panic!("the server is not ready after {PATIENCE:?}; it says:\n{}", self.log()),
        }
        TcpStream::connect(self.address()).unwrap();
    }
}

/// A copy of a server's store.
pub struct StoreCopy(TempDir);

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(status.success(), "cannot copy {}", from.display());
}

/// Keeps the log's last lines, and tells the port once the server is ready.
fn follow(lines: impl BufRead, log: &Mutex<VecDeque<String>>, [routes, leaves]: [&AtomicU16; 2], ready: &Sender<u16>) {
    let mut port = None;
    for line in lines.lines().map_while(Result::ok) {
        let listens = |what: &str| line.split_once(what)?.1.trim().rsplit(':').next()?.parse().ok();
        port = listens("Listening for client connections on ").or(port);
        if let Some(port) = listens("Listening for route connections on ") {
            routes.store(port, Ordering::Release);
        }
        if let Some(port) = listens("Listening for leafnode connections on ") {
            leaves.store(port, Ordering::Release);
        }
        if line.contains("Server is ready")
            && let Some(port) = port
        {
            ready.send(port).ok();
        }
        let mut log = log.lock().unwrap();
        log.push_back(line);
        if log.len() > LOG_LINES {
            log.pop_front();
        }
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.kill();
    }
}
