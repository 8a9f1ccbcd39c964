//! Whether what may be under way fills the link: bandwidth x delay is what it holds.

use std::time::Duration;

use wf_schema::config::{Config, Size};

use super::super::{Check, Finding, Verdict, units};

/// The largest prefetch that can be set.
const MOST_PREFETCH: u64 = 40 << 20;

/// What the link holds, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::doctor) struct Held {
    /// On the way to the server.
    pub up: u64,
    /// On the way from it.
    pub down: u64,
}

/// What a link of these rates, in bytes a second, holds in one round trip.
pub(in crate::doctor) fn held(up_per_s: f64, down_per_s: f64, rtt: Duration) -> Held {
    Held { up: (up_per_s * rtt.as_secs_f64()) as u64, down: (down_per_s * rtt.as_secs_f64()) as u64 }
}

/// Whether the windows of `config` hold that.
pub(in crate::doctor) fn windows(held: Held, config: &Config) -> Finding {
    let publish = config.publish();
    let by_messages = u64::from(publish.window_messages).saturating_mul(config.batch().wire_bytes.bytes());
    let (bytes, prefetch) = (publish.window_bytes.bytes(), config.prefetch().bytes.bytes());
    let found = format!(
        "the link holds {} up and {} down; publish.window_bytes is {}, publish.window_messages {} full batches, prefetch.bytes {}",
        units::bytes(held.up),
        units::bytes(held.down),
        publish.window_bytes,
        publish.window_messages,
        config.prefetch().bytes,
    );
    // Twice, because what has arrived is answered half a round trip later, and the next may be under way by then.
    let wanted = |held: u64| held.saturating_mul(2).next_power_of_two();
    let mut advice = Vec::new();
    if bytes < held.up {
        advice.push(format!("set publish.window_bytes = \"{}\"", Size::new(wanted(held.up).min(1 << 30))));
    }
    if by_messages < held.up {
        let messages = (2 * held.up).div_ceil(config.batch().wire_bytes.bytes().max(1)).min(5_000);
        advice.push(format!("set publish.window_messages = {messages}, or larger batches (batch.wire_bytes)"));
    }
    // An executor asks again while the answer to its last request is on its way.
    if prefetch < held.down.saturating_mul(2) && prefetch < MOST_PREFETCH {
        advice.push(format!("set prefetch.bytes = \"{}\"", Size::new(wanted(held.down).min(MOST_PREFETCH))));
    }
    let verdict = if advice.is_empty() { Verdict::Ok } else { Verdict::Warning };
    let finding = Finding::new(Check::Windows, verdict, found);
    if advice.is_empty() { finding } else { finding.advice(advice.join("; ")) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use wf_schema::config::Loader;

    #[test]
    fn a_window_that_cannot_fill_the_link_is_named() {
        let gigabit = held(125e6, 125e6, Duration::from_millis(100));
        assert_eq!(gigabit, Held { up: 12_500_000, down: 12_500_000 });
        let table: &[(&str, Held, Verdict, &str)] = &[
            ("wan", gigabit, Verdict::Ok, ""),
            ("local", gigabit, Verdict::Warning, "publish.window_bytes = \"32 MiB\"; set publish.window_messages"),
            ("local", gigabit, Verdict::Warning, "prefetch.bytes = \"32 MiB\""),
            ("wireless", held(1e6, 1e6, Duration::from_millis(300)), Verdict::Ok, ""),
            ("wan", held(1e9, 1e9, Duration::from_millis(100)), Verdict::Warning, "\"256 MiB\""),
            ("wan", held(0.0, 0.0, Duration::ZERO), Verdict::Ok, ""),
        ];
        for (profile, held, verdict, advice) in table {
            let config = Loader::new().flags([("profile", *profile)]).load().unwrap().config;
            let finding = windows(*held, &config);
            assert!(finding.verdict == *verdict && finding.advice.clone().unwrap_or_default().contains(advice), "{finding:?}");
        }
    }
}
