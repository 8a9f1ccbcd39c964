//! Whether the broker can be reached, for everybody who wants something of it.
//!
//! While it cannot, nobody waits in vain: jobs go to the spool, or their callers are told at once to come back. One
//! probe at a time finds out when it can be reached again.

mod circuit;
mod flag;

use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use wf_broker::{Broker, BrokerError};

use circuit::Circuit;
use flag::Flag;

/// How long a probe may take.
const PROBE: Duration = Duration::from_secs(3);

/// What a probe comes to: how long the broker took to answer, or why it did not.
type Answer = Result<Duration, Arc<BrokerError>>;

/// See the module. Cheap to clone; clones are the same breaker. It ends with the last of them.
#[derive(Clone)]
pub(crate) struct Breaker(Arc<Shared>);

struct Shared {
    circuit: Mutex<Circuit>,
    open: Flag,
    broker: Arc<dyn Broker>,
    /// Held by who probes: when the last probe ended, and what it came to.
    probing: tokio::sync::Mutex<Option<(Instant, Answer)>>,
    /// Why the last probe was not answered, if it was not.
    failure: Mutex<Option<Arc<BrokerError>>>,
    /// The circuit's next deadline may be nearer than before, or nobody has the breaker any more.
    alarm: Arc<Notify>,
}

/// Something that is asked of the broker. Dropped, nobody waits for the answer any more.
pub(crate) struct Asking<'a> {
    breaker: &'a Breaker,
    told: bool,
}

impl Breaker {
    /// Opens once nothing is heard of `broker` for `after`, while something is asked of it. Must be called inside a
    /// tokio runtime.
    pub(crate) fn new(broker: Arc<dyn Broker>, after: Duration) -> Self {
        let shared = Arc::new(Shared {
            circuit: Mutex::new(Circuit::new(after)),
            open: Flag::default(),
            broker,
            probing: tokio::sync::Mutex::default(),
            failure: Mutex::default(),
            alarm: Arc::default(),
        });
        tokio::spawn(attend(Arc::downgrade(&shared), shared.alarm.clone()));
        Self(shared)
    }

    /// Whether the broker counts as unreachable.
    pub(crate) fn is_open(&self) -> bool {
        self.0.open.is_up()
    }

    /// How long it has been open, if it is, and how long it will be until the next probe.
    pub(crate) fn outage(&self) -> Option<(Duration, Duration)> {
        let (circuit, now) = (self.0.circuit.lock(), Instant::now());
        let (since, probe_at) = (circuit.open_since()?, circuit.probe_at()?);
        Some((now.duration_since(since), probe_at.saturating_duration_since(now)))
    }

    /// Waits until it is open.
    pub(crate) async fn opened(&self) {
        self.0.open.wait(true).await;
    }

    /// Waits until it is closed.
    pub(crate) async fn closed(&self) {
        self.0.open.wait(false).await;
    }

    /// Says that something is asked of the broker.
    pub(crate) fn ask(&self) -> Asking<'_> {
        let first = self.0.change(|circuit| {
            let before = circuit.deadline();
            circuit.begins(Instant::now());
            before.is_none()
        });
        if first {
            self.0.alarm.notify_one();
        }
        Asking { breaker: self, told: false }
    }

    /// Asks the broker whether it is there: how long its answer took. Who comes while somebody asks shares the answer.
    pub(crate) async fn probe(&self) -> Answer {
        self.0.probe(PROBE).await
    }

    /// Why the last probe was not answered, if it was not.
    pub(crate) fn failure(&self) -> Option<Arc<BrokerError>> {
        self.0.failure.lock().clone()
    }
}

impl Asking<'_> {
    /// The broker answered, well or not.
    pub(crate) fn answered(mut self) {
        self.told = true;
        self.breaker.0.change(|circuit| circuit.answered(Instant::now()));
    }

    /// It did not.
    pub(crate) fn failed(mut self) {
        self.told = true;
        self.breaker.0.change(|circuit| circuit.failed(Instant::now(), fastrand::f64()));
        self.breaker.0.alarm.notify_one();
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        if !self.told {
            self.breaker.0.change(Circuit::forgotten);
        }
    }
}

impl Shared {
    /// Changes the circuit, and tells everybody if it opened or closed by that.
    fn change<T>(&self, act: impl FnOnce(&mut Circuit) -> T) -> T {
        let mut circuit = self.circuit.lock();
        let value = act(&mut circuit);
        let open = circuit.is_open();
        // Under the lock, so that the last to be told is what holds.
        let changed = self.open.set(open);
        drop(circuit);
        if changed && open {
            tracing::warn!("the broker cannot be reached");
        } else if changed {
            tracing::info!("the broker can be reached again");
        }
        value
    }

    async fn probe(&self, patience: Duration) -> Answer {
        let came = Instant::now();
        let mut last = self.probing.lock().await;
        if let Some((_, answer)) = last.as_ref().filter(|(ended, _)| *ended > came) {
            return answer.clone();
        }
        let answer = match tokio::time::timeout(patience, self.broker.ping()).await {
            Ok(answer) => answer.map_err(Arc::new),
            Err(late) => Err(Arc::new(BrokerError::retryable("answer a ping", late))),
        };
        *self.failure.lock() = answer.as_ref().err().cloned();
        let heard = !answer.as_ref().is_err_and(|error| error.is_retryable());
        self.change(|circuit| circuit.probed(Instant::now(), heard, fastrand::f64()));
        *last = Some((Instant::now(), answer.clone()));
        answer
    }
}

/// Opens the breaker when it is time to, and probes while it is open, as long as anybody has it.
async fn attend(breaker: Weak<Shared>, alarm: Arc<Notify>) {
    loop {
        let Some(shared) = breaker.upgrade() else { return };
        let now = Instant::now();
        let (doubt, deadline, probe_at) = {
            let mut circuit = shared.circuit.lock();
            (circuit.doubt(now), circuit.deadline(), circuit.probe_at())
        };
        if let Some(patience) = doubt.or(probe_at.filter(|at| *at <= now).map(|_| PROBE)) {
            // What it says is noted there.
            drop(shared.probe(patience.min(PROBE)).await);
            continue;
        }
        if deadline.is_some_and(|at| at <= now) {
            shared.change(|circuit| circuit.tick(now, fastrand::f64()));
            continue;
        }
        // Not kept while this sleeps.
        drop(shared);
        match deadline.into_iter().chain(probe_at).min() {
            Some(at) => tokio::select! {
                biased;
                () = alarm.notified() => {}
                () = tokio::time::sleep_until(at) => {}
            },
            None => alarm.notified().await,
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.alarm.notify_one();
    }
}

impl std::fmt::Debug for Breaker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Breaker").field(&*self.0.circuit.lock()).finish()
    }
}
