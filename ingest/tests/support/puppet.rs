//! A broker that does as it is told, in memory: full, away, slow, forgetful on command.

mod roles;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, broadcast};
use wf_broker::{Entry, Key, LoggedRecord, Message, OutcomeLog as _, RunLog, Scheduled, Version};
use wf_schema::{Batch, BatchId, Format, JobId, Lane, Limits, RecordBuilder, RecordHeader, RunId};

/// What is asked of a broker, as far as it can be told to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    Publish,
    PublishAll,
    PublishAt,
    Create,
    Update,
    Get,
    Trace,
    Ping,
}

/// How it fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Not done, and says so.
    Away,
    /// Done, but the answer is lost.
    AnswerLost,
    Full,
    NoRoom,
    Denied,
}

#[derive(Default)]
struct Store {
    messages: Vec<Message>,
    scheduled: HashMap<Key, Scheduled>,
    ids: HashSet<Arc<str>>,
    records: HashMap<Key, Entry>,
    revision: u64,
    log: HashMap<BatchId, Vec<LoggedRecord>>,
    /// The ids of messages whose runs have ended.
    ended: HashSet<Arc<str>>,
    /// Faults for the next calls, in order; `None` lets a call pass.
    faults: HashMap<Op, Vec<Option<Fault>>>,
    calls: HashMap<Op, usize>,
}

pub struct Puppet {
    store: Mutex<Store>,
    /// What a publish must get a permit of before it is answered.
    gate: Semaphore,
    gated: AtomicBool,
    away: AtomicBool,
    full: Mutex<HashSet<Lane>>,
    discards: AtomicBool,
    pub max_message: AtomicUsize,
    pub window_ms: AtomicU64,
    in_flight: AtomicUsize,
    pub most_in_flight: AtomicUsize,
    changed: broadcast::Sender<BatchId>,
    /// Tells of each publish that begins.
    began: tokio::sync::Notify,
}

impl Puppet {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            store: Mutex::default(),
            gate: Semaphore::new(0),
            gated: AtomicBool::new(false),
            away: AtomicBool::new(false),
            full: Mutex::default(),
            discards: AtomicBool::new(false),
            max_message: AtomicUsize::new(1 << 20),
            window_ms: AtomicU64::new(120_000),
            in_flight: AtomicUsize::new(0),
            most_in_flight: AtomicUsize::new(0),
            changed: broadcast::channel(1_000).0,
            began: tokio::sync::Notify::new(),
        })
    }

    /// Publishes wait from now on.
    pub fn hold(&self) {
        self.gated.store(true, SeqCst);
    }

    /// Lets `n` of the waiting publishes go.
    pub fn let_go(&self, n: usize) {
        self.gate.add_permits(n);
    }

    /// Publishes wait no longer.
    pub fn open_up(&self) {
        self.gated.store(false, SeqCst);
        self.gate.add_permits(1_000_000);
    }

    pub fn set_away(&self, away: bool) {
        self.away.store(away, SeqCst);
    }

    pub fn set_full(&self, lane: &Lane, full: bool) {
        let mut lanes = self.full.lock();
        if full {
            lanes.insert(lane.clone())
        } else {
            lanes.remove(lane)
        };
    }

    /// Keeps ids and counts, but no bytes.
    pub fn discard(&self) {
        self.discards.store(true, SeqCst);
    }

    /// Forgets which ids were stored, as a restart does.
    pub fn forget_ids(&self) {
        self.store.lock().ids.clear();
    }

    /// A store that was rolled back has no keyed records that are newer.
    pub fn forget_records(&self) {
        self.store.lock().records.clear();
    }

    /// Runs all that is stored to its end.
    pub fn run_all(&self) {
        let store = &mut *self.store.lock();
        store.ended.extend(store.messages.drain(..).map(|message| message.id));
        store.ended.extend(store.scheduled.drain().map(|(key, _)| Arc::from(key.as_str())));
    }

    pub fn fail(&self, op: Op, faults: impl IntoIterator<Item = Option<Fault>>) {
        self.store.lock().faults.insert(op, faults.into_iter().collect());
    }

    pub fn calls(&self, op: Op) -> usize {
        self.store.lock().calls.get(&op).copied().unwrap_or(0)
    }

    pub fn messages(&self) -> Vec<Message> {
        self.store.lock().messages.clone()
    }

    pub fn scheduled(&self) -> Vec<Scheduled> {
        self.store.lock().scheduled.values().cloned().collect()
    }

    /// Writes a record of what became of jobs of `batch`, in a run of its own.
    pub async fn record(&self, batch: BatchId, run: u64, format: Format, add: impl FnOnce(&mut RecordBuilder)) {
        let run = RunId::new('j', run);
        let executor = "e1".to_owned();
        let header = RecordHeader {
            batch,
            run,
            step: 0,
            writer: 1,
            executor,
            at: 1_795_323_672_000,
            lane: Lane::default(),
            format,
            cut: 1 << 18,
        };
        let mut record = RecordBuilder::new(header);
        add(&mut record);
        let log = RunLog { batch, run, message: "".into() };
        self.append(log, Version::NONE, record.encode()).await.unwrap();
    }

    /// How many look at the log of outcomes as it changes.
    pub fn watchers(&self) -> usize {
        self.changed.receiver_count()
    }

    /// Every job on store, now or for later: its id, kind and args.
    pub fn jobs(&self) -> Vec<(JobId, String, String)> {
        let store = self.store.lock();
        let bytes = store.messages.iter().map(|m| &m.bytes).chain(store.scheduled.values().map(|s| &s.bytes));
        let mut jobs = Vec::new();
        for message in bytes {
            let batch = Batch::decode(message, &Limits::default()).unwrap();
            jobs.extend(
                batch.iter().map(|job| (job.id(), job.kind().to_string(), String::from_utf8_lossy(job.args()).into_owned())),
            );
        }
        jobs
    }

    /// Waits until `n` publishes are under way at once.
    pub async fn under_way(&self, n: usize) {
        loop {
            let began = self.began.notified();
            if self.in_flight.load(SeqCst) >= n {
                return;
            }
            began.await;
        }
    }

    /// The fault for this call, if there is one. Counts the call.
    fn fault(&self, op: Op) -> Option<Fault> {
        let mut store = self.store.lock();
        *store.calls.entry(op).or_default() += 1;
        let faults = store.faults.entry(op).or_default();
        let fault = if faults.is_empty() { None } else { faults.remove(0) };
        fault.or(self.away.load(SeqCst).then_some(Fault::Away))
    }

    async fn pass(&self) {
        let now = self.in_flight.fetch_add(1, SeqCst) + 1;
        self.most_in_flight.fetch_max(now, SeqCst);
        self.began.notify_waiters();
        if self.gated.load(SeqCst) {
            self.gate.acquire().await.unwrap().forget();
        }
        self.in_flight.fetch_sub(1, SeqCst);
    }

    fn put(&self, message: Message) -> bool {
        let mut store = self.store.lock();
        if !store.ids.insert(message.id.clone()) {
            return true;
        }
        let bytes = if self.discards.load(SeqCst) { Bytes::new() } else { message.bytes };
        store.messages.push(Message { bytes, ..message });
        false
    }
}
