//! The executor: starts a node, and stops it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::{Handle, Runtime};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use wf_broker::Broker;
use wf_schema::{Lane, Queue};

use crate::drain::DrainReport;
use crate::node::Node;
use crate::{ExecutorError, ExecutorOptions, ExecutorStats, Registry};
use crate::{distance, lane_loop, run_times, surplus};

/// How long batches have, after the deadline of a drain, to settle what is done.
const GRACE: Duration = Duration::from_secs(10);
/// What a lane may take to stop beside the half lease that its broker may need.
const HURRY: Duration = Duration::from_secs(1);

/// Runs the jobs of queues through handlers, until it is drained or dropped.
///
/// Handlers run on the tokio runtime it is started from. Whatever must not wait for them, taking deliveries and
/// renewing them, runs on a thread of the executor's own.
///
/// Dropping it stops everything at once and loses nothing: what was not acknowledged is delivered again when its lease
/// is over. [`Executor::drain`] is the polite way.
pub struct Executor {
    pub(crate) node: Arc<Node>,
    /// The lane loops.
    loops: TaskTracker,
    /// Taken out only when dropped.
    home: Option<Home>,
}

/// Where the parts of an executor run that must not wait for handlers.
enum Home {
    /// On a thread of their own.
    Own(Runtime),
    /// Beside the handlers: for the simulator, where everything is on one thread. Ends with what it keeps.
    Here(Mutex<Vec<AbortOnDropHandle<()>>>),
}

impl Home {
    fn spawn(&self, part: impl Future<Output = ()> + Send + 'static) {
        match self {
            Self::Own(own) => drop(own.spawn(part)),
            Self::Here(parts) => parts.lock().push(AbortOnDropHandle::new(tokio::spawn(part))),
        }
    }
}

impl Executor {
    /// Starts to serve the queues of `options`. What the broker will not do shows in [`Executor::stopped`].
    ///
    /// # Errors
    /// Outside of a tokio runtime, or when a handler was registered for what is no kind.
    pub fn start(broker: Arc<dyn Broker>, registry: Registry, options: ExecutorOptions) -> Result<Self, ExecutorError> {
        let own = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("wf-executor")
            .enable_all()
            .build()
            .map_err(|error| ExecutorError::Threads(Arc::new(error)))?;
        Self::start_at(Home::Own(own), broker, registry, options)
    }

    /// Starts wholly on the caller's runtime: for the simulator, where everything is on one thread. Handlers that block
    /// it keep leases from being renewed.
    ///
    /// # Errors
    /// As [`Executor::start`].
    #[doc(hidden)]
    pub fn start_here(broker: Arc<dyn Broker>, registry: Registry, options: ExecutorOptions) -> Result<Self, ExecutorError> {
        Self::start_at(Home::Here(Mutex::default()), broker, registry, options)
    }

    fn start_at(
        home: Home,
        broker: Arc<dyn Broker>,
        registry: Registry,
        options: ExecutorOptions,
    ) -> Result<Self, ExecutorError> {
        let handlers = Handle::try_current().map_err(|_| ExecutorError::NoRuntime)?;
        let registry = registry.checked()?;
        let queues = options.queues().to_vec();
        let node = Node::new(broker, registry, options, handlers);
        home.spawn(node.renewals.clone().keep());
        home.spawn(distance::measure(node.clone()));
        home.spawn(run_times::share(node.clone()));
        let executor = Self { node, loops: TaskTracker::new(), home: Some(home) };
        queues.into_iter().for_each(|queue| executor.serve(queue));
        Ok(executor)
    }

    /// Serves `queue` too, at all priorities. One that is served already stays as it is; an executor that drains
    /// serves nothing new.
    pub fn serve(&self, queue: Queue) {
        let Some(home) = self.home.as_ref().filter(|_| !self.node.phases.draining.is_cancelled()) else { return };
        for desk in Lane::of(&queue).into_iter().filter_map(|lane| self.node.open(lane)) {
            home.spawn(self.loops.track_future(surplus::watch(self.node.clone(), desk.clone())));
            home.spawn(self.loops.track_future(lane_loop::pull(self.node.clone(), desk)));
        }
    }

    /// From now on fetches and asks for at most `bytes` of messages, over all lanes, in place of what its options say
    /// and within their limits. What it has beyond that is worked off first.
    pub fn prefetch_bytes(&self, bytes: usize) {
        self.node.prefetch_bytes(bytes);
    }

    /// What it has done so far.
    pub fn stats(&self) -> ExecutorStats {
        let busy = self.node.options.slots().saturating_sub(self.node.slots.available_permits());
        self.node.tally.read(busy as u64)
    }

    /// Waits until it has stopped: drained, or by itself.
    ///
    /// # Errors
    /// The reason why it stopped by itself.
    pub async fn stopped(&self) -> Result<(), ExecutorError> {
        self.node.stopped.cancelled().await;
        match self.node.failed.get() {
            Some(error) => Err(ExecutorError::Broker(error.clone())),
            None => Ok(()),
        }
    }

