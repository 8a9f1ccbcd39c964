//! A broker in small, for tests: keeps its promises to the letter, and breaks down where it is told to.

#![allow(clippy::unwrap_used, reason = "a model is part of a test")]

mod lease;
mod source;
mod store;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use wf_broker::{
    BoxFuture, Broker, BrokerError, Buried, Consume, Control, Cron, DeadLetters, DeadPage, Delivery, DeliverySource, Entry, Hint,
    Key, KeyedRecords, LaneStats, LogEnd, LoggedRecord, LoggedRun, Message, OutcomeLog, Publish, Result, Revision, RunLog,
    Schedule, Scheduled, Stored, Trace, Traced, Traces, Version,
};
use wf_schema::{BatchId, Lane, Millis, Queue};

pub(crate) use self::lease::NoLease;
use self::lease::SessionLease;
use self::source::ModelSource;
pub(crate) use self::store::Store;

/// What happens to a request.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// Nothing: it is answered.
    None,
    /// It is lost on its way.
    Lost,
    /// It is done, and the answer is lost.
    Unheard,
    /// The one who asks dies before it is done.
    CrashBefore,
    /// The one who asks dies right after it is done.
    CrashAfter,
    /// It waits, once it has said so, until it is told to go on.
    Held(Arc<Notify>, Arc<Notify>),
    /// There is no room (for a publish; otherwise nothing).
    Full,
    /// The one who asks has no right to (to publish; otherwise nothing).
    Denied,
}

/// One executor's connection: dies with it.
pub(crate) struct Session {
    me: Weak<Self>,
    pub(crate) store: Arc<Mutex<Store>>,
    faults: Mutex<VecDeque<Fault>>,
    dead: AtomicBool,
    pub(crate) died: Notify,
    max_message: usize,
    /// Nothing is delivered until a source is mended; with `stubborn` not even then.
    pub(crate) deaf: AtomicBool,
    pub(crate) stubborn: AtomicBool,
    pub(crate) news: Notify,
}

impl Session {
    pub(crate) fn new(store: &Arc<Mutex<Store>>, faults: impl IntoIterator<Item = Fault>) -> Arc<Self> {
        Self::narrow(store, faults, 1 << 20)
    }

    pub(crate) fn narrow(store: &Arc<Mutex<Store>>, faults: impl IntoIterator<Item = Fault>, max_message: usize) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            store: store.clone(),
            faults: Mutex::new(faults.into_iter().collect()),
            dead: AtomicBool::new(false),
            died: Notify::new(),
            max_message,
            deaf: AtomicBool::new(false),
            stubborn: AtomicBool::new(false),
            news: Notify::new(),
        })
    }

    /// The same session, for what outlives a call.
    fn shared(&self) -> Arc<Self> {
        self.me.upgrade().unwrap()
    }

    pub(crate) fn take(self: &Arc<Self>) -> Option<Delivery> {
        let mut store = self.store.lock();
        let mut waiting = store.ready.pop_front()?;
        waiting.delivered += 1;
        store.owned.insert(waiting.run, waiting.clone());
        Some(Delivery {
            lane: waiting.lane,
            id: "".into(),
            bytes: waiting.bytes,
            run: waiting.run,
            delivered: waiting.delivered,
            fallback_id: BatchId::derived(1, &[&waiting.run.sequence().to_le_bytes()]),
            stored_at: 1,
            fired: None,
            lease: Arc::new(SessionLease::new(self.clone(), waiting.run)),
        })
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }

    pub(crate) fn die(&self) {
        self.dead.store(true, Ordering::SeqCst);
        self.died.notify_one();
    }

    fn fault(&self) -> Fault {
        self.faults.lock().pop_front().unwrap_or(Fault::None)
    }

    /// Does `what`, as far as this session's faults let it.
    fn ask<'a, T: Send + 'a>(
        &'a self,
        what: &'static str,
        act: impl FnOnce(&mut Store) -> Result<T> + Send + 'a,
    ) -> BoxFuture<'a, T> {
        Box::pin(async move {
            // An answer is never there at once.
            tokio::task::yield_now().await;
            if self.is_dead() {
                return std::future::pending().await;
            }
            let act = || {
                let mut store = self.store.lock();
                store.calls.push(what);
                act(&mut store)
            };
            match self.fault() {
                Fault::None => act(),
                Fault::Lost => Err(BrokerError::retryable(what, "the request is lost")),
                Fault::Unheard => act().and(Err(BrokerError::retryable(what, "the answer is lost"))),
                Fault::CrashBefore => {
                    self.die();
                    std::future::pending().await
                }
                Fault::CrashAfter => {
                    let _ = act();
                    self.die();
                    std::future::pending().await
                }
                Fault::Held(here, on) => {
                    here.notify_one();
                    on.notified().await;
                    act()
                }
                Fault::Full if what == "publish" => {
                    Err(BrokerError::Full { lane: Lane::default(), retry_after: Duration::from_secs(1) })
                }
                Fault::Denied if what == "publish" => Err(BrokerError::denied(what, "no right to")),
                Fault::Full | Fault::Denied => act(),
            }
        })
    }

    fn fits(&self, bytes: &Bytes) -> Result<()> {
        let (size, limit) = (bytes.len(), self.max_message);
        if size > limit { Err(BrokerError::TooLarge { size, limit }) } else { Ok(()) }
    }
}

