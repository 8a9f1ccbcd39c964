//! What the broker object, its writer, its sources and their leases share.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::sync::{Semaphore, oneshot};
use wf_schema::BatchId;

use super::EmbeddedOptions;
use super::ended::Ended;
use super::lanes::Lanes;
use super::store::{DiskError, Store};
use super::watchers::Watchers;
use super::writer::{Op, Round, Writer};
use crate::{BrokerError, Cause, Key, Result};

/// How many bytes may wait for the writer; who brings more waits before handing them over.
const WAITING_BYTES: usize = 64 << 20;
/// What anything asked of the writer counts at least.
const LEAST_COST: usize = 256;

/// When to try a full lane again: room comes with every acknowledgement.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(1);

pub(super) struct Core {
    pub(super) options: EmbeddedOptions,
    /// The id of the store: names derived from its sequences are its own.
    pub(super) store_id: BatchId,
    lanes: Mutex<Lanes>,
    /// Tells of changes to the outcome logs.
    pub(super) outcomes: Watchers<BatchId>,
    /// Tells of changes to keyed records.
    pub(super) records: Watchers<Key>,
    /// Gone once the broker is closed, so that its path is free then whoever still holds a delivery.
    store: RwLock<Option<Arc<dyn Store>>>,
    blocks: bool,
    ops: mpsc::Sender<Op>,
    room: Arc<Semaphore>,
}

impl Core {
    pub(super) fn new(
        options: EmbeddedOptions,
        store_id: BatchId,
        lanes: Lanes,
        store: Arc<dyn Store>,
        ops: mpsc::Sender<Op>,
    ) -> Self {
        Self {
            options,
            store_id,
            lanes: Mutex::new(lanes),
            outcomes: Watchers::default(),
            records: Watchers::default(),
            blocks: store.blocks(),
            store: RwLock::new(Some(store)),
            ops,
            room: Arc::new(Semaphore::new(WAITING_BYTES)),
        }
    }

    /// Has the writer do `work`, and gives its result once what it wrote is durable. `cost`: the bytes it holds.
    ///
    /// # Errors
    /// Those of `work`; `Retryable` when the commit failed, as it may or may not have been made; from then on `NoRoom`
    /// until the disk has some, and `Fatal` after any other failure.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        what: &'static str,
        cost: usize,
        work: impl FnOnce(&mut Writer, &mut Round) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let cost = cost.clamp(LEAST_COST, WAITING_BYTES) as u32;
        let room = Arc::clone(&self.room).acquire_many_owned(cost).await.map_err(|_| Ended::Closed.refuse(what))?;
        let (reply, answer) = oneshot::channel();
        let op = Op::Ask(Box::new(move |writer, round| {
            let result = match writer.refusal(what) {
                Some(refusal) => Err(refusal),
                None => round.synced(|round| work(writer, round)),
            };
            round.answer(Box::new(move |committed: Result<(), DiskError>| {
                // Nobody may wait any more: what was asked is done nevertheless.
                let _ = reply.send(match committed {
                    Ok(()) => result,
                    Err(error) => result.and_then(|_| Err(BrokerError::retryable(what, error))),
                });
                drop(room);
            }));
        }));
        self.ops.send(op).map_err(|_| Ended::Closed.refuse(what))?;
        answer.await.unwrap_or_else(|_| Err(Ended::Closed.refuse(what)))
    }

    /// Reads the store, off the caller's thread if that may wait for a disk.
    ///
    /// # Errors
    /// `Fatal` when the store cannot be read or the broker is closed.
    pub(super) async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        what: &'static str,
        read: impl FnOnce(&dyn Store) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        if !self.blocks {
            return self.read_here(what, read);
        }
        let core = Arc::clone(self);
        let read = tokio::task::spawn_blocking(move || core.read_here(what, read));
        read.await.unwrap_or_else(|error| Err(BrokerError::retryable(what, error)))
    }

    /// Reads the store on this thread.
    pub(super) fn read_here<T>(&self, what: &'static str, read: impl FnOnce(&dyn Store) -> Result<T>) -> Result<T> {
        match self.store.read().as_deref() {
            Some(store) => read(store),
            None => Err(Ended::Closed.refuse(what)),
        }
    }

    /// Whether reads may wait for a disk.
    pub(super) fn blocks(&self) -> bool {
        self.blocks
    }

    /// Works on the lanes, and wakes the writer if that made work for it. Never waits for more than the lock.
    pub(super) fn lanes<T>(&self, work: impl FnOnce(&mut Lanes) -> T) -> T {
        let mut lanes = self.lanes.lock();
        let done = work(&mut lanes);
        let must_wake = lanes.must_wake();
        drop(lanes);
        if must_wake {
            self.send(Op::Nudge);
        }
        done
    }

    /// Hands `op` to the writer; after the end, to nobody.
    pub(super) fn send(&self, op: Op) {
        let _ = self.ops.send(op);
    }

    /// Ends all that goes on, and says why to who waits.
    pub(super) fn end(&self, ended: Ended) {
        self.lanes.lock().end(ended);
        self.outcomes.end();
        self.records.end();
    }

    /// Lets go of the store, once nobody reads it.
    pub(super) fn release_store(&self) {
        self.room.close();
        drop(self.store.write().take());
    }
}

/// What cannot be read from the store is not mended by asking again, unless it is closed for a moment.
pub(super) trait OrUnreadable<T> {
    /// The value, or `Fatal`, or `Retryable`.
    fn or_unreadable(self, what: &'static str) -> Result<T>;
}

impl<T, E: Into<Cause>> OrUnreadable<T> for std::result::Result<T, E> {
    fn or_unreadable(self, what: &'static str) -> Result<T> {
        self.map_err(|error| {
            let cause = error.into();
            let closed = cause.downcast_ref().is_some_and(DiskError::is_mendable);
            if closed { BrokerError::retryable(what, cause) } else { BrokerError::fatal(what, cause) }
        })
    }
}