    /// Brings it to an end: starts no more jobs, stops all lanes, gives back what has not started, lets what runs go on
    /// until `deadline` has passed (`None`: that of the options), settles what is done, gives back the rest, and waits
    /// until the broker has confirmed it all. Takes ten seconds and a lease and a half longer than the deadline, at the
    /// very most.
    pub async fn drain(&self, deadline: impl Into<Option<Duration>>) -> DrainReport {
        let node = &self.node;
        let (began, before) = (Instant::now(), self.stats());
        let deadline = node.begin_drain(began + deadline.into().unwrap_or(node.options.deadline()));
        // First the lanes, so that no delivery comes after the runs were counted, and nothing that is given back comes
        // right back here.
        self.loops.close();
        if timeout(node.broker.lease() / 2 + HURRY, self.loops.wait()).await.is_err() {
            tracing::warn!(lanes = node.lanes.open(), "some lanes do not stop");
        }
        let unstopped = node.lanes.unsure.load(Ordering::Acquire) + node.lanes.open() as u64;
        node.renewals.unpark();
        node.runs.close();
        let mut abandoned = 0;
        if timeout_at(deadline, node.runs.wait()).await.is_err() {
            let batches = node.runs.len();
            if batches > 0 {
                tracing::info!(batches, "the deadline has passed: what is done is settled, the rest given back");
            }
            node.phases.overtime.cancel();
            if timeout(GRACE, node.runs.wait()).await.is_err() {
                abandoned = node.runs.len() as u64;
                node.phases.gone.cancel();
            }
        }
        let confirmed = match timeout(node.broker.lease(), node.broker.settled()).await {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "not all acknowledgements are confirmed");
                false
            }
            Err(_) => false,
        };
        node.stopped.cancel();
        let stats = self.stats();
        DrainReport {
            finished: stats.acked - before.acked,
            released: stats.released - before.released + node.lanes.untaken.load(Ordering::Acquire),
            abandoned,
            unstopped,
            confirmed,
            took: began.elapsed(),
        }
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        self.node.phases.draining.cancel();
        self.node.phases.gone.cancel();
        self.node.stopped.cancel();
        if let Some(Home::Own(own)) = self.home.take() {
            // Waiting for it would block, which an async caller must not.
            own.shutdown_background();
        }
    }
}

impl fmt::Debug for Executor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Executor").field("name", &self.node.options.name()).field("stats", &self.stats()).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use bytes::Bytes;
    use futures::FutureExt as _;
    use wf_broker::{Delivery, Embedded, EmbeddedOptions};
    use wf_schema::{BatchId, RunId};

    use super::*;
    use crate::charge::Charge;
    use crate::desk::Desk;
    use crate::model::NoLease;

    const KIB: usize = 1024;

    /// Takes deliveries of 32 KiB and is quick with each, until the credit follows a change: the most that is left of
    /// it then. `granted` is what was left before.
    fn most_granted(node: &Arc<Node>, desk: &Arc<Desk>, granted: &mut usize) -> usize {
        let delivery = Delivery {
            lane: desk.lane.clone(),
            id: "".into(),
            bytes: Bytes::from(vec![0; 32 * KIB]),
            run: RunId::new('t', 1),
            delivered: 1,
            fallback_id: BatchId::from(1),
            stored_at: 0,
            fired: None,
            lease: Arc::new(NoLease),
        };
        let mut most = 0;
        for round in 0..2_000 {
            while let Some(change) = desk.changed().now_or_never() {
                *granted += change.grant.bytes;
            }
            if round >= 1_000 {
                most = most.max(*granted);
            }
            let mut charge = Charge::new(node.clone(), desk.clone(), &delivery);
            charge.open(1, true);
            charge.started();
            charge.ran(Duration::from_micros(1));
            *granted = granted.saturating_sub(delivery.bytes.len());
        }
        most
    }

    #[tokio::test]
    async fn the_bytes_fetched_ahead_can_be_changed_while_it_runs() {
        let broker = Embedded::memory(EmbeddedOptions::default()).unwrap();
        let options = ExecutorOptions::new("x").unwrap().serving([]).prefetch_bytes(2048 * KIB).unwrap();
        let node = Node::new(broker, Registry::new(), options, Handle::current());
        // Without its threads: nothing else measures or books.
        let executor = Executor { node, loops: TaskTracker::new(), home: None };
        let desk = executor.node.open(Lane::default()).unwrap();
        let mut granted = 0;
        let mut most = || {
            // So far away that only the bytes limit what is fetched.
            executor.node.set_distance(Duration::from_secs(100));
            most_granted(&executor.node, &desk, &mut granted)
        };
        for (asked, least, limit) in [(None, 1_800, 2_048), (Some(8_192), 7_500, 8_192), (Some(512), 400, 512), (Some(0), 16, 64)]
        {
            // What is outside of the limits is brought inside.
            asked.into_iter().for_each(|asked| executor.prefetch_bytes(asked * KIB));
            let most = most() / KIB;
            assert!((least..=limit).contains(&most), "{most} KiB are granted where {limit} may be");
        }
    }
}
