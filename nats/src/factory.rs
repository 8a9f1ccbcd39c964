//! The factory's settings: the same for every node, made by `wf broker setup`, kept with the broker.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What is the same for every node of a factory. Nodes read it from the broker and bind to what was made from it:
/// consumers made with settings of their own would silently overwrite each other's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct FactorySettings {
    /// How long a delivery stays its owner's without a renewal; at least a second.
    #[serde(rename = "lease_ms", with = "millis")]
    pub lease: Duration,
    /// The most messages of one lane that may be delivered and not settled, over all nodes. Released ones that wait
    /// for their delay count too.
    pub lane_in_flight: u32,
    /// The most pulls of one lane that may wait at the server, over all nodes.
    pub lane_pulls: u32,
    /// A lane with this many messages is full.
    pub lane_messages: u32,
    /// All lanes together hold at most this many bytes.
    pub jobs_bytes: u64,
    /// How long a message's id is remembered: what is published again within it is not stored again.
    #[serde(rename = "dedup_window_ms", with = "millis")]
    pub dedup_window: Duration,
    /// The outcome log's records are kept this long,
    #[serde(rename = "results_age_ms", with = "millis")]
    pub results_age: Duration,
    /// up to this many bytes,
    pub results_bytes: u64,
    /// and this many records. Each costs the server about 0.34 KB of memory.
    pub results_messages: u32,
    /// Dead letters are kept this long,
    #[serde(rename = "dead_age_ms", with = "millis")]
    pub dead_age: Duration,
    /// up to this many bytes.
    pub dead_bytes: u64,
    /// Keyed records together hold at most this many bytes.
    pub state_bytes: u64,
    /// How many servers of a cluster keep each message: 1, 3 or 5.
    pub replicas: u8,
    /// Which cluster stores the streams, where several are connected; the one that is asked if it is not said.
    // Left out where it says nothing: nodes before there was placement refuse what they do not know.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placement_cluster: Option<String>,
    /// Which of its servers may: those that have all of these tags.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub placement_tags: Vec<String>,
}

impl Default for FactorySettings {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 3_600);
        Self {
            lease: Duration::from_secs(30),
            lane_in_flight: 50_000,
            lane_pulls: 4_096,
            lane_messages: 100_000,
            jobs_bytes: 4 << 30,
            dedup_window: Duration::from_secs(120),
            results_age: DAY,
            results_bytes: 2 << 30,
            results_messages: 500_000,
            dead_age: 14 * DAY,
            dead_bytes: 1 << 30,
            state_bytes: 256 << 20,
            replicas: 1,
            placement_cluster: None,
            placement_tags: Vec::new(),
        }
    }
}

impl FactorySettings {
    /// What is wrong with these settings, if anything: the setting, its value, and what it may be.
    pub(crate) fn impossible(&self) -> Option<String> {
        let wrong =
            |name: &str, value: &dyn std::fmt::Debug, expected: &str| Some(format!("{name} = {value:?}: expected {expected}"));
        if !(Duration::from_secs(1)..=Duration::from_secs(3_600)).contains(&self.lease) {
            return wrong("lease", &self.lease, "1 s to 1 h");
        }
        if self.lane_in_flight == 0 {
            return wrong("lane_in_flight", &self.lane_in_flight, "at least 1");
        }
        if self.lane_pulls < 16 {
            return wrong("lane_pulls", &self.lane_pulls, "at least 16");
        }
        if self.lane_messages == 0 {
            return wrong("lane_messages", &self.lane_messages, "at least 1");
        }
        for (name, bytes) in [
            ("jobs_bytes", self.jobs_bytes),
            ("results_bytes", self.results_bytes),
            ("dead_bytes", self.dead_bytes),
            ("state_bytes", self.state_bytes),
        ] {
            if !(1 << 20..=i64::MAX as u64).contains(&bytes) {
                return wrong(name, &bytes, "at least 1 MiB");
            }
        }
        if self.results_messages == 0 {
            return wrong("results_messages", &self.results_messages, "at least 1");
        }
        for (name, age) in [("dedup_window", self.dedup_window), ("results_age", self.results_age), ("dead_age", self.dead_age)] {
            if !(Duration::from_secs(1)..=Duration::from_secs(10 * 366 * 24 * 3_600)).contains(&age) {
                return wrong(name, &age, "1 s to 10 years");
            }
        }
        if self.dedup_window > self.results_age.min(self.dead_age) {
            return wrong("dedup_window", &self.dedup_window, "no more than results_age and dead_age");
        }
        if ![1, 3, 5].contains(&self.replicas) {
            return wrong("replicas", &self.replicas, "1, 3 or 5");
        }
        None
    }
}

/// Durations as whole milliseconds.
mod millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn settings_read_back_and_impossible_ones_are_named() {
        let settings = FactorySettings::default();
        let json = serde_json::to_string(&settings).unwrap();
        assert!(json.contains("\"lease_ms\":30000"), "{json}");
        assert_eq!(serde_json::from_str::<FactorySettings>(&json).unwrap(), settings);
        assert_eq!(settings.impossible(), None);
        let wrong = FactorySettings { replicas: 2, ..settings };
        assert_eq!(wrong.impossible().unwrap(), "replicas = 2: expected 1, 3 or 5");
    }
}
