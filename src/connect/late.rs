//! A broker that may come late: looked for in the background, so that whoever has a spool need not wait for it.
//!
//! Until it is found everything that is asked of it fails as over a link that is down, and what ingest does about that
//! follows by itself: its breaker opens, jobs go to the spool, a probe notices when the broker is there. From then on
//! calls pass through.

mod facts;
mod roles;

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use wf_broker::{BoxFuture as Answer, Broker, BrokerError};
use wf_schema::config::Config;

use super::BrokerUnavailable;
use facts::Facts;

/// The pause before a broker that could not be reached is looked for again, on average: looking for it took its time
/// already.
const PAUSE: Duration = Duration::from_secs(1);
/// The same, at first and at most, for one that refused: somebody has to do something about that, and to ask often may
/// lock the user out.
const REFUSED: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));

/// What becomes of looking for it once.
type Outcome = Result<Arc<dyn Broker>, BrokerUnavailable>;
/// Looking for it once.
pub(super) type Finding = BoxFuture<'static, Outcome>;
/// How it is looked for.
type Connect = Box<dyn Fn() -> Finding + Send + Sync>;

/// See the module.
pub(super) struct Late {
    search: Arc<Search>,
    _searching: AbortOnDropHandle<()>,
}

/// Tells when a broker that is looked for turns out to refuse what it is asked: the login, for one.
pub struct Refusal(Option<oneshot::Receiver<Outcome>>);

struct Search {
    found: OnceLock<Arc<dyn Broker>>,
    /// Why it is not found yet.
    why: Mutex<Option<Arc<BrokerUnavailable>>>,
    /// What must be known of it before it can be asked.
    facts: Facts,
    /// Where that is kept.
    spool: PathBuf,
    closed: CancellationToken,
}

impl Refusal {
    /// Of a broker that was there from the beginning.
    pub(super) fn never() -> Self {
        Self(None)
    }

    /// Waits until the broker has refused, within `broker.connect_deadline` from the start; for ever if it does not. One
    /// that refuses later is told of in the log, and is asked again.
    pub async fn came(self) -> BrokerUnavailable {
        match self.0 {
            Some(outcome) => match outcome.await {
                Ok(Err(refused)) => refused,
                _ => std::future::pending().await,
            },
            None => std::future::pending().await,
        }
    }
}

/// The broker that `connect` finds. One that does not come for as long as makes it count as unreachable
/// (`ingest.unreachable_after`) may come late: what is found then answers in its place.
///
/// # Errors
/// When it refused meanwhile.
pub(super) async fn soon(
    config: &Config,
    spool: &Path,
    connect: Connect,
) -> Result<(Arc<dyn Broker>, Refusal), BrokerUnavailable> {
    let (told, mut outcome) = oneshot::channel();
    let late = Late::look(spool, connect, config.broker().connect_deadline, told).await;
    match tokio::time::timeout(config.ingest().unreachable_after, &mut outcome).await {
        Ok(Ok(Ok(broker))) => return Ok((broker, Refusal::never())),
        Ok(Ok(Err(refused))) => return Err(refused),
        Ok(Err(_)) | Err(_) => {}
    }
    tracing::warn!(broker = %config.broker().url, "the broker is not there yet: jobs go to the spool until it is");
    Ok((Arc::new(late), Refusal(Some(outcome))))
}

impl Late {
    /// Looks for it. `told` hears of it if it is found, or refuses, before the deadline.
    async fn look(spool: &Path, connect: Connect, deadline: Duration, told: oneshot::Sender<Outcome>) -> Self {
        let search = Arc::new(Search {
            found: OnceLock::new(),
            why: Mutex::default(),
            facts: Facts::read(spool).await,
            spool: spool.to_owned(),
            closed: CancellationToken::new(),
        });
        let searching = search.clone();
        let task = async move {
            searching.closed.run_until_cancelled(searching.find(connect, deadline, told)).await;
        };
        Self { search, _searching: AbortOnDropHandle::new(tokio::spawn(task)) }
    }

    /// Asks `call` of the broker, to do `what`, if it is there.
    fn ask<'a, T: Send + 'a>(&'a self, what: &'static str, call: impl FnOnce(&'a dyn Broker) -> Answer<'a, T>) -> Answer<'a, T> {
        match self.search.found.get() {
            Some(broker) => call(&**broker),
            None => Box::pin(std::future::ready(Err(self.search.absence(what)))),
        }
    }
}

impl Search {
    /// Looks until it is found, or it has refused and somebody heard that who waited.
    async fn find(&self, connect: Connect, deadline: Duration, told: oneshot::Sender<Outcome>) {
        let began = Instant::now();
        let mut told = Some(told);
        let mut refusals = REFUSED.0;
        loop {
            // An attempt counts by when it began.
            told = told.filter(|_| began.elapsed() <= deadline);
            let mut error = match connect().await {
                Ok(broker) => {
                    Facts::of(&*broker).keep(&self.spool).await;
                    let broker = self.found.get_or_init(|| broker).clone();
                    if let Some(told) = told {
                        // Who waits no longer has this in its place.
                        let _ = told.send(Ok(broker));
                    }
                    return;
                }
                Err(error) => error,
            };
            let mut pause = PAUSE;
            if error.is_retryable() {
                refusals = REFUSED.0;
                tracing::debug!(error = &error as &dyn std::error::Error, "the broker cannot be reached yet");
            } else {
                if let Some(told) = told.take() {
                    let Err(Err(unheard)) = told.send(Err(error)) else { return };
                    error = unheard;
                }
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "the broker refuses; jobs stay in the spool until it does not"
                );
                (pause, refusals) = (refusals, (refusals * 2).min(REFUSED.1));
            }
            *self.why.lock() = Some(Arc::new(error));
            tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
        }
    }

    /// Why it does not do `what`.
    fn absence(&self, what: &'static str) -> BrokerError {
        if self.closed.is_cancelled() {
            return BrokerError::fatal(what, "it is closed");
        }
        match &*self.why.lock() {
            Some(why) => BrokerError::retryable(what, why.clone()),
            None => BrokerError::retryable(what, "it was not reached yet"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests;
