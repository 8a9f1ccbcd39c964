//! The profile `auto`: measures the link to the broker all the time, and keeps what depends on it in step.
//!
//! The publish window, the prefetch, and how jobs are gathered follow the link without a restart. What a connection was
//! made with does not; it suits every link. What the factory shares is never touched.

mod choice;
mod measure;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;
use wf_broker::link::Link;
use wf_broker::{BrokerError, Window};
use wf_executor::Executor;
use wf_ingest::{Producer, Publisher};
use wf_nats::NatsBroker;
use wf_schema::config::Loader;

pub use choice::Tuning;

use choice::Chooser;
use measure::{Mark, measure_anew, measure_at_start};

/// Between two looks at a link in use, and at one that is quiet.
const LOOK: Duration = Duration::from_millis(250);
const LOOK_AT_QUIET: Duration = Duration::from_secs(2);

/// How long to wait, at the least and at the most, before a link is measured anew with its windows nearly closed.
const ANEW: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(60));

/// The part of the windows that is left open meanwhile: less than the link has on its way.
const NEARLY_CLOSED: usize = 4;

/// Keeps the parts of a process in step with its link. Cheap to clone; the last clone that is dropped ends it.
///
/// One for a fixed profile, or a broker inside the process, is [`Tuner::idle`]: it takes parts, and does nothing. One
/// whose link is not there yet takes them too, and begins with it.
#[derive(Clone, Default)]
pub struct Tuner(Option<Arc<Followers>>);

#[derive(Default)]
struct Followers {
    parts: Arc<Mutex<Vec<Part>>>,
    /// Since there is a link.
    running: OnceLock<Running>,
}

struct Running {
    shared: Arc<Shared>,
    _following: AbortOnDropHandle<()>,
}

/// What is known of the link, and what was chosen for it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Tuned {
    /// The link, as it was when that was chosen.
    pub link: Link,
    /// What was chosen.
    pub tuning: Tuning,
}

struct Shared {
    broker: Arc<NatsBroker>,
    chooser: Chooser,
    parts: Arc<Mutex<Vec<Part>>>,
    tuned: watch::Sender<Tuned>,
}

/// Something that follows: whether it is still there.
type Part = Box<dyn Fn(&Tuning) -> bool + Send + Sync>;

impl Tuner {
    /// One that does nothing.
    pub fn idle() -> Self {
        Self(None)
    }

    /// One whose link is not there yet.
    pub(crate) fn waiting() -> Self {
        Self(Some(Arc::default()))
    }

    /// Measures the link of `broker`, chooses what suits it, within the bounds that `loader` knows, and goes on doing
    /// so. One that is idle stays so.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub(crate) async fn begin(&self, broker: Arc<NatsBroker>, loader: &Loader) -> Result<(), BrokerError> {
        let Some(followers) = &self.0 else { return Ok(()) };
        let chooser = Chooser::new(loader);
        let link = measure_at_start(&broker).await?;
        // There is none only if no profile goes together with what was set, with which nobody gets as far as this.
        let Some(tuning) = chooser.better(&link, None) else { return Ok(()) };
        tracing::info!(link = %link, chosen = %tuning, "measured the link");
        let tuned = watch::Sender::new(Tuned { link, tuning });
        let shared = Arc::new(Shared { broker, chooser, parts: followers.parts.clone(), tuned });
        let following = AbortOnDropHandle::new(tokio::spawn(follow(shared.clone())));
        followers.running.get_or_init(|| Running { shared: shared.clone(), _following: following });
        // Last: parts that came before are told now, and those that come from now on see that it runs.
        shared.apply(&tuning);
        Ok(())
    }

    /// Lets `publisher` follow.
    pub fn publisher(&self, publisher: &Publisher) {
        let gate = publisher.gate().downgrade();
        self.follows(move |tuning| gate.resize(tuning.pace().window));
    }

    /// Lets `producer` follow.
    pub fn producer(&self, producer: &Producer) {
        let pace = producer.pace_setter();
        self.follows(move |tuning| pace.set(&tuning.pace()));
    }

    /// Lets `executor` follow.
    pub fn executor(&self, executor: &Executor) {
        let prefetch = executor.prefetch();
        self.follows(move |tuning| prefetch.set_bytes(tuning.prefetch_bytes));
    }

    /// What was measured and chosen, now and from now on; `None` of one that is idle, or has no link yet.
    pub fn watch(&self) -> Option<watch::Receiver<Tuned>> {
        self.running().map(|running| running.shared.tuned.subscribe())
    }

    fn follows(&self, part: impl Fn(&Tuning) -> bool + Send + Sync + 'static) {
        let Some(followers) = &self.0 else { return };
        let mut parts = followers.parts.lock();
        // Under the lock, so that it misses no change.
        if let Some(Running { shared, .. }) = followers.running.get() {
            part(&shared.tuned.borrow().tuning);
        }
        parts.push(Box::new(part));
    }

    fn running(&self) -> Option<&Running> {
        self.0.as_ref()?.running.get()
    }
}

impl Shared {
    fn apply(&self, tuning: &Tuning) {
        self.broker.window().resize(tuning.window);
        self.parts.lock().retain(|part| part(tuning));
    }

    /// Takes `tuning` into force, and says so.
    fn change(&self, link: &Link, tuning: Tuning) {
        self.tuned.send_replace(Tuned { link: link.clone(), tuning });
        self.apply(&tuning);
        tracing::info!(link = %link, chosen = %tuning, "the link has changed");
    }

    /// Measures how long the link is with the windows nearly closed: whether it is another length than was thought.
    async fn look_without_queue(&self, link: &mut Link) -> Result<bool, BrokerError> {
        let before = link.round_trips.shortest().unwrap_or_default();
        let tuning = self.tuned.borrow().tuning;
        let Window { bytes, messages } = tuning.window;
        let window = Window { bytes: bytes / NEARLY_CLOSED, messages };
        self.apply(&Tuning { window, prefetch_bytes: tuning.prefetch_bytes / NEARLY_CLOSED, ..tuning });
        let measured = measure_anew(&self.broker, link).await;
        self.apply(&tuning);
        measured?;
        Ok(link.round_trips.shortest().is_some_and(|now| now > before.mul_f64(1.5)))
    }
}

/// Follows the link until the broker is closed.
async fn follow(shared: Arc<Shared>) {
    let mut link = shared.tuned.borrow().link.clone();
    let mut mark = Mark::now(&shared.broker);
    let (mut anew, mut pause) = (tokio::time::Instant::now(), ANEW.0);
    loop {
        tokio::time::sleep(if mark.busy { LOOK } else { LOOK_AT_QUIET }).await;
        match mark.look(&shared.broker, &mut link, tokio::time::Instant::now() < anew).await {
            Ok(next) => mark = next,
            Err(error) if error.is_retryable() => {
                // Nothing can be said of a link that is down. When it is back, counting begins anew.
                mark = Mark::now(&shared.broker);
                continue;
            }
            Err(_) => return,
        }
        if link.round_trips.in_doubt() && tokio::time::Instant::now() >= anew {
            if let Ok(changed) = shared.look_without_queue(&mut link).await {
                // Closing the windows costs a little throughput: less and less often while it was but the queue.
                pause = if changed { ANEW.0 } else { (pause * 2).min(ANEW.1) };
            }
            anew = tokio::time::Instant::now() + pause;
            mark = Mark::now(&shared.broker);
        }
        let now = shared.tuned.borrow().tuning;
        if let Some(better) = shared.chooser.better(&link, Some(&now)) {
            shared.change(&link, better);
        }
    }
}
