//! Spans of time, as people write them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::quantity::{self, QuantityError, Unit};

/// How long something takes or may take: `5 s`, to the microsecond.
///
/// Reads `us` (or `µs`), `ms`, `s`, `m` or `min`, `h` and `d`, with or without a space; a bare number other than 0
/// is refused, for nobody could tell what it counts. Writes the largest unit that needs no fraction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(u64);

const SHOWN: [Unit; 6] =
    [("us", 1), ("ms", 1_000), ("s", 1_000_000), ("min", 60_000_000), ("h", 3_600_000_000), ("d", 86_400_000_000)];

const READ: [Unit; 8] = [
    ("us", 1),
    ("µs", 1),
    ("ms", 1_000),
    ("s", 1_000_000),
    ("m", 60_000_000),
    ("min", 60_000_000),
    ("h", 3_600_000_000),
    ("d", 86_400_000_000),
];

impl Span {
    pub(super) const EXPECTED: &'static str = "a time with its unit, e.g. `5 s` or `1500 ms`";

    /// `micros` microseconds.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// The span in microseconds.
    pub const fn micros(self) -> u64 {
        self.0
    }
}

/// What is left below a microsecond is dropped.
impl From<Duration> for Span {
    fn from(duration: Duration) -> Self {
        Self(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
    }
}

impl From<Span> for Duration {
    fn from(span: Span) -> Self {
        Self::from_micros(span.0)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 { f.pad("0 s") } else { f.pad(&quantity::show(self.0, &SHOWN)) }
    }
}

impl FromStr for Span {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        quantity::parse(text, &READ).map(Self).ok_or_else(|| QuantityError::new(text, Self::EXPECTED))
    }
}
