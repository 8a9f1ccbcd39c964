//! The processes of a benchmark, seen from the one that started them.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::node::Said;
use crate::work::Totals;

/// The longest that a node may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// A process that is an executor or an ingest. Killed when dropped.
pub(crate) struct Node {
    child: Child,
    /// Closing it is how a node is told to end.
    input: Option<ChildStdin>,
    pub(crate) address: Option<SocketAddr>,
    done: watch::Receiver<u64>,
    heard: JoinHandle<anyhow::Result<Option<Totals>>>,
}

impl Node {
    /// Starts an executor for the broker at `url` as `profile` has it, with `settings` in addition.
    pub(crate) async fn executor(url: &str, profile: &str, settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        Self::start("executor", url, profile, settings).await
    }

    /// Starts an ingest, which takes jobs over HTTP at its address.
    pub(crate) async fn ingest(url: &str, profile: &str, settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        Self::start("ingest", url, profile, settings).await
    }

    async fn start(role: &str, url: &str, profile: &str, settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["node", role, url, profile])
            .args(settings.iter().map(|(key, value)| format!("{key}={value}")))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let (input, output) = (child.stdin.take(), child.stdout.take().context("a node without output")?);
        let mut lines = BufReader::new(output).lines();
        let first = tokio::time::timeout(PATIENCE, next(&mut lines)).await.context("a node did not start")??;
        let Some(Said::Ready(address)) = first else { bail!("a node ended before it was ready: {first:?}") };
        let (tell, done) = watch::channel(0);
        let heard = tokio::spawn(async move {
            let mut totals = None;
            while let Some(said) = next(&mut lines).await? {
                match said {
                    Said::Done(jobs) => drop(tell.send(jobs)),
                    Said::Totals(last) => totals = Some(last),
                    Said::Ready(_) => {}
                }
            }
            Ok(totals)
        });
        Ok(Self { child, input, address, done, heard })
    }

    /// How many jobs it has settled so far, as far as it has told.
    pub(crate) fn done(&self) -> u64 {
        *self.done.borrow()
    }

    /// Its process.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Lets it end: what its handlers did.
    ///
    /// # Errors
    /// When it does not end well.
    pub(crate) async fn end(mut self) -> anyhow::Result<Totals> {
        drop(self.input.take());
        let status = tokio::time::timeout(PATIENCE, self.child.wait()).await.context("a node did not end")??;
        anyhow::ensure!(status.success(), "a node ended with {status}");
        Ok((&mut self.heard).await??.unwrap_or_default())
    }
}

async fn next(lines: &mut Lines<BufReader<ChildStdout>>) -> anyhow::Result<Option<Said>> {
    Ok(lines.next_line().await?.map(|line| serde_json::from_str(&line)).transpose()?)
}

/// Waits until `nodes` have settled `jobs` between them.
///
/// # Errors
/// When none of them settles anything for a minute.
pub(crate) async fn settled(nodes: &[Node], jobs: u64) -> anyhow::Result<()> {
    let (mut seen, mut when) = (0, Instant::now());
    loop {
        let done: u64 = nodes.iter().map(Node::done).sum();
        if done >= jobs {
            return Ok(());
        }
        if done > seen {
            (seen, when) = (done, Instant::now());
        }
        anyhow::ensure!(when.elapsed() < PATIENCE, "nothing was done for {PATIENCE:?}: {done} of {jobs} jobs");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Ends all of `nodes`, and checks that they did `jobs` between them, each once.
///
/// # Errors
/// When they did not.
pub(crate) async fn end(nodes: Vec<Node>, jobs: u64) -> anyhow::Result<()> {
    let mut totals = Totals::default();
    for node in nodes {
        totals = totals.and(node.end().await?);
    }
    totals.complete(jobs)
}
