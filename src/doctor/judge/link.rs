//! How long round trips take and how much the link carries.

use std::time::Duration;

use wf_nats::{CheckupError, Rate};

use super::super::{Check, Finding, RoundTrips, units};
use super::untold;

/// Below this, one connection has the whole link within a moment.
pub(in crate::doctor) const LONG: Duration = Duration::from_millis(20);

/// Jitter from here on matters, if it is also a tenth of the round trip.
const RESTLESS: Duration = Duration::from_millis(10);

/// How much more two connections have to carry to be worth it.
const WORTH_IT: f64 = 1.3;

/// The round trips that were made, and how many more got no answer.
pub(in crate::doctor) fn link(trips: &RoundTrips, lost: usize) -> Finding {
    let found = format!(
        "round trip {} at least, {} median, {} at most; jitter {} (mean difference of one to the next); {} pings",
        units::time(trips.min()),
        units::time(trips.median()),
        units::time(trips.max()),
        units::time(trips.jitter()),
        trips.count(),
    );
    if lost > 0 {
        return Finding::warning(Check::Link, format!("{found}, {lost} more without an answer"))
            .advice("look at the way between the machines: a link that loses whole answers breaks connections");
    }
    if restless(trips) {
        return Finding::note(Check::Link, format!("{found}: a restless link"));
    }
    Finding::ok(Check::Link, found)
}

/// Whether round trips vary so much that the link is likely a radio, or loses packets.
pub(in crate::doctor) fn restless(trips: &RoundTrips) -> bool {
    trips.jitter() >= RESTLESS && trips.jitter() * 10 >= trips.median()
}

/// What the link carries each way.
pub(in crate::doctor) fn rate(up: &Result<Rate, CheckupError>, down: &Result<Rate, CheckupError>) -> Finding {
    let (up, down) = match (up, down) {
        (Err(error), _) | (_, Err(error)) => return untold(Check::Rate, "the rate", error),
        (Ok(up), Ok(down)) => (up, down),
    };
    let told = |rate: &Rate| format!("{}{}", if rate.rising { "at least " } else { "" }, units::rate(rate.bytes_per_s));
    let sent = units::bytes(up.sent + down.sent);
    let received = units::bytes(up.received + down.received);
    Finding::ok(Check::Rate, format!("{} up, {} down; measuring sent {sent} and received {received}", told(up), told(down)))
}

/// What two connections carry beside one, each way: `(one, two)`; `configured` is how many there are.
pub(in crate::doctor) fn connections(up: (f64, f64), down: (f64, f64), configured: u32) -> Finding {
    let gain = |(one, two): (f64, f64)| two / one.max(1.0);
    let found = format!("two connections carry {:.1} times as much as one up, {:.1} times down", gain(up), gain(down));
    let worth = gain(up).max(gain(down)) >= WORTH_IT;
    match (worth, configured) {
        (true, 1) => Finding::warning(Check::Connections, format!("{found}; broker.connections is 1"))
            .advice("set broker.connections = 2; first see what check `host` says"),
        (_, n) => Finding::ok(Check::Connections, format!("{found}; broker.connections is {n}")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::super::Verdict;
    use super::*;

    fn trips(ms: &[u64]) -> RoundTrips {
        RoundTrips::new(ms.iter().map(|ms| Duration::from_millis(*ms)).collect()).unwrap()
    }

    #[test]
    fn a_restless_link_is_told_from_a_long_one() {
        for (ms, restless_, verdict) in [
            (&[1, 2, 1, 1][..], false, Verdict::Ok),
            (&[200, 201, 200, 203], false, Verdict::Ok),
            (&[100, 130, 95, 140], true, Verdict::Note),
            // Large beside nothing is still small.
            (&[1, 9, 1, 9], false, Verdict::Ok),
            // Much, but not for so long a way.
            (&[600, 620, 600, 620], false, Verdict::Ok),
        ] {
            assert_eq!((restless(&trips(ms)), link(&trips(ms), 0).verdict), (restless_, verdict), "{ms:?}");
        }
        assert_eq!(link(&trips(&[1]), 1).verdict, Verdict::Warning);
    }

    #[test]
    fn rates_are_told_with_what_they_cost() {
        let up = Rate { bytes_per_s: 12.5e6, rising: false, sent: 10 << 20, received: 1 << 10 };
        let down = Rate { bytes_per_s: 25e6, rising: true, sent: 1 << 10, received: 20 << 20 };
        let finding = rate(&Ok(up), &Ok(down));
        assert_eq!(finding.found, "100 Mbit/s up, at least 200 Mbit/s down; measuring sent 10 MiB and received 20 MiB");
        let denied = CheckupError::Denied { right: "publish to _INBOX.>".into() };
        assert!(rate(&Ok(up), &Err(denied)).found.contains("_INBOX.>"));
    }

    #[test]
    fn two_connections_are_advised_where_they_carry_more() {
        for (up, down, configured, verdict) in [
            ((10.0, 10.5), (10.0, 9.0), 1, Verdict::Ok),
            ((10.0, 19.0), (10.0, 10.0), 1, Verdict::Warning),
            ((10.0, 19.0), (10.0, 10.0), 2, Verdict::Ok),
            ((0.0, 0.0), (0.0, 0.0), 1, Verdict::Ok),
        ] {
            assert_eq!(connections(up, down, configured).verdict, verdict, "{up:?} {down:?} {configured}");
        }
    }
}
