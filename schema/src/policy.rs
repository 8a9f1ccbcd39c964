//! What a job asks for beside its work: attempts, time, and what becomes of its result.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How a job is to be treated. Distinct policies travel once a batch, in its table.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Policy {
    /// How often the job may be tried in all; 1 means no retries. At least 1.
    pub max_attempts: u32,
    /// How long one attempt may take, in milliseconds. At least 1.
    pub timeout_ms: u64,
    /// How long to wait between attempts.
    pub backoff: Backoff,
    /// How long after it was enqueued the job is still worth starting, in milliseconds; `None` is for ever.
    pub expires_in_ms: Option<u64>,
    /// Whether the outcome of every attempt is stored, also of one that completed.
    pub store_result: bool,
}

/// Limits of the fields of [`Policy`].
impl Policy {
    /// The most attempts a job may ask for.
    pub const MAX_ATTEMPTS: u32 = 1_000;
    /// The longest time an attempt may take: 24 hours.
    pub const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 3600);
    /// The longest pause between two attempts: 7 days.
    pub const MAX_BACKOFF: Duration = Duration::from_secs(7 * 24 * 3600);

    /// How long one attempt may take.
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }

    /// When a job enqueued at `enqueued_at` is no longer worth starting; both in milliseconds since the Unix epoch.
    pub fn expires_at(&self, enqueued_at: u64) -> Option<u64> {
        self.expires_in_ms.map(|ms| enqueued_at.saturating_add(ms))
    }
}

impl Default for Policy {
    /// Ten attempts of up to a minute each, spread over about half an hour; no expiry; no stored result.
    fn default() -> Self {
        Self { max_attempts: 10, timeout_ms: 60_000, backoff: Backoff::default(), expires_in_ms: None, store_result: false }
    }
}

/// The pause before attempt n + 1: `min` x 2^(n-1), at most `max`, and of that a random half to the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Backoff {
    /// The pause after the first failure, in milliseconds.
    pub min_ms: u64,
    /// The longest pause, in milliseconds. At least `min_ms`.
    pub max_ms: u64,
}

impl Backoff {
    /// The pause after `attempt` (from 1) failed. `random` is uniform in 0..1: half of the pause is fixed, half is
    /// jitter, so that jobs which failed together do not come back together.
    pub fn delay(&self, attempt: u32, random: f64) -> Duration {
        let doublings = attempt.saturating_sub(1).min(40);
        let full = self.min_ms.saturating_mul(1 << doublings).min(self.max_ms.max(self.min_ms));
        let half = full / 2;
        Duration::from_millis(half + ((full - half) as f64 * random.clamp(0.0, 1.0)) as u64)
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self { min_ms: 1_000, max_ms: 600_000 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_doubles_up_to_its_maximum_and_keeps_half_of_it_fixed() {
        let backoff = Backoff { min_ms: 100, max_ms: 1_000 };
        assert_eq!(backoff.delay(1, 1.0), Duration::from_millis(100));
        assert_eq!(backoff.delay(2, 1.0), Duration::from_millis(200));
        assert_eq!(backoff.delay(5, 1.0), Duration::from_millis(1_000));
        assert_eq!(backoff.delay(u32::MAX, 0.0), Duration::from_millis(500));
    }
}
