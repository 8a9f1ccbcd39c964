//! What the parts of an executor share.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wf_broker::{Broker, BrokerError, Delivery};
use wf_schema::Lane;

use crate::charge::Charge;
use crate::credit::{Credit, LaneId};
use crate::desk::Desk;
use crate::drain::{Lanes, Phases};
use crate::renew::Renewals;
use crate::run;
use crate::run_times::RunTimes;
use crate::stats::{Tally, count_up};
use crate::{ExecutorOptions, Registry};

/// One executor's node.
pub(crate) struct Node {
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) registry: Registry,
    pub(crate) options: ExecutorOptions,
    /// One for each job that may run at once, over all batches and lanes.
    pub(crate) slots: Arc<Semaphore>,
    /// For batches whose records are being read before their turn, by their size.
    pub(crate) lookups: Semaphore,
    /// One: for the jobs that something is known against, of whatever batch.
    pub(crate) suspects: Arc<Semaphore>,
    /// What all records that this node writes have in common, and no other node's.
    token: u32,
    /// The jobs that could be begun if there were slots.
    unstarted: AtomicUsize,
    /// A round trip to the broker, in microseconds.
    distance: AtomicU64,
    pub(crate) renewals: Arc<Renewals>,
    pub(crate) run_times: RunTimes,
    pub(crate) tally: Tally,
    pub(crate) phases: Phases,
    pub(crate) lanes: Lanes,
    /// The tasks that run batches.
    pub(crate) runs: TaskTracker,
    /// Where handlers run.
    handlers: Handle,
    desks: Mutex<Desks>,
    /// What the credit's times count from.
    began: Instant,
    /// Set once the node has stopped: why, if it was not asked to.
    pub(crate) failed: OnceLock<Arc<BrokerError>>,
    pub(crate) stopped: CancellationToken,
}

/// The lanes served, in the order of their accounts.
struct Desks {
    credit: Credit,
    lanes: Vec<Arc<Desk>>,
}

impl Node {
    pub(crate) fn new(broker: Arc<dyn Broker>, registry: Registry, options: ExecutorOptions, handlers: Handle) -> Arc<Self> {
        let (bytes, work) = options.budget();
        let lease = broker.lease();
        let credit = Credit::new(bytes, work, options.slots());
        Arc::new(Self {
            broker,
            registry,
            slots: Arc::new(Semaphore::new(options.slots())),
            lookups: Semaphore::new(run::LOOKUP_UNITS as usize),
            suspects: Arc::new(Semaphore::new(1)),
            token: fastrand::u32(..),
            unstarted: AtomicUsize::new(0),
            distance: AtomicU64::new(0),
            renewals: Arc::new(Renewals::new(lease)),
            run_times: RunTimes::default(),
            tally: Tally::default(),
            phases: Phases::default(),
            lanes: Lanes::default(),
            runs: TaskTracker::new(),
            handlers,
            desks: Mutex::new(Desks { credit, lanes: Vec::new() }),
            began: Instant::now(),
            failed: OnceLock::new(),
            stopped: CancellationToken::new(),
            options,
        })
    }

    /// Opens a desk for `lane`; `None` if there is one.
    pub(crate) fn open(&self, lane: Lane) -> Option<Arc<Desk>> {
        let mut desks = self.desks.lock();
        if desks.lanes.iter().any(|desk| desk.lane == lane) {
            return None;
        }
        let id = desks.credit.add(lane.priority.weight());
        let desk = Arc::new(Desk::new(lane, id, self.options.lane_turns()));
        desks.lanes.push(desk.clone());
        Some(desk)
    }

    /// A token for one who writes records here.
    pub(crate) fn writer(&self) -> u64 {
        u64::from(self.token) << 32 | u64::from(fastrand::u32(..))
    }

    /// Whether `writer` was made here.
    pub(crate) fn is_own(&self, writer: u64) -> bool {
        writer >> 32 == u64::from(self.token)
    }

    /// Hands out whatever credit there is.
    pub(crate) fn dispatch(&self) {
        self.account(|_, _| ());
    }

