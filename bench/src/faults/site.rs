//! What a round happens to: a broker, links to it, nodes, producers.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use fastrand::Rng;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use wf_nats::testing::{DelayProxy, ServerOptions, TestCluster, TestLeaf, TestServer};

use super::caller::Caller;
use super::clock::Clock;
use super::disk::Disk;
use super::evidence::{Disturbance, Whom};
use super::faketime;
use super::journal::Journal;
use super::load::{Load, produce};
use super::process::{Node, Plan};
use super::setup::{SETTINGS, Setup, Store};

/// The JetStream domain of a hub.
const HUB: &str = "hub";

/// The place where a round happens, and what was done to it so far.
pub(crate) struct Site {
    pub(crate) rng: Rng,
    pub(crate) folder: PathBuf,
    pub(crate) setup: Setup,
    server: Option<TestServer>,
    cluster: Option<TestCluster>,
    leaf: Option<TestLeaf>,
    near: Option<DelayProxy>,
    far: Option<DelayProxy>,
    disk: Option<Disk>,
    /// Takes jobs over HTTP; with the embedded broker, runs them too.
    pub(crate) ingest: Node,
    pub(crate) executors: Vec<Node>,
    library: Option<Node>,
    producers: JoinSet<anyhow::Result<()>>,
    over: CancellationToken,
    pub(crate) disturbances: Vec<Disturbance>,
    /// What the scenario itself found broken.
    pub(crate) broken: Vec<String>,
    pub(crate) clock: Clock,
    /// The broker's, past all links.
    pub(crate) url: String,
}

/// A disturbance that goes on.
#[must_use = "it goes on until it is over"]
pub(crate) struct Ongoing(usize);

