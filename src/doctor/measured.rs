//! The numbers behind the findings, for machines. Each is absent until it was measured.

use serde::Serialize;
use wf_nats::{ClockReading, Rate, ServerVars, StoreTimes, SyncPolicy};

use super::{RoundTrips, units};

/// What was measured, in the units that the names of the fields say. `None` is what was not.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Measured {
    /// The version of nats-server.
    pub server_version: Option<String>,
    /// Round trips to the broker.
    pub link: Option<LinkNumbers>,
    /// What the link carries.
    pub rate: Option<RateNumbers>,
    /// What it carries over two connections.
    pub two_connections: Option<RateNumbers>,
    /// The broker's clock against this machine's.
    pub clock: Option<ClockNumbers>,
    /// When what was accepted is synced to disk.
    pub sync: Option<SyncNumbers>,
    /// The profile: as set, as in force, and as it fits.
    pub profile: Option<ProfileNames>,
    /// What the link holds, beside the windows.
    pub windows: Option<WindowNumbers>,
}

/// Round trips.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LinkNumbers {
    /// How many were made.
    pub pings: usize,
    /// How many got no answer.
    pub lost: usize,
    /// The shortest, in milliseconds.
    pub rtt_min_ms: f64,
    /// The one that half of them are shorter than.
    pub rtt_median_ms: f64,
    /// The longest.
    pub rtt_max_ms: f64,
    /// The mean difference of one to the next.
    pub jitter_ms: f64,
}

impl LinkNumbers {
    pub(super) fn of(trips: &RoundTrips, lost: usize) -> Self {
        Self {
            pings: trips.count(),
            lost,
            rtt_min_ms: units::ms(trips.min()),
            rtt_median_ms: units::ms(trips.median()),
            rtt_max_ms: units::ms(trips.max()),
            jitter_ms: units::ms(trips.jitter()),
        }
    }
}

/// What the link carries.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct RateNumbers {
    /// To the broker, in bytes a second.
    pub up_bytes_per_s: f64,
    /// Whether that is a lower bound.
    pub up_at_least: bool,
    /// From the broker, in bytes a second.
    pub down_bytes_per_s: f64,
    /// Whether that is a lower bound.
    pub down_at_least: bool,
    /// What was sent to measure it, in bytes.
    pub sent_bytes: u64,
    /// What was received to measure it, in bytes.
    pub received_bytes: u64,
}

impl RateNumbers {
    pub(super) fn of(up: &Rate, down: &Rate) -> Self {
        Self {
            up_bytes_per_s: up.bytes_per_s.round(),
            up_at_least: up.rising,
            down_bytes_per_s: down.bytes_per_s.round(),
            down_at_least: down.rising,
            sent_bytes: up.sent + down.sent,
            received_bytes: up.received + down.received,
        }
    }
}

/// How the clocks stand.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ClockNumbers {
    /// How far the broker's clock is ahead, in milliseconds; negative if it is behind.
    pub ahead_ms: f64,
    /// By how much that may be wrong, either way.
    pub uncertainty_ms: f64,
}

impl ClockNumbers {
    pub(super) fn of(reading: &ClockReading) -> Self {
        let ahead_ms = (reading.ahead_s * 1e6).round() / 1e3;
        Self { ahead_ms, uncertainty_ms: units::ms(reading.uncertainty) }
    }
}

/// When what was accepted is synced to disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct SyncNumbers {
    /// Whether the broker says so; otherwise it is inferred from `store_ms`.
    pub known: bool,
    /// Whether that is before it is accepted, on all servers; `None` where it cannot be told.
    pub always: Option<bool>,
    /// The longest interval between two syncs, if it is one.
    pub interval_ms: Option<f64>,
    /// The quickest store beyond a round trip, or the quickest sync of a broker in the process.
    pub store_ms: Option<f64>,
}

impl SyncNumbers {
    /// As the servers say; `None` if none of them stores anything.
    pub(super) fn told(vars: &[ServerVars]) -> Option<Self> {
        let policies: Vec<SyncPolicy> = vars.iter().filter_map(|vars| vars.sync).collect();
        let intervals = policies.iter().filter_map(|policy| match policy {
            SyncPolicy::Every(interval) => Some(units::ms(*interval)),
            SyncPolicy::Always => None,
        });
        let interval_ms = intervals.reduce(f64::max);
        (!policies.is_empty()).then_some(Self { known: true, always: Some(interval_ms.is_none()), interval_ms, store_ms: None })
    }

    /// As it takes time to store.
    pub(super) fn inferred(times: &StoreTimes) -> Self {
        let quickest = |times: &[std::time::Duration]| times.iter().min().copied().unwrap_or_default();
        let beyond = quickest(&times.stores).saturating_sub(quickest(&times.round_trips));
        Self { store_ms: Some(units::ms(beyond)), ..Self::default() }
    }
}

/// Profiles.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProfileNames {
    /// What the setting says, `auto` included.
    pub set: String,
    /// What is in force with it.
    pub in_force: String,
    /// What fits the link.
    pub fits: String,
}

/// What the link holds, beside the windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct WindowNumbers {
    /// Bandwidth x delay to the broker, in bytes.
    pub up_holds_bytes: u64,
    /// Bandwidth x delay from the broker, in bytes.
    pub down_holds_bytes: u64,
    /// publish.window_bytes.
    pub publish_bytes: u64,
    /// publish.window_messages.
    pub publish_messages: u32,
    /// prefetch.bytes.
    pub prefetch_bytes: u64,
}