/// What is asked of a role that settling has no use for.
fn left_out<'a, T>(what: &'static str) -> BoxFuture<'a, T>
where
    T: Send + 'a,
{
    Box::pin(std::future::ready(Err(BrokerError::fatal(what, "the model leaves it out"))))
}

impl Publish for Session {
    fn publish(&self, message: Message) -> BoxFuture<'_, Stored> {
        self.ask("publish", move |store| {
            self.fits(&message.bytes)?;
            let duplicate = !store.ids.insert(format!("m {}", message.id));
            if !duplicate {
                store.put(message.lane, message.bytes);
                self.news.notify_one();
            }
            Ok(Stored { duplicate })
        })
    }

    fn publish_all(&self, _: Vec<Message>) -> BoxFuture<'_, ()> {
        left_out("publish_all")
    }

    fn max_message(&self) -> usize {
        self.max_message
    }

    fn dedup_window(&self) -> Duration {
        Duration::MAX
    }
}

impl Traces for Session {
    fn trace(&self, _: Vec<Trace>, _: Duration) -> BoxFuture<'_, Vec<Traced>> {
        left_out("trace")
    }
}

impl Schedule for Session {
    fn publish_at(&self, scheduled: Scheduled) -> BoxFuture<'_, ()> {
        self.ask("publish_at", move |store| {
            self.fits(&scheduled.bytes)?;
            if store.ids.insert(format!("s {}", scheduled.key)) {
                store.scheduled.insert(scheduled.key.to_string(), scheduled);
            }
            Ok(())
        })
    }

    fn cancel_at(&self, _: Key) -> BoxFuture<'_, ()> {
        left_out("cancel_at")
    }

    fn put_cron(&self, _: Cron) -> BoxFuture<'_, ()> {
        left_out("put_cron")
    }

    fn delete_cron(&self, _: Key) -> BoxFuture<'_, ()> {
        left_out("delete_cron")
    }
}

impl Consume for Session {
    fn lane(&self, lane: Lane) -> BoxFuture<'_, Box<dyn DeliverySource>> {
        let source: Box<dyn DeliverySource> = Box::new(ModelSource::new(self.shared(), lane));
        Box::pin(std::future::ready(Ok(source)))
    }

    fn lease(&self) -> Duration {
        Duration::from_secs(30)
    }

    fn settled(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(Ok(())))
    }
}

