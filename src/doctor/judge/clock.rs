//! The broker's clock against this machine's.

use wf_nats::{CheckupError, ClockReading};

use super::super::finding::shown;
use super::super::{Check, Finding, units};
use super::untold;

/// From here on, retries and expiry come noticeably early or late, in seconds.
const NOTICEABLE_S: f64 = 1.0;

/// From here on they are wrong to anybody's eye, in seconds.
const WRONG_S: f64 = 10.0;

/// How far the clocks are apart.
pub(in crate::doctor) fn clock(told: &Result<ClockReading, CheckupError>) -> Finding {
    let reading = match told {
        Ok(reading) => reading,
        Err(error) => return untold(Check::Clock, "the server's clock", error),
    };
    let apart = reading.ahead_s.abs();
    let uncertain = reading.uncertainty.as_secs_f64();
    let side = if reading.ahead_s < 0.0 { "behind" } else { "ahead of" };
    let server = reading.server.as_deref().map_or_else(|| "the server".to_owned(), shown);
    let found = format!(
        "{server} is {} {side} this machine, give or take {}",
        units::time(std::time::Duration::from_secs_f64(apart.min(1e12))),
        units::time(reading.uncertainty)
    );
    let advice = "let both machines keep their time by NTP (chrony, systemd-timesyncd): expiry and delays are judged by \
                  the clock of whoever looks";
    // What the measurement may be wrong by is nobody's fault.
    let surely = apart - uncertain;
    if surely > WRONG_S {
        Finding::problem(Check::Clock, found).advice(advice)
    } else if surely > NOTICEABLE_S {
        Finding::warning(Check::Clock, found).advice(advice)
    } else if uncertain > NOTICEABLE_S {
        Finding::note(Check::Clock, format!("{found}: the link is too slow to tell"))
    } else {
        Finding::ok(Check::Clock, found)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::super::Verdict;
    use super::*;

    #[test]
    fn only_what_is_surely_apart_counts() {
        let table = [
            (0.003, 50, Verdict::Ok, "ahead of"),
            (-0.9, 50, Verdict::Ok, "behind"),
            (1.04, 50, Verdict::Ok, ""),
            (-1.2, 50, Verdict::Warning, "1200 ms behind"),
            (9.0, 50, Verdict::Warning, ""),
            (3_600.0, 50, Verdict::Problem, "3600 s ahead"),
            (-11.0, 50, Verdict::Problem, "11 s behind"),
            (1.5, 2_000, Verdict::Note, "too slow to tell"),
            (f64::MAX, 1, Verdict::Problem, ""),
        ];
        for (ahead_s, uncertain_ms, verdict, text) in table {
            let reading = ClockReading { ahead_s, uncertainty: Duration::from_millis(uncertain_ms), server: Some("n1".into()) };
            let finding = clock(&Ok(reading));
            assert!(finding.verdict == verdict && finding.found.contains(text), "{finding:?}");
        }
    }
}
