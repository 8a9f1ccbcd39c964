//! This machine's network settings, beside what a long link asks for.

use std::time::Duration;

use super::super::host::HostFacts;
use super::super::{Check, Finding, units};
use super::windows::Held;

/// Below this, the system's defaults do.
const LONG: Duration = Duration::from_millis(10);

/// From here on, what a connection does when it starts or loses a packet costs many jobs.
const VERY_LONG: Duration = Duration::from_millis(30);

/// The least that is advised for a buffer, in bytes.
const LEAST_BUFFER: u64 = 16 << 20;

/// What the kernel takes of a buffer for its own books: the rest is what may be under way.
const SHARE: u64 = 2;

/// What to set for a link of this round trip that holds `held` over `connections` each way. The system's own settings are for shorter ones.
pub(in crate::doctor) fn host(host: &HostFacts, rtt: Duration, held: Option<Held>, connections: u32) -> Vec<Finding> {
    if rtt < LONG {
        return vec![Finding::ok(Check::Host, format!("nothing to tune for a round trip of {}", units::time(rtt)))];
    }
    let mut findings = Vec::new();
    let held = held.unwrap_or(Held { up: 0, down: 0 });
    let each = |held: u64| held / u64::from(connections.max(1));
    for (name, max, held) in [("tcp_rmem", host.receive_buffer, each(held.down)), ("tcp_wmem", host.send_buffer, each(held.up))] {
        findings.extend(max.map(|max| buffer(name, max, held, rtt)));
    }
    if let Some(control) = &host.congestion_control
        && rtt >= VERY_LONG
    {
        let found = format!("congestion control is {control}");
        findings.push(match control.as_str() {
            "bbr" => Finding::ok(Check::Host, found),
            _ => Finding::note(
                Check::Host,
                format!("{found}: on a long link each lost packet halves the rate for many round trips"),
            )
            .advice(
                "on this machine and on the broker's: sysctl -w net.core.default_qdisc=fq net.ipv4.tcp_congestion_control=bbr",
            ),
        });
    }
    if host.slow_start_after_idle == Some(true) && rtt >= VERY_LONG {
        let found = "a connection that was idle for a moment starts slowly again (tcp_slow_start_after_idle = 1)";
        findings
            .push(Finding::note(Check::Host, found).advice("on both machines: sysctl -w net.ipv4.tcp_slow_start_after_idle=0"));
    }
    findings
}

/// Whether a buffer that grows to `max` bytes has room for `held`.
fn buffer(name: &str, max: u64, held: u64, rtt: Duration) -> Finding {
    let carries = (max / SHARE) as f64 / rtt.as_secs_f64();
    let found = format!(
        "grows to {}, which carries {} over one connection at {}",
        units::bytes(max),
        units::rate(carries),
        units::time(rtt)
    );
    // What was measured through a buffer that is too small is near what that buffer carries.
    if held.saturating_mul(SHARE) * 5 < max.saturating_mul(4) {
        return Finding::ok(Check::Host, found).of(name);
    }
    let wanted = held.saturating_mul(2 * SHARE).next_power_of_two().max(LEAST_BUFFER);
    let middle = if name == "tcp_rmem" { 131_072 } else { 65_536 };
    Finding::warning(Check::Host, format!("{found}: that is what limits it"))
        .of(name)
        .advice(format!("on this machine and on the broker's: sysctl -w net.ipv4.{name}=\"4096 {middle} {wanted}\""))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::super::Verdict;
    use super::*;

    const MS_100: Duration = Duration::from_millis(100);

    fn small() -> HostFacts {
        HostFacts {
            congestion_control: Some("cubic".into()),
            receive_buffer: Some(6 << 20),
            send_buffer: Some(4 << 20),
            slow_start_after_idle: Some(true),
        }
    }

    #[test]
    fn a_short_link_and_an_unknown_host_ask_for_nothing() {
        let found = host(&small(), Duration::from_millis(1), None, 1);
        assert_eq!((found.len(), found[0].verdict), (1, Verdict::Ok));
        assert_eq!(host(&HostFacts::default(), MS_100, None, 1), []);
    }

    #[test]
    fn buffers_are_held_against_what_the_link_holds() {
        // 94 Mbit/s and a gigabit at 100 ms.
        let (slow, fast) = (Held { up: 1_200_000, down: 1_200_000 }, Held { up: 12_500_000, down: 12_500_000 });
        let verdicts = |held, connections| -> Vec<_> {
            host(&small(), MS_100, held, connections).iter().map(|f| (f.of.clone().unwrap_or_default(), f.verdict)).collect()
        };
        let of = |r, w| {
            vec![
                ("tcp_rmem".to_owned(), r),
                ("tcp_wmem".into(), w),
                (String::new(), Verdict::Note),
                (String::new(), Verdict::Note),
            ]
        };
        assert_eq!(verdicts(Some(slow), 1), of(Verdict::Ok, Verdict::Ok));
        assert_eq!(verdicts(Some(fast), 1), of(Verdict::Warning, Verdict::Warning));
        assert_eq!(verdicts(Some(fast), 8), of(Verdict::Ok, Verdict::Ok));
        assert_eq!(verdicts(None, 1), of(Verdict::Ok, Verdict::Ok));
        // A link that is as full as the buffer lets it be.
        let limited = Held { up: 2 << 20, down: 3 << 20 };
        assert_eq!(verdicts(Some(limited), 1), of(Verdict::Warning, Verdict::Warning));
        let found = host(&small(), MS_100, Some(fast), 1);
        assert!(found[0].advice.as_ref().unwrap().contains("net.ipv4.tcp_rmem=\"4096 131072 67108864\""), "{found:?}");
        assert!(found[0].found.contains("252 Mbit/s"), "{found:?}");
    }

    #[test]
    fn bbr_and_a_kept_window_are_fine() {
        let tuned = HostFacts { congestion_control: Some("bbr".into()), slow_start_after_idle: Some(false), ..small() };
        assert!(host(&tuned, MS_100, None, 1).iter().all(|f| f.verdict == Verdict::Ok));
    }
}
