//! When a cron ticks.

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use croner::parser::{CronParser, Seconds, Year};
use wf_schema::Millis;

/// A spec, read.
pub(super) enum Spec {
    /// Every so many milliseconds, from a certain time on.
    Every(Millis),
    /// When the fields match the clock of the zone.
    Fields(Box<croner::Cron>, Tz),
}

/// A spec or a zone that cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum SpecError {
    #[error("`{0}` is not an interval: expected @every and whole seconds, minutes or hours, at least a second, e.g. @every 90s")]
    Interval(String),
    #[error(
        "`{0}` is not a cron spec: expected six fields (second, minute, hour, day of month, month, day of week) or @every 90s"
    )]
    Fields(String, #[source] Option<croner::errors::CronError>),
    #[error("`{0}` is not an IANA time zone")]
    Zone(String),
    #[error("`{0}` never ticks")]
    Never(String),
}

/// Specs and zones longer than this are none.
const LONGEST: usize = 256;

impl Spec {
    /// Reads `spec`, whose fields are meant in `zone` (`None`: UTC).
    pub(super) fn read(spec: &str, zone: Option<&str>) -> Result<Self, SpecError> {
        let cut = |text: &str| text.chars().take(80).collect::<String>();
        let zone = zone.unwrap_or("UTC");
        let zone: Tz = zone.parse().map_err(|_| SpecError::Zone(cut(zone)))?;
        if let Some(interval) = spec.strip_prefix("@every ") {
            let seconds = seconds(interval.trim()).filter(|seconds| *seconds > 0);
            return seconds.map(|seconds| Self::Every(seconds * 1000)).ok_or_else(|| SpecError::Interval(cut(spec)));
        }
        if spec.contains('@') || spec.len() > LONGEST {
            return Err(SpecError::Fields(cut(spec), None));
        }
        let parser = CronParser::builder().seconds(Seconds::Required).year(Year::Disallowed).build();
        let fields = parser.parse(spec).map_err(|error| SpecError::Fields(cut(spec), Some(error)))?;
        let spec = Self::Fields(Box::new(fields), zone);
        match spec.next(0, wf_schema::now()) {
            Some(_) => Ok(spec),
            None => Err(SpecError::Never(cut(&spec.text()))),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Every(millis) => format!("@every {}s", millis / 1000),
            Self::Fields(fields, _) => fields.as_str().to_owned(),
        }
    }

    /// The first tick after `after`; intervals count from `anchor`.
    pub(super) fn next(&self, anchor: Millis, after: Millis) -> Option<Millis> {
        match self {
            Self::Every(interval) => {
                let passed = after.saturating_sub(anchor) / interval;
                anchor.checked_add(interval.checked_mul(passed + 1)?)
            }
            Self::Fields(fields, zone) => {
                let after: DateTime<Utc> = DateTime::from_timestamp_millis(after.try_into().ok()?)?;
                let after = after.with_timezone(zone);
                let mut next = fields.find_next_occurrence(&after, false).ok()?;
                if next <= after {
                    // Fields have no milliseconds: within the second of a tick the search may find that tick again.
                    next = fields.find_next_occurrence(&(after + TimeDelta::seconds(1)), false).ok()?;
                }
                next.timestamp_millis().try_into().ok()
            }
        }
    }
}

/// `1h30m`, `90s` in seconds.
fn seconds(text: &str) -> Option<u64> {
    let mut sum = 0u64;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, unit) = (rest.get(..digits)?.parse::<u64>().ok()?, rest.get(digits..)?);
        let (factor, after) = match unit.chars().next()? {
            's' => (1, unit.strip_prefix('s')?),
            'm' => (60, unit.strip_prefix('m')?),
            'h' => (3600, unit.strip_prefix('h')?),
            _ => return None,
        };
        sum = sum.checked_add(number.checked_mul(factor)?)?;
        rest = after;
    }
    // A hundred years is beyond what anybody means, and far from where times overflow.
    (!text.is_empty() && sum <= 100 * 366 * 24 * 3600).then_some(sum)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn millis(text: &str) -> Millis {
        text.parse::<DateTime<Utc>>().unwrap().timestamp_millis() as Millis
    }

    #[test]
    fn fields_tick_by_the_clock_of_their_zone() {
        let nightly = Spec::read("0 30 2 * * *", Some("Europe/Berlin")).unwrap();
        assert_eq!(nightly.next(0, millis("2026-01-10T12:00:00Z")), Some(millis("2026-01-11T01:30:00Z")));
        assert_eq!(nightly.next(0, millis("2026-07-10T12:00:00Z")), Some(millis("2026-07-11T00:30:00Z")));
        let utc = Spec::read("*/10 * * * * *", None).unwrap();
        let tick = millis("2026-01-10T12:00:10Z");
        assert_eq!(utc.next(0, tick - 1), Some(tick));
        assert_eq!(utc.next(0, tick), Some(tick + 10_000));
        assert_eq!(utc.next(0, tick + 1), Some(tick + 10_000));
    }

    #[test]
    fn intervals_count_from_their_anchor() {
        let spec = Spec::read("@every 1m30s", None).unwrap();
        assert_eq!(spec.next(1_000, 1_000), Some(91_000));
        assert_eq!(spec.next(1_000, 91_000), Some(181_000));
        assert_eq!(spec.next(1_000, 1_000_000), Some(1_081_000));
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        for spec in ["", "* * * * *", "@every 0s", "@every 500ms", "@every", "@hourly", "61 * * * * *", "@every 99999999999h"] {
            assert!(Spec::read(spec, None).is_err(), "{spec}");
        }
        assert!(matches!(Spec::read("* * * * * *", Some("Mars/Olympus")), Err(SpecError::Zone(_))));
        assert!(matches!(Spec::read("0 0 0 30 2 *", None), Err(SpecError::Never(_))));
    }
}