    /// Books something at this time, and hands out the credit that it frees.
    pub(crate) fn account(&self, book: impl FnOnce(&mut Credit, Duration)) {
        let at = self.began.elapsed();
        let mut desks = self.desks.lock();
        book(&mut desks.credit, at);
        let free = self.slots.available_permits().saturating_sub(self.unstarted.load(Ordering::Relaxed));
        for (id, grant) in desks.credit.grants(free, at) {
            if let Some(desk) = desks.lanes.iter().find(|desk| desk.id == id) {
                desk.grant(grant);
            }
        }
    }

    /// Whether a batch of the lane will have begun its `unstarted` jobs before the next could come; see
    /// [`Credit::is_ending`].
    pub(crate) fn is_ending(&self, lane: LaneId, unstarted: usize, paced: Option<Duration>) -> bool {
        self.desks.lock().credit.is_ending(lane, unstarted, paced)
    }

    /// Of a batch so many jobs could not be begun `before`, and `after`.
    pub(crate) fn count_unstarted(&self, before: usize, after: usize) {
        match after.checked_sub(before) {
            Some(more) => self.unstarted.fetch_add(more, Ordering::Relaxed),
            None => self.unstarted.fetch_sub(before - after, Ordering::Relaxed),
        };
    }

    /// A round trip to the broker takes this long.
    pub(crate) fn set_distance(&self, distance: Duration) {
        self.distance.store(u64::try_from(distance.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.account(|credit, _| credit.set_distance(distance));
    }

    /// How long a round trip to the broker takes.
    pub(crate) fn distance(&self) -> Duration {
        Duration::from_micros(self.distance.load(Ordering::Relaxed))
    }

    /// Takes back what `desk` was granted and has not come.
    pub(crate) fn withdraw(&self, desk: &Desk) {
        self.account(|credit, _| {
            credit.withdraw(desk.id);
            // Under the lock, so that no later grant is withdrawn.
            desk.withdraw();
        });
    }

    /// Whether `desk` waits for more from its broker, and how long one of its messages keeps the node at work, if that
    /// is known.
    pub(crate) fn outlook(&self, desk: &Desk) -> (bool, Option<Duration>) {
        let at = self.began.elapsed();
        let desks = self.desks.lock();
        (desks.credit.asks(desk.id), desks.credit.message_time(desk.id, at))
    }

    /// How long `jobs` of `each` take with all slots at work.
    pub(crate) fn estimate(&self, jobs: usize, each: Duration) -> Duration {
        self.desks.lock().credit.estimate(jobs, each)
    }

    /// Takes charge of a delivery: it is renewed from now on, and run in a task of its own.
    pub(crate) fn take(self: &Arc<Self>, desk: &Arc<Desk>, delivery: Delivery) {
        count_up(&self.tally.deliveries, 1);
        count_up(&self.tally.redeliveries, u64::from(delivery.delivered > 1));
        let charge = Charge::new(self.clone(), desk.clone(), &delivery);
        let Some(held) = self.renewals.hold(&delivery) else {
            tracing::info!(run = %delivery.run, "the broker delivered a batch again that runs here");
            return;
        };
        self.runs.spawn_on(run::run(self.clone(), delivery, held, charge), &self.handlers);
    }

    /// Begins to drain, until `deadline` or the one that was set before: the deadline that holds.
    pub(crate) fn begin_drain(&self, deadline: Instant) -> Instant {
        // Before anybody hears of it and gives something back.
        if self.lanes.open() > 0 {
            self.renewals.park();
        }
        self.phases.drain(deadline)
    }

    /// Stops for a reason that will not go away.
    pub(crate) fn fail(&self, error: BrokerError) {
        tracing::error!(error = &error as &dyn std::error::Error, "the executor stops");
        // The first reason is the one to tell.
        let _ = self.failed.set(Arc::new(error));
        self.begin_drain(Instant::now() + self.options.deadline());
        self.stopped.cancel();
    }
}
