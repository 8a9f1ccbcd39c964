//! How the place of a round is laid out.

use std::time::Duration;

use wf_nats::testing::Conditions;

use super::order::Mix;

/// The lease of all rounds: the shortest there is.
pub(crate) const LEASE: Duration = Duration::from_secs(3);

/// What every node is told: to notice soon, so that a round takes seconds.
pub(crate) const SETTINGS: &[(&str, &str)] = &[
    ("factory.lease", "3 s"),
    ("factory.dedup_window", "2 min"),
    ("broker.connect_timeout", "1 s"),
    ("broker.request_timeout", "1500 ms"),
    ("broker.ping_interval", "500 ms"),
    ("pull.expires", "3 s"),
    ("pull.heartbeat", "1 s"),
    ("executor.concurrency", "16"),
    ("executor.drain_deadline", "5 s"),
];

/// How a site is laid out.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) store: Store,
    /// The size of a disk of its own, in bytes: the spool is on it, if there is one, else the broker's store.
    pub(crate) disk: Option<u64>,
    /// Whether ingest has a spool.
    pub(crate) spool: bool,
    /// Whether the wall clocks of ingest and executors can be moved.
    pub(crate) moving_clocks: bool,
    pub(crate) executors: usize,
    /// Whether no node may begin a run again that it has begun before, whatever is done to the broker.
    pub(crate) begins_once: bool,
    /// In addition to what all rounds have.
    pub(crate) settings: Vec<(&'static str, String)>,
    pub(crate) mix: Mix,
    pub(crate) conditions: Conditions,
    /// Calls per second and producer.
    pub(crate) rate: f64,
    /// Only over HTTP: for what other producers have no part in.
    pub(crate) http_only: bool,
}

/// Where jobs are stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Store {
    /// At a nats-server with these lines of configuration, synced to disk before it answers; on the disk if there is one.
    Server(String),
    /// In a cluster of three, three times, and without links that the scenario could cut.
    Cluster,
    /// At a hub with a JetStream domain, which all nodes are told; executors are at a leaf node of it. The leaf node may have
    /// a JetStream of its own, in a domain of its own.
    Leaf { own: bool },
    /// In the one process that takes jobs and runs them; on the disk if there is one.
    Embedded,
}

impl Store {
    /// How much longer than a lease nothing may happen, in milliseconds.
    pub(crate) fn margin(&self) -> u64 {
        match self {
            // A group of servers takes 4 to 9 s to elect another leader, and each stream and each consumer is a group.
            Self::Cluster => 14_000,
            // The leaf node tries to reach its hub once a second.
            Self::Leaf { .. } => 6_000,
            // A redelivery is noticed when the next request for batches comes, and those stay open for 3 s.
            _ => 4_000,
        }
    }
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            store: Store::Server(String::new()),
            disk: None,
            spool: false,
            moving_clocks: false,
            executors: 2,
            begins_once: false,
            settings: Vec::new(),
            mix: Mix::default(),
            conditions: Conditions::default(),
            rate: 20.0,
            http_only: false,
        }
    }
}
