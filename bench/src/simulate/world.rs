//! The world of one history: the server, the nodes, what goes wrong, and the truth about all of it, behind one lock.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Weak};
use std::time::Duration;

use fastrand::Rng;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::time::Instant;
use wf_broker::Delivery;
use wf_schema::{BatchId, Lane, Millis};

use super::breaks::Breaks;
use super::broker::Session;
use super::clock;
use super::history::{Fault, History, Mishap, Op, Role, Setting};
use super::server::{Bounds, Server};
use super::truth::Truth;

/// Shared by everything in a history.
#[derive(Clone)]
pub(crate) struct World(Arc<Mutex<Inner>>);

/// See [`World`].
pub(crate) struct Inner {
    pub(crate) setting: Setting,
    pub(crate) breaks: Breaks,
    pub(crate) server: Server,
    pub(crate) truth: Truth,
    pub(crate) nodes: Vec<Node>,
    pub(crate) sources: BTreeMap<u64, Source>,
    pub(crate) watchers: BTreeMap<u64, Watcher>,
    /// Whose deliveries they are.
    pub(crate) sessions: BTreeMap<(usize, u32), Weak<Session>>,
    /// Requests that something happens to: from when, and how many of the sort pass before.
    pub(crate) mishaps: Vec<(Instant, Fault)>,
    /// How often each thing happened.
    pub(crate) hits: BTreeMap<String, u64>,
    pub(crate) rng: Rng,
    pub(crate) trace: Trace,
    /// The server is away until then.
    pub(crate) down: Option<Instant>,
    /// Grows whenever all connections break.
    pub(crate) epoch: u64,
    /// Replicas show what was so long ago, until then.
    pub(crate) lag: Option<(Duration, Instant)>,
    /// Deliveries come in any order until then.
    pub(crate) disorder: Option<Instant>,
    /// Spools' disks that do not take anything, until then.
    pub(crate) disks_full: BTreeMap<usize, Instant>,
    /// Everything is as it should be from now on.
    pub(crate) healed: bool,
    /// Nothing is started any more.
    pub(crate) closing: bool,
    /// What rollbacks bring back, with its time.
    pub(crate) snapshots: VecDeque<(Instant, Server)>,
    next: u64,
    /// Something may happen earlier than was thought.
    pub(crate) alarm: Arc<Notify>,
    /// A keyed record changed.
    pub(crate) written: Arc<Notify>,
}

/// A process.
pub(crate) struct Node {
    pub(crate) role: Role,
    pub(crate) index: u8,
    /// How often it was started.
    pub(crate) life: u32,
    pub(crate) alive: bool,
    /// Cut off: since when, and until when.
    pub(crate) cut: Option<(Instant, Instant)>,
    /// By how much its clock is off, in ms.
    pub(crate) skew: i64,
    /// Told when it dies.
    pub(crate) died: Arc<Notify>,
    /// After how long it is started again.
    pub(crate) back_ms: u32,
    /// Told when it is to stop politely, by that time.
    pub(crate) ordered: Arc<Notify>,
    pub(crate) deadline_ms: u32,
}

/// Somebody's source of deliveries.
pub(crate) struct Source {
    pub(crate) node: usize,
    pub(crate) life: u32,
    pub(crate) lane: Lane,
    pub(crate) messages: usize,
    pub(crate) bytes: isize,
    /// Credit for deliveries that were lost: the client asks for them again once it notices.
    pub(crate) owed: VecDeque<(Instant, usize)>,
    /// On their way to it.
    pub(crate) inbox: VecDeque<(Instant, Mail)>,
    pub(crate) news: Arc<Notify>,
}

/// What comes to a source.
pub(crate) enum Mail {
    Delivery(Box<Delivery>),
    /// It is gone with the node that takes it.
    Crash,
}

/// Somebody who wants to hear of outcomes.
pub(crate) struct Watcher {
    pub(crate) node: usize,
    pub(crate) batch: Option<BatchId>,
    pub(crate) hints: VecDeque<Option<BatchId>>,
    pub(crate) news: Arc<Notify>,
}

