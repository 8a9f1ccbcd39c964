//! Where jobs wait on local disk while the broker cannot be reached.
//!
//! An entry is one message as it would have gone to the broker, under the id that its jobs' callers were told. It is
//! durable before anybody is told so, it is *marked* before the broker is given it, and it is removed only when the
//! broker has confirmed it. So what is not marked was never sent, and is sent once; what is marked is sent again, under
//! the same id, which the broker recognizes for as long as its dedup window lasts.
//!
//! Entries of a lane are shipped in the order they came, as far as a pipelined link keeps one. What comes while others
//! of its lane wait here goes behind them. One full lane holds up no other.

mod entry;
mod error;
mod folder;
mod ledger;
mod shipper;
mod stats;
mod store;
#[cfg(test)]
mod tests;
mod writer;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock, mpsc};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wf_broker::{Gate, Pass, Window};
use wf_schema::Lane;

use crate::Publisher;
use crate::envelope::Envelope;
use entry::{Damage, Record, Slot};
pub use error::SpoolError;
use folder::Folder;
use ledger::Ledger;
pub use stats::SpoolStats;
use store::DiskStore;
pub use store::{Change, Space, Store};
use writer::{Op, Ops, Writer};

/// What may wait for the disk at once, in bytes and messages; further callers wait to be let in.
const ROOM: Window = Window { bytes: 16 << 20, messages: 4_096 };

/// Where a spool is, and how large it may become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpoolOptions {
    /// Its folder, on a local disk. Made if need be. One process's at a time.
    pub path: PathBuf,
    /// The most that it may hold, in bytes of messages and 128 for each beside. The folder itself may take half as much
    /// again, and 200 MiB for journals, until what was shipped is cleared from it.
    pub bytes: u64,
}

/// See the module. Cheap to clone; clones are the same spool. Give it to a [`crate::Producer`] with
/// [`crate::ProducerOptions::spool`].
#[derive(Clone)]
pub struct Spool(Arc<Handle>);

struct Handle {
    shared: Arc<Shared>,
    ops: Ops,
    /// Lets in what waits for the disk.
    gate: Gate,
    stop: CancellationToken,
    shipping: OnceLock<()>,
    tasks: TaskTracker,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// What the handle, the writer and the shipper have in common.
struct Shared {
    ledger: Mutex<Ledger>,
    /// `None` once it is closed.
    open: RwLock<Option<Arc<dyn Store>>>,
    /// Something was put, removed or given back.
    work: Notify,
}

impl Spool {
    /// Opens the spool, or makes it, and reads what is there. It is shipped once the spool is given to a producer.
    ///
    /// # Errors
    /// When another process has it, or the folder cannot be used.
    pub async fn open(options: SpoolOptions) -> Result<Self, SpoolError> {
        let opened = tokio::task::spawn_blocking(move || {
            Self::on(Arc::new(DiskStore::open(Folder::claim(&options.path)?)?), options.bytes, Self::own_thread)
        });
        opened.await.map_err(|error| SpoolError::Disk(Arc::new(error)))?
    }

    /// A spool in `store` that does everything where it is told, without a thread of its own: for the simulator.
    ///
    /// # Errors
    /// When what is there cannot be read.
    #[doc(hidden)]
    pub fn here(store: Arc<dyn Store>, limit: u64) -> Result<Self, SpoolError> {
        Self::on(store, limit, |writer| Ok(Ops::Here(Arc::new(Mutex::new(writer)))))
    }

    fn own_thread(writer: Writer) -> Result<Ops, SpoolError> {
        let (ops, queue) = mpsc::channel();
        let thread = std::thread::Builder::new().name("wf-spool".to_owned()).spawn(move || writer.run(&queue));
        thread.map_err(|error| SpoolError::Disk(Arc::new(error)))?;
        Ok(Ops::Thread(ops))
    }

