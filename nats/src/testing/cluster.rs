//! A cluster of nats-servers of a test's own, with links between them that can be cut.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{DelayProxy, ServerOptions, TestServer};

/// How long servers may take to find each other, or to choose a leader.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where servers tell each other that they are reached. Nobody listens there: what they know of each other is what
/// they are told at the start, and that leads over links that can be cut.
const NOWHERE: &str = "127.0.0.1:1";

/// A cluster of JetStream servers, called `s0`, `s1` and so on. Each reaches each other over a link of its own. Killed
/// when dropped.
///
/// What starts or stops a server blocks for as long as that takes, some tenths of a second.
pub struct TestCluster {
    servers: Vec<TestServer>,
    /// The link from one server to another, by both numbers.
    links: Vec<Vec<DelayProxy>>,
}

impl TestCluster {
    /// Starts `servers` servers, and waits until they can have a stream together. `config` is added to the
    /// configuration of each, e.g. `max_payload: 64KB`.
    pub async fn start(servers: usize, config: &str) -> Self {
        let nowhere = NOWHERE.parse().unwrap();
        // Where they will listen is known only when they do.
        let link = |_| DelayProxy::start(nowhere, Duration::ZERO);
        let links: Vec<Vec<_>> = (0..servers).map(|_| (0..servers).map(link).collect()).collect();
        let mut started: Vec<TestServer> = Vec::new();
        for (n, from) in links.iter().enumerate() {
            let mut server = TestServer::start(options(n, from, "127.0.0.1:-1", config));
            let address = server.route_address();
            links.iter().for_each(|from| from[n].lead_to(address));
            // The same over restarts.
            server.reconfigure(options(n, from, &address.to_string(), config));
            started.push(server);
        }
        let cluster = Self { servers: started, links };
        cluster.ready().await;
        cluster
    }

    /// The URLs of all servers, those that do not run included; the same over restarts.
    pub fn urls(&self) -> Vec<String> {
        self.servers.iter().map(TestServer::url).collect()
    }

    /// The server with this number.
    pub fn server(&self, n: usize) -> &TestServer {
        &self.servers[n]
    }

    /// The last lines of the servers' logs.
    pub fn log(&self) -> String {
        self.servers.iter().enumerate().map(|(n, server)| format!("s{n}:\n{}", server.log())).collect()
    }

    /// Kills a server with SIGKILL.
    pub fn kill(&mut self, n: usize) {
        self.servers[n].kill();
    }

    /// Lets a server stop by itself.
    pub fn stop(&mut self, n: usize) {
        self.servers[n].stop();
    }

    /// Starts a server again, on the same store and ports; one that runs is killed before.
    pub fn restart(&mut self, n: usize) {
        self.servers[n].restart();
    }

    /// Cuts a server off from the others, in both directions. Its clients stay with it.
    pub fn isolate(&self, n: usize) {
        self.link(n, true);
    }

    /// Ends [`TestCluster::isolate`].
    pub fn rejoin(&self, n: usize) {
        self.link(n, false);
    }

    fn link(&self, n: usize, cut: bool) {
        let others = (0..self.servers.len()).filter(|other| *other != n);
        for link in others.flat_map(|other| [&self.links[n][other], &self.links[other][n]]) {
            link.refuse(cut);
            if cut {
                link.cut();
            }
        }
    }

    /// The number of the server that leads `stream`, once one does, as most of the servers see it.
    pub async fn leader_of(&self, stream: &str) -> usize {
        self.until("a leader", async || {
            let info = self.ask(&format!("$JS.API.STREAM.INFO.{stream}"), json!({})).await?;
            info["cluster"]["leader"].as_str()?.strip_prefix('s')?.parse().ok()
        })
        .await
    }

    /// Waits until every server has all of `stream`.
    pub async fn in_step(&self, stream: &str) {
        self.until("all in step", async || {
            let info = self.ask(&format!("$JS.API.STREAM.INFO.{stream}"), json!({})).await?;
            let replicas = info["cluster"]["replicas"].as_array()?;
            let behind = replicas.iter().any(|r| r["current"] != true || r["offline"] == true);
            (!behind && replicas.len() + 1 == self.servers.len()).then_some(())
        })
        .await;
    }

    /// Waits until a stream can be made on all of them.
    async fn ready(&self) {
        self.until("a cluster", async || {
            let stream =
                json!({ "name": "READY", "subjects": ["ready"], "num_replicas": self.servers.len(), "storage": "memory" });
            let made = self.ask("$JS.API.STREAM.CREATE.READY", stream).await?;
            made["config"].is_object().then_some(())
        })
        .await;
        self.until("an empty cluster", async || self.ask("$JS.API.STREAM.DELETE.READY", json!({})).await).await;
    }

    async fn until<T>(&self, what: &str, holds: impl AsyncFn() -> Option<T>) -> T {
        let began = Instant::now();
        loop {
            if let Some(value) = holds().await {
                return value;
            }
            if began.elapsed() > PATIENCE {
                panic!("no {what} within {PATIENCE:?}; the servers say:\n{}", self.log());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The answer to a request, by the first server that brings one without an error.
    async fn ask(&self, subject: &str, request: Value) -> Option<Value> {
        for server in self.servers.iter().filter(|server| server.is_running()) {
            let options = async_nats::ConnectOptions::new().request_timeout(Some(Duration::from_secs(1)));
            let Ok(client) = options.connect(server.url()).await else { continue };
            let Ok(answer) = client.request(subject.to_owned(), request.to_string().into()).await else { continue };
            let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
            if answer.get("error").is_none() {
                return Some(answer);
            }
        }
        None
    }
}

fn options(n: usize, links: &[DelayProxy], listen: &str, config: &str) -> ServerOptions {
    // A server goes by their number when it counts how many they are, itself included: its own leads nowhere.
    let address = |(to, link): (usize, &DelayProxy)| if to == n { NOWHERE.to_owned() } else { link.address().to_string() };
    let routes: Vec<_> = links.iter().enumerate().map(|link| format!("\"nats-route://{}\"", address(link))).collect();
    let cluster = format!(
        "server_name: s{n}\ncluster {{\n name: test\n listen: \"{listen}\"\n advertise: \"{NOWHERE}\"\n no_advertise: true\n \
         pool_size: -1\n routes: [{}]\n}}",
        routes.join(", ")
    );
    ServerOptions::new().config(&cluster).config(config)
}