impl OutcomeLog for Session {
    fn append(&self, RunLog { batch, run, .. }: RunLog, expected: Version, bytes: Bytes) -> BoxFuture<'_, Version> {
        self.ask("append", move |store| {
            self.fits(&bytes)?;
            let stands = store.stands(batch, run);
            let log = store.log.entry(batch).or_default();
            if stands != expected {
                return Err(BrokerError::Fenced);
            }
            store.sequence += 1;
            let version = Version(store.sequence);
            log.push(LoggedRecord { run, version, bytes });
            Ok(version)
        })
    }

    fn read_run(&self, RunLog { batch, run, .. }: RunLog) -> BoxFuture<'_, LoggedRun> {
        self.ask("read", move |store| {
            let version = store.stands(batch, run);
            let ended = store.ended.contains_key(&run);
            let ours = |logged: &&LoggedRecord| logged.run == run && !ended && !store.others.contains(&logged.version);
            let records = store.log.get(&batch).into_iter().flatten().filter(ours).cloned().collect();
            Ok(LoggedRun { records, version, ended })
        })
    }

    fn publish_outcome(&self, log: RunLog, step: u32, bytes: Bytes) -> BoxFuture<'_, ()> {
        self.ask("show", move |store| {
            self.fits(&bytes)?;
            if store.ids.insert(format!("o {}.{}.{step}", log.batch, log.run)) {
                store.shown.entry(log.batch).or_default().push(bytes);
            }
            Ok(())
        })
    }

    fn end(&self, end: LogEnd) -> BoxFuture<'_, ()> {
        self.ask("end", move |store| {
            store.end(&end);
            Ok(())
        })
    }

    fn read(&self, _: BatchId) -> BoxFuture<'_, Vec<LoggedRecord>> {
        left_out("read")
    }

    fn kept_since(&self) -> BoxFuture<'_, Millis> {
        left_out("kept_since")
    }

    fn watch(&self, _: BatchId) -> BoxFuture<'_, Box<dyn Hint>> {
        left_out("watch")
    }

    fn watch_all(&self) -> BoxFuture<'_, Box<dyn Hint>> {
        left_out("watch_all")
    }
}

impl DeadLetters for Session {
    fn bury(&self, _: Queue, id: Arc<str>, bytes: Bytes) -> BoxFuture<'_, ()> {
        self.ask("bury", move |store| {
            self.fits(&bytes)?;
            if store.ids.insert(format!("d {id}")) {
                store.dead.push(bytes);
            }
            Ok(())
        })
    }

    fn dead(&self, _: Option<Queue>, _: u64, _: usize) -> BoxFuture<'_, DeadPage> {
        left_out("dead")
    }

    fn dead_at(&self, _: u64) -> BoxFuture<'_, Option<Buried>> {
        left_out("dead_at")
    }

    fn delete_dead(&self, _: u64) -> BoxFuture<'_, bool> {
        left_out("delete_dead")
    }
}

impl KeyedRecords for Session {
    fn create(&self, _: Key, _: Bytes, _: Option<Duration>) -> BoxFuture<'_, Revision> {
        left_out("create")
    }

    fn update(&self, _: Key, _: Revision, _: Bytes, _: Option<Duration>) -> BoxFuture<'_, Revision> {
        left_out("update")
    }

    fn delete(&self, _: Key, _: Revision) -> BoxFuture<'_, ()> {
        left_out("delete")
    }

    fn get(&self, _: Key) -> BoxFuture<'_, Option<Entry>> {
        left_out("get")
    }

    fn watch_key(&self, _: Key, _: Option<Revision>) -> BoxFuture<'_, Option<Entry>> {
        left_out("watch_key")
    }
}

impl Control for Session {
    fn stats(&self, lane: Lane) -> BoxFuture<'_, LaneStats> {
        let store = self.store.lock();
        let pending = store.ready.iter().filter(|waiting| waiting.lane == lane).count() as u64;
        let stats = LaneStats { pending, in_flight: store.owned.len() as u64, oldest: None, waiting: 1 };
        Box::pin(std::future::ready(Ok(stats)))
    }

    fn pause(&self, _: Queue, _: Millis) -> BoxFuture<'_, ()> {
        left_out("pause")
    }

    fn resume(&self, _: Queue) -> BoxFuture<'_, ()> {
        left_out("resume")
    }

    fn paused(&self, _: Queue) -> BoxFuture<'_, Option<Millis>> {
        left_out("paused")
    }
}

impl Broker for Session {
    fn ping(&self) -> BoxFuture<'_, Duration> {
        left_out("ping")
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        left_out("close")
    }
}
