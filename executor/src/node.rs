//! What the parts of an executor share.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wf_broker::{Broker, BrokerError, Delivery};
use wf_schema::Lane;

use crate::credit::{Credit, Grant, LaneId};
use crate::drain::Phases;
use crate::renew::Renewals;
use crate::run;
use crate::stats::{Tally, count_up};
use crate::{ExecutorOptions, Registry};

/// One executor's node.
pub(crate) struct Node {
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) registry: Registry,
    pub(crate) options: ExecutorOptions,
    /// One for each job that may run at once, over all batches and lanes.
    pub(crate) slots: Arc<Semaphore>,
    pub(crate) renewals: Arc<Renewals>,
    pub(crate) tally: Tally,
    pub(crate) phases: Phases,
    /// The tasks that run batches.
    pub(crate) runs: TaskTracker,
    /// Where handlers run.
    handlers: Handle,
    desks: Mutex<Desks>,
    /// Set once the node has stopped: why, if it was not asked to.
    pub(crate) failed: OnceLock<Arc<BrokerError>>,
    pub(crate) stopped: CancellationToken,
}

/// The lanes served, in the order of their accounts.
struct Desks {
    credit: Credit,
    lanes: Vec<Arc<Desk>>,
}

/// One lane being served.
pub(crate) struct Desk {
    pub(crate) lane: Lane,
    id: LaneId,
    /// Who may start jobs of this lane's batches: few at a time, in the order they came, so that batches are either
    /// done soon or untouched and free to go elsewhere. As many as there are cores, for handlers that compute.
    pub(crate) turns: Arc<Semaphore>,
    granted: Mutex<Grant>,
    news: Notify,
}

impl Node {
    pub(crate) fn new(broker: Arc<dyn Broker>, registry: Registry, options: ExecutorOptions, handlers: Handle) -> Arc<Self> {
        let (bytes, work) = options.budget();
        Arc::new(Self {
            broker,
            registry,
            slots: Arc::new(Semaphore::new(options.slots())),
            renewals: Arc::new(Renewals::default()),
            tally: Tally::default(),
            phases: Phases::default(),
            runs: TaskTracker::new(),
            handlers,
            desks: Mutex::new(Desks { credit: Credit::new(bytes, work, options.slots()), lanes: Vec::new() }),
            failed: OnceLock::new(),
            stopped: CancellationToken::new(),
            options,
        })
    }

    /// Opens a desk for `lane`; `None` if there is one.
    pub(crate) fn open(&self, lane: Lane) -> Option<Arc<Desk>> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let mut desks = self.desks.lock();
        if desks.lanes.iter().any(|desk| desk.lane == lane) {
            return None;
        }
        let desk = Arc::new(Desk {
            id: desks.credit.add(lane.priority.weight()),
            lane,
            turns: Arc::new(Semaphore::new(cores.min(self.options.slots()))),
            granted: Mutex::default(),
            news: Notify::new(),
        });
        desks.lanes.push(desk.clone());
        Some(desk)
    }

    /// Hands out whatever credit there is.
    pub(crate) fn dispatch(&self) {
        self.account(|_| ());
    }

    /// Books something, and hands out the credit that it frees.
    pub(crate) fn account(&self, book: impl FnOnce(&mut Credit)) {
        let mut desks = self.desks.lock();
        book(&mut desks.credit);
        for (id, grant) in desks.credit.grants() {
            if let Some(desk) = desks.lanes.iter().find(|desk| desk.id == id) {
                let mut granted = desk.granted.lock();
                granted.messages += grant.messages;
                granted.bytes += grant.bytes;
                desk.news.notify_one();
            }
        }
    }

    /// How long `jobs` of `each` take with all slots at work.
    pub(crate) fn estimate(&self, jobs: usize, each: Duration) -> Duration {
        self.desks.lock().credit.estimate(jobs, each)
    }

    /// Takes charge of a delivery: it is renewed from now on, and run in a task of its own.
    pub(crate) fn take(self: &Arc<Self>, desk: &Arc<Desk>, delivery: Delivery) {
        count_up(&self.tally.deliveries, 1);
        count_up(&self.tally.redeliveries, u64::from(delivery.delivered > 1));
        let charge = Charge::new(self.clone(), desk.clone(), delivery.bytes.len());
        let Some(held) = self.renewals.hold(&delivery) else {
            tracing::info!(run = %delivery.run, "the broker delivered a batch again that runs here");
            return;
        };
        self.runs.spawn_on(run::run(self.clone(), delivery, held, charge), &self.handlers);
    }

    /// Stops for a reason that will not go away.
    pub(crate) fn fail(&self, error: BrokerError) {
        tracing::error!(error = &error as &dyn std::error::Error, "the executor stops");
        // The first reason is the one to tell.
        let _ = self.failed.set(Arc::new(error));
        self.phases.drain(tokio::time::Instant::now() + self.options.deadline());
        self.stopped.cancel();
    }
}

impl Desk {
    /// The credit to pass on, as it comes. Cancel safe.
    pub(crate) async fn granted(&self) -> Grant {
        self.news.notified().await;
        std::mem::take(&mut *self.granted.lock())
    }
}

/// What an owned delivery takes of the node's budget; given back when dropped.
pub(crate) struct Charge {
    node: Arc<Node>,
    pub(crate) desk: Arc<Desk>,
    bytes: usize,
    waiting: bool,
    busy: Option<Duration>,
}

impl Charge {
    fn new(node: Arc<Node>, desk: Arc<Desk>, bytes: usize) -> Self {
        node.account(|credit| credit.delivered(desk.id, bytes));
        Self { node, desk, bytes, waiting: true, busy: None }
    }

    /// All jobs have started, or never will.
    pub(crate) fn started(&mut self) {
        if std::mem::take(&mut self.waiting) {
            self.node.account(|credit| credit.started(self.desk.id));
        }
    }

    /// The jobs took `busy` in all.
    pub(crate) fn ran(&mut self, busy: Duration) {
        self.busy = Some(busy);
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.node.account(|credit| {
            if self.waiting {
                credit.started(self.desk.id);
            }
            credit.finished(self.desk.id, self.bytes, self.busy);
        });
    }
}
