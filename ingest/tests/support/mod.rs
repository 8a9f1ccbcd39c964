//! A broker that does as it is told, in memory: full, away, slow, forgetful on command.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod http;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, broadcast};
use wf_broker::{
    BoxFuture, Broker, BrokerError, Buried, Consume, Control, Cron, DeadLetters, DeadPage, DeliverySource, Entry, Hint, Key,
    KeyedRecords, LaneStats, LoggedRecord, Message, OutcomeLog, Publish, Result, Revision, Schedule, Scheduled, Stored, Version,
};
use wf_schema::{Batch, BatchId, Format, JobId, Lane, Limits, Millis, Queue, RecordBuilder, RecordHeader, RunId};

/// What is asked of a broker, as far as it can be told to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    Publish,
    PublishAll,
    PublishAt,
    Create,
    Update,
    Get,
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
        let header =
            RecordHeader { batch, run, step: 0, writer: 1, executor, at: 1_795_323_672_000, lane: Lane::default(), format };
        let mut record = RecordBuilder::new(header);
        add(&mut record);
        self.append(batch, run, Version::NONE, record.encode()).await.unwrap();
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

fn failed(fault: Fault, lane: &Lane) -> BrokerError {
    match fault {
        Fault::Away | Fault::AnswerLost => BrokerError::retryable("answer", "it was told not to"),
        Fault::Full => BrokerError::Full { lane: lane.clone(), retry_after: Duration::from_secs(7) },
        Fault::NoRoom => BrokerError::NoRoom { what: "store more jobs", retry_after: Duration::from_secs(5) },
        Fault::Denied => BrokerError::denied("do this", "it was told not to"),
    }
}

impl Publish for Puppet {
    fn publish(&self, message: Message) -> BoxFuture<'_, Stored> {
        async move {
            let fault = self.fault(Op::Publish);
            self.pass().await;
            let full = self.full.lock().contains(&message.lane).then_some(Fault::Full);
            match fault.or(full) {
                Some(Fault::AnswerLost) => {
                    self.put(message);
                    Err(failed(Fault::AnswerLost, &Lane::default()))
                }
                Some(fault) => Err(failed(fault, &message.lane)),
                None => Ok(Stored { duplicate: self.put(message) }),
            }
        }
        .boxed()
    }

    fn publish_all(&self, messages: Vec<Message>) -> BoxFuture<'_, ()> {
        async move {
            let lane = messages[0].lane.clone();
            let fault = self.fault(Op::PublishAll);
            self.pass().await;
            match fault {
                Some(Fault::AnswerLost) | None => {
                    for message in messages {
                        self.put(message);
                    }
                }
                Some(_) => {}
            }
            fault.map_or(Ok(()), |fault| Err(failed(fault, &lane)))
        }
        .boxed()
    }

    fn max_message(&self) -> usize {
        self.max_message.load(SeqCst)
    }

    fn max_together(&self) -> usize {
        50
    }
}

impl Schedule for Puppet {
    fn publish_at(&self, scheduled: Scheduled) -> BoxFuture<'_, ()> {
        async move {
            match self.fault(Op::PublishAt) {
                Some(fault) => Err(failed(fault, &scheduled.lane)),
                None => {
                    self.store.lock().scheduled.insert(scheduled.key.clone(), scheduled);
                    Ok(())
                }
            }
        }
        .boxed()
    }

    fn cancel_at(&self, _: Key) -> BoxFuture<'_, ()> {
        unasked("cancel_at")
    }

    fn put_cron(&self, _: Cron) -> BoxFuture<'_, ()> {
        unasked("put_cron")
    }

    fn delete_cron(&self, _: Key) -> BoxFuture<'_, ()> {
        unasked("delete_cron")
    }
}

