//! Carries batches: runs the batcher's clock, publishes what it closes, and settles the receipts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wf_schema::{BatchId, now};

use super::Pace;
use crate::batcher::{Batcher, Closed, Moment};
use crate::receipt::Duty;
use crate::{EnqueueError, ProducerOptions, PublishError, Published, Publisher, Receipt};

/// How long one that found no room is asked to wait.
const NO_ROOM: Duration = Duration::from_secs(1);

pub(crate) struct Carrier {
    pub(super) batcher: Mutex<Batcher<Receipt>>,
    pub(super) publisher: Publisher,
    pub(super) options: ProducerOptions,
    /// A batch has left, so that there is room again: who is at the turnstile may look.
    pub(super) room: Notify,
    /// Callers that found no room stand here, one behind the other.
    pub(super) turnstile: tokio::sync::Mutex<()>,
    /// How many there are.
    pub(super) waiting: AtomicUsize,
    pub(super) closing: CancellationToken,
    /// A deadline was set, the first for now.
    alarm: Notify,
    epoch: Instant,
    runtime: Handle,
    /// One task for each batch on its way, and the clock.
    tasks: TaskTracker,
    /// The batches on their way, for who wants to wait for all of them.
    on_their_way: Mutex<BTreeMap<BatchId, Receipt>>,
}

impl Carrier {
    pub(super) fn start(publisher: Publisher, options: ProducerOptions, closing: CancellationToken) -> Arc<Self> {
        let carrier = Arc::new(Self {
            batcher: Mutex::new(Batcher::new(options.batch.clone(), options.room, BatchId::new)),
            publisher,
            options,
            room: Notify::new(),
            turnstile: tokio::sync::Mutex::default(),
            waiting: AtomicUsize::new(0),
            closing,
            alarm: Notify::new(),
            epoch: Instant::now(),
            runtime: Handle::current(),
            tasks: TaskTracker::new(),
            on_their_way: Mutex::default(),
        });
        carrier.tasks.spawn(carrier.clone().clock());
        carrier
    }

    pub(super) fn publisher(&self) -> &Publisher {
        &self.publisher
    }

    pub(super) fn options(&self) -> &ProducerOptions {
        &self.options
    }

    pub(super) fn set_pace(self: &Arc<Self>, pace: &Pace) {
        self.publisher.gate().resize(pace.window);
        let now = self.epoch.elapsed();
        self.with(|batcher| batcher.set_pace(pace.linger, pace.wire_bytes, pace.room, now));
        // Deadlines may be nearer than before, and there may be room.
        self.alarm.notify_one();
        self.room.notify_one();
    }

    pub(super) fn most_held(&self) -> usize {
        self.batcher.lock().most_held()
    }

    pub(super) fn moment(&self) -> Moment {
        Moment { clock: self.epoch.elapsed(), wall: now() }
    }

    /// Does something with the batcher, and then what follows from it.
    pub(super) fn with<T>(self: &Arc<Self>, act: impl FnOnce(&mut Batcher<Receipt>) -> T) -> T {
        let (value, ready, alarm) = {
            let mut batcher = self.batcher.lock();
            let before = batcher.deadline();
            let value = act(&mut batcher);
            (value, batcher.take_ready(), before.is_none() && batcher.deadline().is_some())
        };
        // Deadlines come in order, so only the first of all can be nearer than what the clock waits for.
        if alarm {
            self.alarm.notify_one();
        }
        for closed in ready {
            self.on_their_way.lock().insert(closed.batch.header().id, closed.receipt.clone());
            self.tasks.spawn_on(self.clone().carry(closed), &self.runtime);
        }
        value
    }

    /// One batch, from closed to answered.
    async fn carry(self: Arc<Self>, closed: Closed<Receipt>) {
        let Closed { place, batch, receipt, held } = closed;
        let duty = Duty(receipt);
        let (id, raw, jobs) = (batch.header().id, batch.raw_len(), batch.len());
        let sending = match place.due {
            None => self.publisher.send(place.lane.clone(), &batch).await,
            Some(due) => self.publisher.send_at(place.lane.clone(), due, &batch).await,
        };
        drop(batch);
        // It is inside the window: its place in front of the window is free.
        self.batcher.lock().left(held);
        self.room.notify_one();
        let published = match sending {
            Ok(sending) => sending.await,
            Err(error) => Err(error),
        };
        let sizes = published.as_ref().ok().map(|published| (raw, published.wire_bytes));
        let stored = published.as_ref().map(Published::stored).unwrap_or_default();
        if let Err(error) = &published {
            let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
            tracing::warn!(batch = %id, lane = %place.lane, jobs, error = %error, cause, "a batch was not stored");
        }
        duty.settle(published.map(|_| stored).map_err(EnqueueError::from));
        self.on_their_way.lock().remove(&id);
        self.with(|batcher| batcher.arrived(&place, sizes));
    }

    /// Wakes when an open batch has lingered long enough, until nobody can give jobs any more.
    async fn clock(self: Arc<Self>) {
        loop {
            let deadline = self.batcher.lock().deadline();
            let sleep = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(self.epoch + deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = self.closing.cancelled() => break,
                // Before the sleep, which may wait for the wrong moment now. It is given once for each first deadline, so
                // it keeps nothing from its turn.
                () = self.alarm.notified() => {}
                () = sleep => {
                    let now = self.epoch.elapsed();
                    self.with(|batcher| batcher.tick(now));
                }
            }
        }
        self.with(Batcher::close_all);
    }

    pub(super) async fn flush(self: &Arc<Self>) -> Result<(), EnqueueError> {
        self.with(Batcher::close_all);
        let receipts: Vec<Receipt> = self.on_their_way.lock().values().cloned().collect();
        let mut first = Ok(());
        for receipt in receipts {
            first = first.and(receipt.stored().await.map(drop));
        }
        first
    }

    pub(super) async fn close(self: &Arc<Self>) -> Result<(), EnqueueError> {
        self.closing.cancel();
        let flushed = self.flush().await;
        self.tasks.close();
        self.tasks.wait().await;
        flushed
    }

    /// Why there is no room: the broker cannot be reached, or it is slower than what comes in.
    pub(super) fn no_room(&self) -> EnqueueError {
        match self.publisher.trouble() {
            // Not given to anybody: it is certain that they are not stored.
            Some(error) => PublishError::Unreachable { retry_after: NO_ROOM, source: Some(error) }.into(),
            None => EnqueueError::Busy { retry_after: NO_ROOM },
        }
    }
}
