//! How long a body may take to come. Only time that is spent waiting for the caller counts: a caller that the server
//! holds back, because there is no room, is not slow.

use std::time::Duration;

use crate::HttpOptions;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    idle: Duration,
    total: Duration,
    /// Bytes a second.
    pace: u64,
    waited: Duration,
    came: u64,
}

impl Clock {
    pub(super) fn new(options: &HttpOptions) -> Self {
        Self {
            idle: options.idle_timeout,
            total: options.body_timeout,
            pace: options.body_pace.max(1),
            waited: Duration::ZERO,
            came: 0,
        }
    }

    /// How long the next piece may take.
    pub(super) fn patience(&self) -> Duration {
        self.idle.min(self.total.saturating_sub(self.waited)).min(self.paced())
    }

    /// Until when a body must go on to keep its pace: a small one, or the beginning of one, may take as long as a
    /// silence.
    fn paced(&self) -> Duration {
        let earned = Duration::from_millis(self.came.saturating_mul(1_000) / self.pace);
        (self.idle + earned).saturating_sub(self.waited)
    }

    /// A piece of `bytes` came after `waited`.
    pub(super) fn came(&mut self, bytes: usize, waited: Duration) {
        self.waited += waited;
        self.came += bytes as u64;
    }

    /// Why the next piece, which took `waited` and did not come, came too late.
    pub(super) fn verdict(&self, waited: Duration) -> String {
        let in_all = self.waited + waited;
        if self.patience() == self.idle {
            format!("nothing came for {} s in the middle of the body", self.idle.as_secs())
        } else if in_all >= self.total {
            format!("the body did not come within {} s", self.total.as_secs())
        } else {
            format!(
                "the body comes too slowly: {} bytes in {} s, at least {} a second are expected",
                self.came,
                in_all.as_secs(),
                self.pace
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock() -> Clock {
        let second = Duration::from_secs(1);
        Clock { idle: 60 * second, total: 3_600 * second, pace: 1_000, waited: Duration::ZERO, came: 0 }
    }

    #[test]
    fn silence_has_one_limit_and_dripping_another() {
        let mut clock = clock();
        assert_eq!(clock.patience(), Duration::from_secs(60));
        // A byte a second: a minute, and hardly more.
        for _ in 0..50 {
            clock.came(1, Duration::from_secs(1));
        }
        assert!((10_000..10_100).contains(&clock.patience().as_millis()));
        assert!(clock.verdict(clock.patience()).contains("too slowly: 50 bytes in 60 s"));
        // A good pace buys time, but never more silence than is allowed.
        clock.came(1_000_000, Duration::from_secs(1));
        assert_eq!(clock.patience(), Duration::from_secs(60));
        assert!(clock.verdict(clock.patience()).contains("nothing came for 60 s"));
    }

    #[test]
    fn no_body_takes_longer_than_that() {
        let mut clock = clock();
        for _ in 0..359 {
            clock.came(20_000, Duration::from_secs(10));
        }
        assert_eq!(clock.patience(), Duration::from_secs(10));
        assert!(clock.verdict(clock.patience()).contains("within 3600 s"));
    }
}
