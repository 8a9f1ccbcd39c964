//! What can be set about an embedded broker.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

/// The settings of an embedded broker. Each setter refuses what cannot work, so a value of this type always can.
#[derive(Clone, Debug)]
pub struct EmbeddedOptions {
    pub(super) lease: Duration,
    pub(super) max_message: usize,
    pub(super) lane_bytes: u64,
    pub(super) total_bytes: u64,
    pub(super) dedup_window: Duration,
    pub(super) outcome_age: Duration,
    pub(super) outcome_bytes: u64,
    pub(super) outcome_records: u64,
    pub(super) dead_age: Duration,
    pub(super) dead_bytes: u64,
}

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

impl Default for EmbeddedOptions {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(30),
            max_message: MIB as usize,
            lane_bytes: GIB,
            total_bytes: 8 * GIB,
            dedup_window: Duration::from_secs(600),
            outcome_age: DAY,
            outcome_bytes: GIB,
            outcome_records: 10_000_000,
            dead_age: 14 * DAY,
            dead_bytes: GIB,
        }
    }
}

impl EmbeddedOptions {
    /// How long a delivery stays its owner's without being renewed: 10 ms to 1 h, 30 s by default.
    ///
    /// # Errors
    /// When it is outside of that.
    pub fn lease(mut self, lease: Duration) -> Result<Self, OptionsError> {
        self.lease = duration("lease", lease, Duration::from_millis(10)..=HOUR)?;
        Ok(self)
    }

    /// The largest message, outcome record, keyed record or dead letter in bytes: 1 KiB to 64 MiB, 1 MiB by default.
    ///
    /// # Errors
    /// When it is outside of that.
    pub fn max_message(mut self, bytes: usize) -> Result<Self, OptionsError> {
        self.max_message = within("max_message", bytes as u64, KIB..=64 * MIB)? as usize;
        Ok(self)
    }

    /// How many bytes of messages a lane holds, those scheduled for it included, before it is full: at least 1 KiB,
    /// 1 GiB by default. Each message counts [`MESSAGE_OVERHEAD`](Self::MESSAGE_OVERHEAD) bytes more than it has. An
    /// empty lane takes any message.
    ///
    /// # Errors
    /// When it is outside of that.
    pub fn lane_bytes(mut self, bytes: u64) -> Result<Self, OptionsError> {
        self.lane_bytes = within("lane_bytes", bytes, KIB..=u64::MAX)?;
        Ok(self)
    }

    /// How many bytes of messages all lanes together hold before each of them is full: at least 1 KiB, 8 GiB by
    /// default.
    ///
    /// # Errors
    /// When it is outside of that.
    pub fn total_bytes(mut self, bytes: u64) -> Result<Self, OptionsError> {
        self.total_bytes = within("total_bytes", bytes, KIB..=u64::MAX)?;
        Ok(self)
    }

    /// How long the id of a message is remembered, so that the message is not stored twice: up to a day, 10 min by
    /// default. Outlives a restart. Of more than a million ids within it, the oldest are forgotten.
    ///
    /// # Errors
    /// When it is longer than a day.
    pub fn dedup_window(mut self, window: Duration) -> Result<Self, OptionsError> {
        self.dedup_window = duration("dedup_window", window, Duration::ZERO..=DAY)?;
        Ok(self)
    }

    /// How long the records of the outcome log are kept: 1 s to 365 days, 24 h by default.
    ///
    /// # Errors
    /// When it is outside of that.
    pub fn outcome_age(mut self, age: Duration) -> Result<Self, OptionsError> {
        self.outcome_age = duration("outcome_age", age, Duration::from_secs(1)..=365 * DAY)?;
        Ok(self)
    }

    /// How many bytes of records the outcome log keeps, dropping the oldest: at least 1 KiB, 1 GiB by default.
    ///
    /// # Errors
    /// When it is less.
    pub fn outcome_bytes(mut self, bytes: u64) -> Result<Self, OptionsError> {
        self.outcome_bytes = within("outcome_bytes", bytes, KIB..=u64::MAX)?;
        Ok(self)
    }

    /// How many records the outcome log keeps, dropping the oldest: at least 1, ten million by default.
    ///
    /// # Errors
    /// When it is 0.
    pub fn outcome_records(mut self, records: u64) -> Result<Self, OptionsError> {
        self.outcome_records = within("outcome_records", records, 1..=u64::MAX)?;
        Ok(self)
    }

    /// How long dead letters are kept: 1 s to 3650 days, 14 days by default.
    ///
    /// # Errors
    /// When it is outside of that.
    pub fn dead_age(mut self, age: Duration) -> Result<Self, OptionsError> {
        self.dead_age = duration("dead_age", age, Duration::from_secs(1)..=3650 * DAY)?;
        Ok(self)
    }

    /// How many bytes of dead letters are kept: at least 1 MiB, 1 GiB by default. When there are more, the oldest make
    /// room.
    ///
    /// # Errors
    /// When it is less.
    pub fn dead_bytes(mut self, bytes: u64) -> Result<Self, OptionsError> {
        self.dead_bytes = within("dead_bytes", bytes, MIB..=u64::MAX)?;
        Ok(self)
    }

    /// What a message counts beyond its own bytes, for its key and its places in the indexes.
    pub const MESSAGE_OVERHEAD: u64 = 128;
}

fn within(key: &'static str, value: u64, range: RangeInclusive<u64>) -> Result<u64, OptionsError> {
    if range.contains(&value) { Ok(value) } else { Err(OptionsError::new(key, value, range.start(), range.end())) }
}

fn duration(key: &'static str, value: Duration, range: RangeInclusive<Duration>) -> Result<Duration, OptionsError> {
    let text = |d: &Duration| format!("{d:?}");
    if range.contains(&value) {
        Ok(value)
    } else {
        Err(OptionsError::new(key, text(&value), text(range.start()), text(range.end())))
    }
}

/// A setting that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key} cannot be {value}: expected {min} to {max}")]
pub struct OptionsError {
    key: &'static str,
    value: String,
    min: String,
    max: String,
}

impl OptionsError {
    fn new(key: &'static str, value: impl Display, min: impl Display, max: impl Display) -> Self {
        Self { key, value: value.to_string(), min: min.to_string(), max: max.to_string() }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_work_is_refused_with_its_limits() {
        let error = EmbeddedOptions::default().lease(Duration::ZERO).unwrap_err();
        assert_eq!(error.to_string(), "lease cannot be 0ns: expected 10ms to 3600s");
        assert!(EmbeddedOptions::default().outcome_records(0).is_err());
        assert!(EmbeddedOptions::default().max_message(65 << 20).is_err());
    }
}
