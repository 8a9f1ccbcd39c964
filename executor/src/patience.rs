//! Asking a broker again until it answers.

use std::time::Duration;

use wf_broker::{BoxFuture, BrokerError, Result};

/// Asks until the answer is no retryable error. The pauses grow and are jittered, so that executors which lost the
/// broker together do not come back together. Ends when it is dropped: whoever waits decides for how long.
pub(crate) async fn insist<'a, T>(what: &'static str, mut ask: impl FnMut() -> BoxFuture<'a, T>) -> Result<T> {
    let mut pause = Pause::default();
    loop {
        match ask().await {
            Err(error) if error.is_retryable() => {
                let time = pause.after(&error);
                // The first time may be news, the following are more of the same.
                if pause.count == 1 {
                    tracing::warn!(what, error = &error as &dyn std::error::Error, "the broker does not do it; trying on");
                } else {
                    tracing::debug!(what, error = &error as &dyn std::error::Error, tries = pause.count, "still trying");
                }
                tokio::time::sleep(time).await;
            }
            answer => return answer,
        }
    }
}

/// The pauses between tries: 100 ms, doubling up to 5 s, or as long as a full lane asks for (30 s at most); of that a
/// random half to the whole.
#[derive(Default)]
struct Pause {
    count: u32,
}

impl Pause {
    fn after(&mut self, error: &BrokerError) -> Duration {
        let mut full = Duration::from_millis(100 << self.count.min(6)).min(Duration::from_secs(5));
        if let BrokerError::Full { retry_after, .. } = error {
            full = full.max(*retry_after).min(Duration::from_secs(30));
        }
        self.count += 1;
        full.mul_f64(0.5 + fastrand::f64() / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_limit() {
        let error = BrokerError::retryable("answer", "no");
        let mut pause = Pause::default();
        let first = pause.after(&error);
        assert!((50..=100).contains(&first.as_millis()));
        let later = (0..50).map(|_| pause.after(&error)).last();
        assert!(later.is_some_and(|time| (2_500..=5_000).contains(&time.as_millis())));
    }

    #[test]
    fn a_full_lane_says_how_long() {
        let full = |secs| BrokerError::Full { lane: Default::default(), retry_after: Duration::from_secs(secs) };
        assert!(Pause::default().after(&full(10)) >= Duration::from_secs(5));
        assert!(Pause::default().after(&full(1_000)) <= Duration::from_secs(30));
    }
}
