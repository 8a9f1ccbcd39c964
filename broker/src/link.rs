//! What a link is like: how long a round trip takes, how steady that is, how much it carries each way.
//!
//! Pure estimators, told of what was seen. Nobody measures here; time and bytes come from whoever does.
//!
//! ```
//! use std::time::Duration;
//! use wf_broker::link::Link;
//!
//! let mut link = Link::default();
//! for millis in [101, 100, 103, 100] {
//!     link.round_trips.add(Duration::from_millis(millis), false);
//! }
//! link.up.add(3_000_000, Duration::from_millis(250), true);
//! assert_eq!(link.to_string(), "round trip 100.0 ms (median 101.0 ms), up 12.0 MB/s, down not known");
//! ```

mod rate;
mod round_trips;

use std::fmt;

pub use rate::Rate;
pub use round_trips::RoundTrips;

/// What is known of a link.
#[derive(Clone, Debug, Default)]
pub struct Link {
    /// How long round trips take.
    pub round_trips: RoundTrips,
    /// What it carries to the broker.
    pub up: Rate,
    /// What it carries from the broker.
    pub down: Rate,
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = |rate: &Rate| match rate.bytes_per_second() {
            Some(most) => format!("{}{:.1} MB/s", if rate.is_known() { "" } else { "at least " }, most / 1e6),
            None => "not known".to_owned(),
        };
        write!(f, "{}, up {}, down {}", self.round_trips, rate(&self.up), rate(&self.down))
    }
}
