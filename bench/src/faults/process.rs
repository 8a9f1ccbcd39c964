//! The processes of a round, seen from the one that started them.

use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};

/// The longest that a process may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// The program that nodes are, if it is not this one.
static PROGRAM: OnceLock<PathBuf> = OnceLock::new();

/// Has nodes be `program` from now on: an older one, to see what it does.
pub(crate) fn play_with(program: PathBuf) {
    PROGRAM.get_or_init(|| program);
}

/// The program that nodes are.
///
/// # Errors
/// When it cannot be told.
pub(crate) fn program() -> std::io::Result<PathBuf> {
    PROGRAM.get().cloned().map_or_else(std::env::current_exe, Ok)
}

/// The program `wf` beside it, if it is there.
pub(crate) fn wf() -> Option<PathBuf> {
    Some(program().ok()?.with_file_name("wf")).filter(|wf| wf.is_file())
}

/// How a node is started, and started again.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// What it is called, in journals too.
    pub(crate) name: String,
    pub(crate) role: &'static str,
    pub(crate) url: String,
    /// What it is told beside, and its settings.
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: Vec<(String, String)>,
    /// Where journals and logs go.
    pub(crate) folder: PathBuf,
}

/// A node: a process now and then another in its place. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Node {
    plan: Plan,
    /// How many processes it has been.
    processes: u32,
    child: Option<Child>,
    /// Closing it ends the process, whatever becomes of us.
    input: Option<ChildStdin>,
    address: Option<SocketAddr>,
}

impl Node {
    /// Starts a node, and waits until it works.
    ///
    /// # Errors
    /// When it does not.
    pub(crate) async fn start(plan: Plan) -> anyhow::Result<Self> {
        let mut node = Self { plan, processes: 0, child: None, input: None, address: None };
        node.again().await?;
        Ok(node)
    }

    /// Starts it again, at the address that it had, and waits until it works.
    ///
    /// # Errors
    /// When it does not.
    pub(crate) async fn again(&mut self) -> anyhow::Result<()> {
        self.processes += 1;
        let Plan { name, role, url, arguments, environment, folder } = &self.plan;
        let file = |end: &str| folder.join(format!("{name}.{}.{end}", self.processes));
        let mut command = Command::new(program()?);
        command.args(["fault-node", role, url, "--journal"]).arg(file("journal"));
        if let Some(address) = self.address {
            command.arg("--listen").arg(address.to_string());
        }
        let mut child = command
            .args(arguments)
            .env("RUST_LOG", "info")
            .envs(environment.iter().cloned())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(file("log"))?)
            .kill_on_drop(true)
            .spawn()?;
        self.input = child.stdin.take();
        let mut lines = BufReader::new(child.stdout.take().context("a node without output")?).lines();
        self.child = Some(child);
        let first = tokio::time::timeout(PATIENCE, lines.next_line()).await;
        let first = first.with_context(|| format!("{name} did not start"))??;
        let ready = first.with_context(|| format!("{name} ended before it worked; see {}", file("log").display()))?;
        let address = ready.strip_prefix("ready ").context("a node said something else")?;
        if !address.is_empty() {
            self.address = Some(address.parse()?);
        }
        Ok(())
    }

    pub(crate) fn name(&self) -> &str {
        &self.plan.name
    }

    /// Where it serves HTTP.
    ///
    /// # Errors
    /// When it does not.
    pub(crate) fn address(&self) -> anyhow::Result<SocketAddr> {
        self.address.with_context(|| format!("{} serves no HTTP", self.plan.name))
    }

    /// Sends it a signal: `TERM`, `STOP`, `CONT`.
    ///
    /// # Errors
    /// When it is not there any more.
    pub(crate) async fn signal(&self, signal: &str) -> anyhow::Result<()> {
        let pid = self.child.as_ref().and_then(Child::id).with_context(|| format!("{} has ended", self.plan.name))?;
        let status = Command::new("kill").args([format!("-{signal}"), pid.to_string()]).status().await?;
        ensure!(status.success(), "kill -{signal} {pid} failed");
        Ok(())
    }

    /// Kills it with SIGKILL.
    ///
    /// # Errors
    /// When it cannot be.
    pub(crate) async fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill().await?;
        }
        Ok(())
    }

    /// Whether it has ended by itself.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut().and_then(|child| child.try_wait().ok().flatten())
    }

    /// Drains it: whether it ended well and in time.
    ///
    /// # Errors
    /// When it cannot be told to.
    pub(crate) async fn drain(&mut self) -> anyhow::Result<bool> {
        let Some(mut child) = self.child.take() else { return Ok(true) };
        drop(self.input.take());
        match tokio::time::timeout(PATIENCE, child.wait()).await {
            Ok(status) => Ok(status?.success()),
            Err(_) => {
                child.kill().await?;
                Ok(false)
            }
        }
    }
}