impl KeyedRecords for Puppet {
    fn create(&self, key: Key, bytes: Bytes, ttl: Option<Duration>) -> BoxFuture<'_, Revision> {
        async move {
            assert_eq!(ttl, Some(Duration::from_secs(24 * 3600)));
            let fault = self.fault(Op::Create);
            if let Some(fault) = fault.filter(|fault| *fault != Fault::AnswerLost) {
                return Err(failed(fault, &Lane::default()));
            }
            let mut store = self.store.lock();
            if store.records.contains_key(&key) {
                return Err(BrokerError::Fenced);
            }
            store.revision += 1;
            let revision = Revision(store.revision);
            store.records.insert(key, Entry { bytes, revision });
            fault.map_or(Ok(revision), |fault| Err(failed(fault, &Lane::default())))
        }
        .boxed()
    }

    fn update(&self, key: Key, revision: Revision, bytes: Bytes, _: Option<Duration>) -> BoxFuture<'_, Revision> {
        async move {
            if let Some(fault) = self.fault(Op::Update) {
                return Err(failed(fault, &Lane::default()));
            }
            let mut store = self.store.lock();
            if store.records.get(&key).map(|entry| entry.revision) != Some(revision) {
                return Err(BrokerError::Fenced);
            }
            store.revision += 1;
            let revision = Revision(store.revision);
            store.records.insert(key, Entry { bytes, revision });
            Ok(revision)
        }
        .boxed()
    }

    fn delete(&self, key: Key, revision: Revision) -> BoxFuture<'_, ()> {
        async move {
            let mut store = self.store.lock();
            if store.records.get(&key).map(|entry| entry.revision) != Some(revision) {
                return Err(BrokerError::Fenced);
            }
            store.records.remove(&key);
            Ok(())
        }
        .boxed()
    }

    fn get(&self, key: Key) -> BoxFuture<'_, Option<Entry>> {
        async move {
            match self.fault(Op::Get) {
                Some(fault) => Err(failed(fault, &Lane::default())),
                None => Ok(self.store.lock().records.get(&key).cloned()),
            }
        }
        .boxed()
    }

    fn watch_key(&self, _: Key, _: Option<Revision>) -> BoxFuture<'_, Option<Entry>> {
        unasked("watch_key")
    }
}

impl OutcomeLog for Puppet {
    fn append(&self, batch: BatchId, run: RunId, expected: Version, bytes: Bytes) -> BoxFuture<'_, Version> {
        async move {
            let version = Version(expected.0 + 1);
            self.store.lock().log.entry(batch).or_default().push(LoggedRecord { run, version, bytes });
            let _ = self.changed.send(batch);
            Ok(version)
        }
        .boxed()
    }

    fn read(&self, batch: BatchId) -> BoxFuture<'_, Vec<LoggedRecord>> {
        async move {
            if self.away.load(SeqCst) {
                return Err(failed(Fault::Away, &Lane::default()));
            }
            Ok(self.store.lock().log.get(&batch).cloned().unwrap_or_default())
        }
        .boxed()
    }

    fn watch(&self, _: BatchId) -> BoxFuture<'_, Box<dyn Hint>> {
        let hints = Hints(self.changed.subscribe());
        async move { Ok(Box::new(hints) as Box<dyn Hint>) }.boxed()
    }

    fn watch_all(&self) -> BoxFuture<'_, Box<dyn Hint>> {
        unasked("watch_all")
    }
}

struct Hints(broadcast::Receiver<BatchId>);

impl Hint for Hints {
    fn changed(&mut self) -> BoxFuture<'_, Option<BatchId>> {
        async move { Ok(self.0.recv().await.ok()) }.boxed()
    }
}

impl Broker for Puppet {
    fn ping(&self) -> BoxFuture<'_, Duration> {
        async move { self.fault(Op::Ping).map_or(Ok(Duration::from_millis(1)), |fault| Err(failed(fault, &Lane::default()))) }
            .boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        async { Ok(()) }.boxed()
    }
}

impl Consume for Puppet {
    fn lane(&self, _: Lane) -> BoxFuture<'_, Box<dyn DeliverySource>> {
        unasked("lane")
    }

    fn lease(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn settled(&self) -> BoxFuture<'_, ()> {
        unasked("settled")
    }
}

impl DeadLetters for Puppet {
    fn bury(&self, _: Queue, _: Arc<str>, _: Bytes) -> BoxFuture<'_, ()> {
        unasked("bury")
    }

    fn dead(&self, _: Option<Queue>, _: u64, _: usize) -> BoxFuture<'_, DeadPage> {
        unasked("dead")
    }

    fn dead_at(&self, _: u64) -> BoxFuture<'_, Option<Buried>> {
        unasked("dead_at")
    }

    fn delete_dead(&self, _: u64) -> BoxFuture<'_, bool> {
        unasked("delete_dead")
    }
}

impl Control for Puppet {
    fn stats(&self, _: Lane) -> BoxFuture<'_, LaneStats> {
        unasked("stats")
    }

    fn pause(&self, _: Queue, _: Millis) -> BoxFuture<'_, ()> {
        unasked("pause")
    }

    fn resume(&self, _: Queue) -> BoxFuture<'_, ()> {
        unasked("resume")
    }

    fn paused(&self, _: Queue) -> BoxFuture<'_, Option<Millis>> {
        unasked("paused")
    }
}

/// Ingest has no business with these.
fn unasked<T: Send + 'static>(what: &'static str) -> BoxFuture<'static, T> {
    async move { Result::<T>::Err(BrokerError::fatal("be asked this by ingest", what)) }.boxed()
}
