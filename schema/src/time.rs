//! Wall-clock time as this crate carries it: milliseconds since the Unix epoch.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch. Comes from clocks of different machines: fit for people, for waiting times
/// and for expiry, never for deciding what happened first.
pub type Millis = u64;

/// The time now.
pub fn now() -> Millis {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as Millis)
}
