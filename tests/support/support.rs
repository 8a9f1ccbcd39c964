//! What the tests stand on: a directory of their own, processes that end with them, and readers of what those say.

mod broker;
mod jobs;
mod nats;
mod outcomes;
mod process;
mod stage;
mod tap;
mod web;

use std::time::{Duration, Instant};

pub(crate) use broker::{Heard, dead_letters, lane, look, outcomes_of};
pub(crate) use jobs::{Mixed, echoes, sleeps};
pub(crate) use nats::{ask, connect, pretender};
pub(crate) use outcomes::{Outcomes, line_count};
pub(crate) use process::{Ended, Process};
pub(crate) use stage::Stage;
pub(crate) use tap::{Tap, Traffic};
pub(crate) use web::{JSON, NDJSON, Reply, Web};

/// How long anything may take before a test gives up. Far more than it ever takes: for slow, busy machines.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// Waits until `holds` gives something.
pub(crate) async fn until<T>(what: &str, mut holds: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = holds().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain: {what}");
        tokio::time::sleep(LOOK).await;
    }
}