    fn on(store: Arc<dyn Store>, limit: u64, start: fn(Writer) -> Result<Ops, SpoolError>) -> Result<Self, SpoolError> {
        let ledger = read(&*store, Ledger::new(limit))?;
        let totals = ledger.totals();
        if totals.batches > 0 {
            let (jobs, batches, unconfirmed) = (totals.jobs, totals.batches, totals.unconfirmed);
            tracing::info!(jobs, batches, unconfirmed, "jobs are in the spool");
        }
        if totals.aside > 0 {
            tracing::warn!(entries = totals.aside, "entries of the spool that cannot be used are aside");
        }
        let shared = Arc::new(Shared { ledger: Mutex::new(ledger), open: RwLock::new(Some(store)), work: Notify::new() });
        let ops = start(Writer::new(shared.clone()))?;
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        Ok(Self(Arc::new(Handle { shared, ops, gate: Gate::new(ROOM), stop, shipping: OnceLock::new(), tasks })))
    }

    /// What it holds.
    pub fn stats(&self) -> SpoolStats {
        let totals = self.0.shared.ledger.lock().totals();
        SpoolStats::new(totals, self.0.shared.oldest())
    }

    /// Takes no more, lets what is on its way to the broker be confirmed for a moment, and lets go of the folder.
    ///
    /// # Errors
    /// When the writer is gone.
    pub async fn close(&self) -> Result<(), SpoolError> {
        self.0.stop.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
        self.tell(Op::Close).await
    }

    /// Ships what is in it through `publisher`, as long as anybody has the spool. The first publisher does it for all.
    pub(crate) fn ship(&self, publisher: Publisher) {
        if self.0.shipping.set(()).is_ok() {
            let shipper = shipper::Shipper::new(self.0.shared.clone(), self.0.ops.clone(), publisher, self.0.stop.clone());
            self.0.tasks.spawn(shipper.run());
        }
    }

    /// Whether something of `lane` waits here, so that what comes now must not overtake it.
    pub(crate) fn waits(&self, lane: &Lane) -> bool {
        self.0.shared.ledger.lock().waits(lane)
    }

    /// How long until `lane` may have room at the broker again, if what waits here does so because it is full there.
    pub(crate) fn full(&self, lane: &Lane) -> Option<Duration> {
        self.0.shared.ledger.lock().full(lane, Instant::now())
    }

    /// Waits until the disk has room for messages of `bytes` in all, behind those that came before.
    pub(crate) async fn enter(&self, messages: usize, bytes: usize) -> Pass {
        self.0.gate.enter(messages, bytes).await
    }

    /// Puts `envelopes`, all or none; durable when this is done. `sent` says that the broker was given them and did
    /// not confirm.
    pub(crate) async fn put(&self, envelopes: Vec<Envelope>, sent: bool) -> Result<(), SpoolError> {
        let weight = envelopes.iter().map(|envelope| entry::weight(envelope.size())).sum();
        self.0.shared.ledger.lock().reserve(weight)?;
        self.tell(|answer| Op::Put { envelopes, sent, answer }).await
    }

    async fn tell(&self, op: impl FnOnce(writer::Answer) -> Op) -> Result<(), SpoolError> {
        tell(&self.0.ops, op).await
    }
}

/// Tells the writer, and waits for its answer.
async fn tell(ops: &Ops, op: impl FnOnce(writer::Answer) -> Op) -> Result<(), SpoolError> {
    let (answer, answered) = oneshot::channel();
    ops.send(op(answer))?;
    answered.await.map_err(|_| SpoolError::Closed)?
}

impl Shared {
    fn store(&self) -> Result<Arc<dyn Store>, SpoolError> {
        self.open.read().clone().ok_or(SpoolError::Closed)
    }

    fn has_room(&self) -> bool {
        self.open.read().as_ref().is_some_and(|store| store.has_room())
    }

    /// Opens the store anew, and reads what it says. Nobody gets at it meanwhile.
    fn reopen(&self) -> Result<(), SpoolError> {
        let open = self.open.write();
        let store = open.as_ref().ok_or(SpoolError::Closed)?;
        store.reopen()?;
        let anew = self.ledger.lock().anew();
        let read = read(&**store, anew)?;
        *self.ledger.lock() = read;
        Ok(())
    }

    /// Closes the store and lets go of the folder.
    fn let_go(&self) {
        self.open.write().take();
    }

    /// When the oldest entry was put here.
    fn oldest(&self) -> Option<wf_schema::Millis> {
        let lanes = self.ledger.lock().lanes();
        let store = self.store().ok()?;
        let first = |lane: &Lane| {
            let prefix = entry::prefix(lane);
            let pairs = store.pairs(Space::Records, &prefix, &prefix, 1).ok()?;
            Record::read(&pairs.first()?.1).ok().map(|record| record.at)
        };
        lanes.iter().take(1_000).filter_map(first).min()
    }