/// All that happened, as a number; and as text, if somebody wants to read it.
pub(crate) struct Trace {
    pub(crate) sum: u64,
    pub(crate) text: Option<Vec<String>>,
}

impl Mail {
    fn bytes(&self) -> usize {
        match self {
            Self::Delivery(delivery) => delivery.bytes.len(),
            Self::Crash => 0,
        }
    }
}

/// How long it takes until a client notices that something it asked for is lost.
pub(crate) const NOTICED: Duration = Duration::from_secs(1);
/// How long a node that is cut off is still sent deliveries.
const UNNOTICED: Duration = Duration::from_secs(2);

impl World {
    pub(crate) fn new(history: &History, breaks: Breaks, text: bool) -> Self {
        let setting = history.setting.clone();
        let bounds = Bounds {
            lease: ms(setting.lease_ms),
            window: ms(setting.dedup_ms),
            lane_messages: setting.lane_messages as usize,
            message_bytes: setting.message_bytes as usize,
            copies: setting.copies as usize,
        };
        Self(Arc::new(Mutex::new(Inner {
            setting,
            breaks,
            server: Server::new(bounds),
            truth: Truth::new(ms(history.setting.dedup_ms), history.setting.quick_ms.map(ms)),
            nodes: Vec::new(),
            sources: BTreeMap::new(),
            watchers: BTreeMap::new(),
            sessions: BTreeMap::new(),
            mishaps: Vec::new(),
            hits: BTreeMap::new(),
            rng: Rng::with_seed(history.seed ^ 0x0057_4f52_4c44),
            trace: Trace { sum: 0, text: text.then(Vec::new) },
            down: None,
            epoch: 0,
            lag: None,
            disorder: None,
            disks_full: BTreeMap::new(),
            healed: false,
            closing: false,
            snapshots: VecDeque::new(),
            next: 1,
            alarm: Arc::default(),
            written: Arc::default(),
        })))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock()
    }
}

impl Inner {
    /// A number that nobody else has.
    pub(crate) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// The server's time.
    pub(crate) fn wall(&self) -> Millis {
        clock::millis(0)
    }

    pub(crate) fn add_node(&mut self, role: Role, index: u8) -> usize {
        self.nodes.push(Node {
            role,
            index,
            life: 0,
            alive: false,
            cut: None,
            skew: 0,
            died: Arc::default(),
            back_ms: 500,
            ordered: Arc::default(),
            deadline_ms: 0,
        });
        self.nodes.len() - 1
    }

    pub(crate) fn node(&self, role: Role, index: u8) -> Option<usize> {
        let of = || self.nodes.iter().enumerate().filter(|(_, node)| node.role == role).map(|(at, _)| at);
        let count = of().count();
        of().nth(usize::from(index) % count.max(1))
    }

    /// A node starts: its life.
    pub(crate) fn begin(&mut self, node: usize) -> u32 {
        let it = &mut self.nodes[node];
        it.life += 1;
        it.alive = true;
        (it.died, it.ordered) = Default::default();
        it.life
    }

    pub(crate) fn is_alive(&self, node: usize, life: u32) -> bool {
        self.nodes[node].alive && self.nodes[node].life == life
    }

    /// A node is gone at once.
    pub(crate) fn kill(&mut self, node: usize) {
        self.note(Op::Other, node, 0xdead);
        let it = &mut self.nodes[node];
        it.alive = false;
        it.died.notify_one();
        self.forget(node);
        self.truth.disturb(Some(node), Instant::now());
    }

    /// Nothing is sent to a node any more.
    pub(crate) fn forget(&mut self, node: usize) {
        self.sources.retain(|_, source| source.node != node);
        self.watchers.retain(|_, watcher| watcher.node != node);
    }

    pub(crate) fn is_cut(&self, node: usize, now: Instant) -> bool {
        self.nodes[node].cut.is_some_and(|(_, until)| now < until)
    }

    /// Whether a request of `node` gets to the server.
    pub(crate) fn reaches(&self, node: usize, now: Instant) -> bool {
        self.down.is_none_or(|until| now >= until) && !self.is_cut(node, now)
    }