impl Site {
    /// Starts all of it, with its files in `folder`, and jobs that flow.
    ///
    /// # Errors
    /// When something does not start.
    pub(crate) async fn open(setup: Setup, folder: &Path, seed: u64) -> anyhow::Result<Self> {
        let disk = setup.disk.map(|bytes| Disk::mount(folder, bytes)).transpose()?;
        let on_disk = disk.as_ref().map_or(folder, Disk::path);
        let (mut server, mut cluster, mut leaf) = (None, None, None);
        let mut url = format!("embedded:{}", on_disk.join("embedded").display());
        match &setup.store {
            Store::Server(lines) => {
                let options = options(lines, disk.as_ref().filter(|_| !setup.spool));
                let started = tokio::task::block_in_place(|| TestServer::start(options));
                url = started.url();
                server = Some(started);
            }
            Store::Cluster => {
                // Here and now, for this cannot go from thread to thread.
                let starting = || tokio::runtime::Handle::current().block_on(TestCluster::start(3, ""));
                let started = tokio::task::block_in_place(starting);
                url = started.urls().join(",");
                cluster = Some(started);
            }
            Store::Leaf { own } => {
                let hub = ServerOptions::new().sync_always(true).domain(HUB);
                let site = if *own { ServerOptions::new().domain("leaf") } else { ServerOptions::new().jetstream(false) };
                let started = tokio::task::block_in_place(|| TestLeaf::start(hub, site));
                url = started.hub().url();
                leaf = Some(started);
            }
            Store::Embedded => {}
        }
        let link = |server: &TestServer| DelayProxy::with(server.address(), setup.conditions.clone());
        let hub = server.as_ref().or_else(|| leaf.as_ref().map(TestLeaf::hub));
        let [near, far] = [hub.map(link), leaf.as_ref().map(TestLeaf::leaf).or(hub).map(link)];
        let through = |link: &Option<DelayProxy>| link.as_ref().map_or_else(|| url.clone(), DelayProxy::url);
        let plan = |name: String, role: &'static str, link: &Option<DelayProxy>| {
            let settings = SETTINGS.iter().map(|(key, value)| format!("{key}={value}"));
            let settings = settings.chain(setup.settings.iter().map(|(key, value)| format!("{key}={value}")));
            let domain = matches!(setup.store, Store::Leaf { .. }).then(|| format!("broker.domain={HUB}"));
            let settings = settings.chain(domain);
            let arguments = settings.chain([format!("executor.name={name}")]).collect();
            let clock = setup.moving_clocks.then(|| faketime::environment(&clock_file(folder, &name)));
            let (folder, environment) = (folder.to_owned(), clock.unwrap_or_default());
            Plan { name, role, url: through(link), arguments, environment, folder }
        };
        let alone = setup.store == Store::Embedded;
        let executors_here = if alone { 0 } else { setup.executors };
        if setup.moving_clocks {
            for name in (1..=executors_here).map(executor_name).chain(["ingest".to_owned(), "library".to_owned()]) {
                faketime::set(&clock_file(folder, &name), 0)?;
            }
        }
        let mut ingest = plan("ingest".into(), if alone { "serve" } else { "ingest" }, &near);
        if setup.spool {
            ingest.arguments.push(format!("ingest.spool={}", on_disk.join("spool").display()));
            ingest.arguments.push("ingest.unreachable_after=1 s".to_owned());
        }
        let ingest = Node::start(ingest).await?;
        let mut executors = Vec::new();
        for n in 1..=executors_here {
            executors.push(Node::start(plan(executor_name(n), "executor", &far)).await?);
        }
        let mut callers = vec![("http", Caller::http(ingest.address()?)?)];
        let mut library = None;
        if !alone && !setup.http_only {
            callers.push(("wire", Caller::wire(&through(&near)).await?));
            let mut plan = plan("library".into(), "producer", &near);
            let (mix, seed) = (serde_json::to_string(&setup.mix)?, seed ^ 0x11b);
            plan.arguments.extend([format!("--mix={mix}"), format!("--seed={seed}"), format!("--rate={}", setup.rate)]);
            library = Some(Node::start(plan).await?);
        }
        let (mut producers, over) = (JoinSet::new(), CancellationToken::new());
        for (n, (name, caller)) in callers.into_iter().enumerate() {
            let journal = Arc::new(Journal::open(&folder.join(format!("{name}.1.journal")))?);
            let (producer, mix, rate) = (name.to_owned(), setup.mix.clone(), setup.rate);
            let load = Load { producer, mix, rate, seed: seed ^ n as u64 };
            let over = over.clone();
            producers.spawn(async move { produce(&load, caller, journal, over).await });
        }
        let (rng, clock, folder, disturbances) = (Rng::with_seed(seed), Clock::new(), folder.to_owned(), Vec::new());
        Ok(Self {
            rng,
            folder,
            setup,
            server,
            cluster,
            leaf,
            near,
            far,
            disk,
            ingest,
            executors,
            library,
            producers,
            over,
            disturbances,
            broken: Vec::new(),
            clock,
            url,
        })
    }

    /// Lets things be as they are for a while, of so many milliseconds.
    pub(crate) async fn pause(&mut self, ms: RangeInclusive<u64>) {
        tokio::time::sleep(Duration::from_millis(self.rng.u64(ms))).await;
    }

    /// Something is done to `whom` from now on.
    pub(crate) fn disturb(&mut self, what: impl Into<String>, whom: Whom) -> Ongoing {
        let now = self.clock.now();
        self.disturbances.push(Disturbance { what: what.into(), whom, from: now, until: u64::MAX });
        Ongoing(self.disturbances.len() - 1)
    }

    /// Nothing is done any more.
    pub(crate) fn over(&mut self, Ongoing(at): Ongoing) {
        self.disturbances[at].until = self.clock.now();
    }

    /// The nats-server.
    ///
    /// # Errors
    /// When there is none here.
    pub(crate) fn server(&mut self) -> anyhow::Result<&mut TestServer> {
        self.server.as_mut().context("no server here")
    }

    /// The cluster.
    ///
    /// # Errors
    /// When there is none here.
    pub(crate) fn cluster(&mut self) -> anyhow::Result<&mut TestCluster> {
        self.cluster.as_mut().context("no cluster here")
    }

    /// The hub and its leaf node.
    ///
    /// # Errors
    /// When there are none here.
    pub(crate) fn leaf(&mut self) -> anyhow::Result<&mut TestLeaf> {
        self.leaf.as_mut().context("no leaf node here")
    }

    /// How a node at `url` is started that is told what all are told, and nothing else.
    pub(crate) fn stranger(&self, name: &str, role: &'static str, url: String) -> Plan {
        let arguments = SETTINGS.iter().map(|(key, value)| format!("{key}={value}")).collect();
        Plan { name: name.to_owned(), role, url, arguments, environment: Vec::new(), folder: self.folder.clone() }
    }

    /// Whether any node has said `text` in its log.
    ///
    /// # Errors
    /// When the logs cannot be read.
    pub(crate) fn said(&self, text: &str) -> anyhow::Result<bool> {
        for file in std::fs::read_dir(&self.folder)? {
            let path = file?.path();
            if path.extension().is_some_and(|end| end == "log") && std::fs::read_to_string(&path)?.contains(text) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The link of the producers and of ingest.
    ///
    /// # Errors
    /// When there is none here.
    pub(crate) fn near(&self) -> anyhow::Result<&DelayProxy> {
        self.near.as_ref().context("no link here")
    }

    /// The link of the executors.
    ///
    /// # Errors
    /// When there is none here.
    pub(crate) fn far(&self) -> anyhow::Result<&DelayProxy> {
        self.far.as_ref().context("no link here")
    }

    /// The small disk.
    ///
    /// # Errors
    /// When there is none here.
    pub(crate) fn disk(&self) -> anyhow::Result<&Disk> {
        self.disk.as_ref().context("no disk here")
    }

    /// One of the executors.
    pub(crate) fn any_executor(&mut self) -> usize {
        self.rng.usize(..self.executors.len().max(1))
    }

    /// Ends the flow of jobs, and waits until every call is answered.
    ///
    /// # Errors
    /// When a producer failed.
    pub(crate) async fn end_load(&mut self) -> anyhow::Result<()> {
        self.over.cancel();
        let library = async {
            match &mut self.library {
                Some(library) => library.drain().await,
                None => Ok(true),
            }
        };
        let producers = async {
            while let Some(ended) = self.producers.join_next().await {
                ended??;
            }
            anyhow::Ok(())
        };
        let (drained, ended) = tokio::join!(library, producers);
        // What it was not told of its last jobs does not matter: it has written that down.
        drained?;
        ended
    }

    /// Moves the clock of the node called `name` to so many seconds from the true time.
    ///
    /// # Errors
    /// When it cannot be.
    pub(crate) fn set_clock(&self, name: &str, seconds: i64) -> std::io::Result<()> {
        faketime::set(&clock_file(&self.folder, name), seconds)
    }

    /// The nodes.
    pub(crate) fn nodes(&mut self) -> impl Iterator<Item = &mut Node> {
        std::iter::once(&mut self.ingest).chain(&mut self.executors)
    }

    /// What the server said last.
    pub(crate) fn server_log(&self) -> Option<String> {
        let leaf = || self.leaf.as_ref().map(|leaf| leaf.hub().log() + &leaf.leaf().log());
        self.server.as_ref().map(TestServer::log).or_else(|| self.cluster.as_ref().map(TestCluster::log)).or_else(leaf)
    }
}

fn executor_name(n: usize) -> String {
    format!("executor-{n}")
}

fn clock_file(folder: &Path, node: &str) -> PathBuf {
    folder.join(format!("{node}.clock"))
}

fn options(lines: &str, disk: Option<&Disk>) -> ServerOptions {
    match disk {
        None => ServerOptions::new().sync_always(true).config(lines),
        Some(disk) => {
            let store = format!(
                "jetstream {{ store_dir: \"{}\"\n max_file_store: 64GB\n sync_interval: always }}",
                disk.path().display()
            );
            ServerOptions::new().jetstream(false).config(&store).config(lines)
        }
    }
}