    /// Takes the next entries that are to be shipped, of one lane: some, or when there will be some.
    fn next_page(&self) -> Result<Vec<Taken>, Option<Instant>> {
        let Ok(store) = self.store() else { return Err(None) };
        let (lane, from) = self.ledger.lock().turn(Instant::now())?;
        let prefix = entry::prefix(&lane);
        let from = Slot { lane: lane.clone(), number: from }.key();
        let pairs = match store.pairs(Space::Records, &prefix, &from, PAGE) {
            Ok(pairs) => pairs,
            Err(error) => {
                tracing::error!(lane = %lane, error = &error as &dyn std::error::Error, "the spool cannot be read");
                self.ledger.lock().hold(&lane, Instant::now(), UNREADABLE, false);
                return Ok(Vec::new());
            }
        };
        let mut page = Vec::new();
        let mut bytes = 0;
        for (key, raw) in pairs {
            let Ok(slot) = Slot::read(&key) else { continue };
            if !self.ledger.lock().take(&slot) {
                continue;
            }
            // It may have been removed since it was read; now that it is taken, nobody removes it.
            if !matches!(store.get(Space::Records, &key), Ok(Some(now)) if now == raw) {
                self.ledger.lock().give_back(&slot);
                continue;
            }
            let record = Record::read(&raw);
            let envelope = match &record {
                Ok(record) => load(&*store, &slot, record),
                Err(damage) => Err(*damage),
            };
            bytes += envelope.as_ref().map_or(0, Envelope::size);
            page.push(Taken { slot, record: record.ok(), envelope });
            if bytes >= PAGE_BYTES {
                break;
            }
        }
        Ok(page)
    }
}

/// The most entries, and about the most bytes, that are read at once.
const PAGE: usize = 64;
const PAGE_BYTES: usize = 1 << 20;
/// How long a lane is left alone whose records cannot be read.
const UNREADABLE: Duration = Duration::from_secs(10);

/// An entry that was taken to be shipped.
struct Taken {
    slot: Slot,
    record: Option<Record>,
    envelope: Result<Envelope, Damage>,
}

/// Reads the message of an entry.
fn load(store: &dyn Store, slot: &Slot, record: &Record) -> Result<Envelope, Damage> {
    let bytes: Option<Bytes> = store.get(Space::Messages, &slot.message_key()).unwrap_or_else(|error| {
        tracing::error!(error = &error as &dyn std::error::Error, "a message in the spool cannot be read");
        None
    });
    record.envelope(&slot.lane, bytes.ok_or(Damage::Missing)?)
}

/// Reads what is in a store.
fn read(store: &dyn Store, mut ledger: Ledger) -> Result<Ledger, SpoolError> {
    let each = |space, act: &mut dyn FnMut(&[u8], &[u8])| {
        let mut from = Vec::new();
        loop {
            let pairs = store.pairs(space, &[], &from, 4_096)?;
            pairs.iter().for_each(|(key, value)| act(key, value));
            let Some((last, _)) = pairs.last() else { return Ok::<(), SpoolError>(()) };
            from = [&last[..], &[0]].concat();
        }
    };
    each(Space::Records, &mut |key, value| match (Slot::read(key), Record::read(value)) {
        (Ok(slot), Ok(record)) => ledger.found(&slot, &record),
        // Counted, so that its turn comes and it is set aside.
        (Ok(slot), Err(_)) => ledger.found(&slot, &Record::unreadable()),
        (Err(damage), _) => tracing::error!(%damage, "an entry of the spool cannot be used; it stays where it is"),
    })?;
    let mut aside = 0;
    each(Space::Aside, &mut |key, _| {
        aside += 1;
        // Its message is still there, under its number.
        if let Ok(slot) = Slot::read(key) {
            ledger.skip(slot.number);
        }
    })?;
    ledger.aside(aside);
    Ok(ledger)
}

impl std::fmt::Debug for Spool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Spool").field(&self.0.shared.ledger.lock().totals()).finish()
    }
}
