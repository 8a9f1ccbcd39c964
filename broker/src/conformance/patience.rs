//! How long the cases wait.

use std::future::Future;
use std::time::{Duration, Instant};

use crate::Consume;

/// For what must happen. Generous: it is spent only when a broker is wrong.
const PATIENCE: Duration = Duration::from_secs(20);

/// For what must not happen: longer than a broker takes for what it would do at once.
pub(super) const A_WHILE: Duration = Duration::from_millis(500);

/// What may be missing of a time that must pass: stores keep the milliseconds of a clock that people may set.
pub(super) const ROUNDING: Duration = Duration::from_millis(50);

/// The answer of `future`, which must come.
pub(super) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(answer) => answer,
        Err(_) => panic!("waited {PATIENCE:?} in vain: {what}"),
    }
}

/// Asks again and again until `ask` answers something. For what the contract calls approximate, or lagging.
pub(super) async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    };
    within(what, asking).await
}

/// So long that a delivery whose lease has run out would have come again.
pub(super) fn past_lease(broker: &(impl Consume + ?Sized)) -> Duration {
    broker.lease() + A_WHILE
}

/// Sleeps, for it is time itself that the case is about.
pub(super) async fn let_pass(time: Duration) {
    tokio::time::sleep_until((Instant::now() + time).into()).await;
}
