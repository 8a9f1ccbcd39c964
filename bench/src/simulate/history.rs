//! A history: what people ask of a factory, and what happens to it meanwhile. Plain data, so that it can be printed,
//! shrunk and played again.

use serde::{Deserialize, Serialize};

/// What a history plays with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct History {
    /// What all chance inside comes from: latencies, jitter, ids.
    pub(crate) seed: u64,
    pub(crate) setting: Setting,
    /// In the order of their times.
    pub(crate) steps: Vec<Step>,
}

/// What stays the same over a history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Setting {
    pub(crate) ingests: u8,
    pub(crate) executors: u8,
    /// How many of the queues are served.
    pub(crate) queues: u8,
    /// Whether ingest has a spool.
    pub(crate) spool: bool,
    /// Jobs that an executor runs at once.
    pub(crate) slots: u8,
    /// Batches of a lane that an executor works on at once.
    pub(crate) turns: u8,
    pub(crate) lease_ms: u32,
    pub(crate) dedup_ms: u32,
    /// One way, on average.
    pub(crate) latency_ms: u32,
    pub(crate) timeout_ms: u32,
    /// The largest message.
    pub(crate) message_bytes: u32,
    /// Messages that a lane has room for.
    pub(crate) lane_messages: u32,
    /// Records that readers' copies are kept of.
    pub(crate) copies: u32,
    /// The most jobs in a batch of a file.
    pub(crate) batch_jobs: u32,
    /// How long quick jobs may wait, in histories in which only other lanes could hold them up.
    pub(crate) quick_ms: Option<u32>,
}

/// One thing that happens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Step {
    /// When, in ms of the history.
    pub(crate) at: u32,
    /// Names its jobs; the same however much is cut away around it.
    pub(crate) number: u32,
    pub(crate) what: What,
}

/// What happens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum What {
    /// Somebody posts jobs over HTTP. With a key, the request is repeated after these pauses until it is answered.
    Post { ingest: u8, key: bool, jobs: Vec<Spec>, again: Vec<u32> },
    /// Somebody publishes plain JSON to a lane.
    Raw { place: Place, jobs: Vec<Spec> },
    /// `wf run` of a file; killed when it has run for so long, resumed after so long, each time.
    Run { jobs: Vec<Spec>, kills: Vec<(u32, u32)> },
    /// Something goes wrong.
    Fault(Fault),
}

/// A lane: one of a few queues, at a priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Place {
    pub(crate) queue: u8,
    /// 0 high, 1 normal, 2 low.
    pub(crate) priority: u8,
}

/// A job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Spec {
    pub(crate) place: Place,
    /// How long it runs.
    pub(crate) ms: u32,
    /// How many attempts fail before one succeeds.
    pub(crate) fails: u8,
    /// How many attempts it has.
    pub(crate) attempts: u8,
    /// Whether its failures are for good.
    pub(crate) permanent: bool,
    /// Whether its outcome is stored.
    pub(crate) store: bool,
    /// Kills so many executors.
    pub(crate) kills: u8,
    /// For later, in seconds.
    pub(crate) delay_s: u8,
    /// Bytes of args that do not compress.
    pub(crate) size: u32,
}

/// Who something happens to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) enum Role {
    Ingest,
    Executor,
    Run,
    /// Somebody with the nats CLI; nothing happens to it.
    Cli,
}

/// What is asked of a broker or a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) enum Op {
    Publish,
    PublishAll,
    PublishAt,
    Append,
    Copy,
    Read,
    ReadRun,
    /// Ending the log of a run.
    End,
    Trace,
    Create,
    Update,
    Delete,
    Get,
    Bury,
    Deliver,
    Ack,
    Renew,
    Release,
    /// A commit of the spool.
    Disk,
    /// A write of `wf run`'s results.
    Results,
    /// What nothing depends on: statistics, pings, watches.
    Other,
}

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Fault {
    /// A node is gone at once, and comes back.
    Kill { role: Role, node: u8, back_ms: u32 },
    /// A node is stopped politely, and comes back.
    Drain { node: u8, deadline_ms: u32, back_ms: u32 },
    /// A node is cut off.
    Cut { role: Role, node: u8, ms: u32 },
    /// The server is stopped hard, and comes back without some of what it knew.
    Restart { down_ms: u32, acks_ms: u32, ids: bool, counts: bool, leases: bool },
    /// The store is as it was so long ago.
    Rollback { ms: u32 },
    /// A lane has no room.
    Full { place: Place, ms: u32 },
    /// Replicas answer with what was so long ago.
    Lag { lag_ms: u32, ms: u32 },
    /// Copies of records are dropped, all but the newest few.
    Evict { left: u8 },
    /// Deliveries come in another order.
    Reorder { ms: u32 },
    /// Messages that are out are delivered again.
    Repeat { count: u8 },
    /// A node's clock jumps.
    Clock { role: Role, node: u8, ms: i32 },
    /// The disk of a spool does not take anything.
    DiskFull { node: u8, ms: u32 },
    /// The n-th time from then on that somebody asks for something of this sort.
    Op { role: Role, op: Op, nth: u8, what: Mishap },
}

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Mishap {
    /// It is lost on its way.
    LoseRequest,
    /// It is done, and the answer is lost.
    LoseAnswer,
    /// Who asks is gone before it is done.
    CrashBefore,
    /// Who asks is gone once it is done.
    CrashAfter,
    /// It takes so many ms longer.
    Slow(u16),
}

impl Fault {
    /// How it is counted.
    pub(crate) fn kind(&self) -> String {
        match self {
            Self::Kill { role, .. } => format!("kill {role:?}"),
            Self::Drain { .. } => "drain".into(),
            Self::Cut { role, .. } => format!("cut off {role:?}"),
            Self::Restart { .. } => "server restart".into(),
            Self::Rollback { .. } => "store rolled back".into(),
            Self::Full { .. } => "lane full".into(),
            Self::Lag { .. } => "replica lags".into(),
            Self::Evict { .. } => "records evicted".into(),
            Self::Reorder { .. } => "reordered".into(),
            Self::Repeat { .. } => "delivered again".into(),
            Self::Clock { .. } => "clock jumps".into(),
            Self::DiskFull { .. } => "spool's disk full".into(),
            Self::Op { what, .. } => what.kind().into(),
        }
    }
}

impl Mishap {
    fn kind(self) -> &'static str {
        match self {
            Self::LoseRequest => "request lost",
            Self::LoseAnswer => "answer lost",
            Self::CrashBefore => "crash before",
            Self::CrashAfter => "crash after",
            Self::Slow(_) => "slow answer",
        }
    }
}

impl Place {
    /// The queues there are. `quick` has short jobs only; nothing that happens elsewhere may hold it up.
    pub(crate) const QUEUES: [&'static str; 11] =
        ["default", "slow", Self::QUICK_NAME, "b3", "b4", "b5", "b6", "b7", "b8", "b9", "b10"];
    pub(crate) const QUICK: u8 = 2;
    pub(crate) const QUICK_NAME: &'static str = "quick";

    pub(crate) fn queue(self) -> &'static str {
        Self::QUEUES[usize::from(self.queue) % Self::QUEUES.len()]
    }

    pub(crate) fn priority(self) -> &'static str {
        ["high", "normal", "low"][usize::from(self.priority) % 3]
    }
}

impl std::fmt::Display for History {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "  {:?}", self.setting)?;
        for step in &self.steps {
            writeln!(f, "  {:>6} ms  #{:<3} {:?}", step.at, step.number, step.what)?;
        }
        Ok(())
    }
}