    /// Whether the server sends deliveries to `node`; those that get lost included.
    pub(crate) fn sends(&self, node: usize, now: Instant) -> bool {
        let cut = self.nodes[node].cut.filter(|(_, until)| now < *until);
        self.down.is_none_or(|until| now >= until) && cut.is_none_or(|(since, _)| now < since + UNNOTICED)
    }

    /// One way between a node and the server.
    pub(crate) fn latency(&mut self) -> Duration {
        let most = 2 * self.setting.latency_ms;
        ms(self.rng.u32(..=most))
    }

    /// The time that a replica shows.
    pub(crate) fn shown(&mut self, now: Instant) -> Instant {
        match self.lag {
            Some((lag, until)) if now < until && self.rng.bool() => {
                self.hit("stale read");
                now.checked_sub(lag).unwrap_or(now)
            }
            _ => now,
        }
    }

    pub(crate) fn hit(&mut self, what: &str) {
        match self.hits.get_mut(what) {
            Some(count) => *count += 1,
            None => drop(self.hits.insert(what.to_owned(), 1)),
        }
    }

    /// What happens to this request of `node`, if anything does.
    pub(crate) fn mishap(&mut self, op: Op, node: usize) -> Option<Mishap> {
        if self.mishaps.is_empty() || self.healed {
            return None;
        }
        let (now, role) = (Instant::now(), self.nodes[node].role);
        let mut found = None;
        for (at, (from, fault)) in self.mishaps.iter_mut().enumerate() {
            if let Fault::Op { role: r, op: o, nth, what } = fault
                && (*r, *o) == (role, op)
                && now >= *from
            {
                *nth = nth.saturating_sub(1);
                if *nth == 0 && found.is_none() {
                    found = Some((at, *what));
                }
            }
        }
        let (at, what) = found?;
        let (_, fault) = self.mishaps.remove(at);
        self.hit(&fault.kind());
        self.hit(&format!("point: {role:?} {op:?} {}", fault.kind()));
        self.truth.disturb(Some(node), now);
        if matches!(what, Mishap::CrashBefore | Mishap::CrashAfter) {
            self.hit(&format!("kill {role:?}"));
        }
        Some(what)
    }

    /// Takes note of something that happened.
    pub(crate) fn note(&mut self, op: Op, node: usize, detail: u64) {
        let at = clock::elapsed();
        self.trace.sum = hash(&(self.trace.sum, at, op, node, detail));
        if let Some(text) = &mut self.trace.text {
            let Node { role, index, life, .. } = self.nodes[node];
            text.push(format!("{at:>7} {role:?}{index}/{life} {op:?} {detail:x}"));
        }
    }

    /// Takes note of something for readers only.
    pub(crate) fn say(&mut self, text: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.trace.text {
            lines.push(format!("{:>7} {}", clock::elapsed(), text()));
        }
    }

    /// Clients ask again for what was lost.
    pub(crate) fn ask_again(&mut self, now: Instant) {
        let reached: Vec<usize> = (0..self.nodes.len()).filter(|node| self.reaches(*node, now)).collect();
        for source in self.sources.values_mut().filter(|source| reached.contains(&source.node)) {
            while source.owed.front().is_some_and(|(at, _)| *at <= now) {
                if let Some((_, bytes)) = source.owed.pop_front() {
                    source.messages += 1;
                    source.bytes += bytes as isize;
                }
            }
        }
    }

    /// All connections break.
    pub(crate) fn break_connections(&mut self) {
        self.epoch += 1;
        let soon = Instant::now() + NOTICED;
        for source in self.sources.values_mut() {
            for (_, mail) in std::mem::take(&mut source.inbox) {
                source.owed.push_back((soon, mail.bytes()));
            }
        }
        for watcher in self.watchers.values_mut() {
            watcher.hints.clear();
            watcher.hints.push_back(None);
            watcher.news.notify_one();
        }
    }
}

/// The same number for the same value, always.
pub(crate) fn hash(value: &(impl Hash + ?Sized)) -> u64 {
    let mut hasher = std::collections::hash_map::DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

pub(crate) fn ms(ms: u32) -> Duration {
    Duration::from_millis(u64::from(ms))
}
