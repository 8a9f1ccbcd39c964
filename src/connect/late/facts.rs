//! What must be known of a broker before it is there: what it said when it was, kept beside the spool.

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use wf_broker::Broker;

/// In the folder of the spool.
const FILE: &str = "broker.json";

/// What a broker takes, and how long its deliveries are owned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Facts {
    /// The largest message, in bytes.
    pub(super) max_message: usize,
    /// The lease.
    pub(super) lease: Duration,
    /// How long it remembers ids.
    pub(super) dedup_window: Duration,
}

impl Default for Facts {
    /// What is safe with every broker: it takes as much, who renews so often is never late, and ids that are not relied on are
    /// not missed.
    fn default() -> Self {
        Self { max_message: 128 << 10, lease: Duration::from_secs(1), dedup_window: Duration::ZERO }
    }
}

impl Facts {
    pub(super) fn of(broker: &dyn Broker) -> Self {
        Self { max_message: broker.max_message(), lease: broker.lease(), dedup_window: broker.dedup_window() }
    }

    /// What was kept beside `spool`. What cannot be read is as if nothing was.
    pub(super) async fn read(spool: &Path) -> Self {
        let bytes = tokio::fs::read(spool.join(FILE)).await.unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    /// Keeps them beside `spool`. Written anew, then put in place: what is there is always whole.
    pub(super) async fn keep(self, spool: &Path) {
        let (file, anew) = (spool.join(FILE), spool.join(format!("{FILE}.new")));
        let kept = async {
            tokio::fs::write(&anew, serde_json::to_vec(&self)?).await?;
            tokio::fs::rename(&anew, &file).await
        };
        if let Err(error) = kept.await {
            tracing::warn!(file = %file.display(), %error, "what the broker takes cannot be kept beside the spool");
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_kept_is_read_and_what_is_torn_is_nothing() {
        let spool = tempfile::tempdir().unwrap();
        let path = spool.path();
        assert_eq!(Facts::read(path).await, Facts::default());
        let facts = Facts { max_message: 77, lease: Duration::from_millis(1_500), dedup_window: Duration::from_secs(5) };
        facts.keep(path).await;
        assert_eq!(Facts::read(path).await, facts);
        std::fs::write(spool.path().join(FILE), "{\"max_mess").unwrap();
        assert_eq!(Facts::read(path).await, Facts::default());
    }
}
