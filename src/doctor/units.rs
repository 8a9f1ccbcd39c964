//! Measured quantities as people read them: rounded, with their unit.

use std::time::Duration;

/// `12.3 MiB`.
pub(super) fn bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return format!("{} {unit}", rounded(value));
        }
        value /= 1024.0;
    }
    format!("{} TiB", rounded(value))
}

/// `94 Mbit/s`, of bytes a second.
pub(super) fn rate(bytes_per_s: f64) -> String {
    let bits = bytes_per_s * 8.0;
    match bits {
        bits if bits < 1e6 => format!("{} kbit/s", rounded(bits / 1e3)),
        bits if bits < 1e9 => format!("{} Mbit/s", rounded(bits / 1e6)),
        bits => format!("{} Gbit/s", rounded(bits / 1e9)),
    }
}

/// `101 ms`, `0.25 ms`, `12 s`.
pub(super) fn time(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1e3;
    match ms {
        ms if ms < 0.01 => format!("{} us", rounded(ms * 1e3)),
        ms if ms < 10_000.0 => format!("{} ms", rounded(ms)),
        ms => format!("{} s", rounded(ms / 1e3)),
    }
}

/// How old something is, in its largest unit: `14 d`, `3 h`, `20 min`, `5 s`.
pub(super) fn age(age: Duration) -> String {
    let seconds = age.as_secs();
    match seconds {
        s if s >= 2 * 86_400 => format!("{} d", s / 86_400),
        s if s >= 2 * 3_600 => format!("{} h", s / 3_600),
        s if s >= 120 => format!("{} min", s / 60),
        s => format!("{s} s"),
    }
}

/// A duration as a number of milliseconds, to the microsecond: for machines.
pub(super) fn ms(time: Duration) -> f64 {
    time.as_micros() as f64 / 1e3
}

/// Three digits, but never fewer than stand before the point.
fn rounded(value: f64) -> String {
    let places = match value {
        v if v >= 100.0 => 0,
        v if v >= 10.0 => 1,
        _ => 2,
    };
    let text = format!("{value:.places$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_rounded_to_what_is_read() {
        assert_eq!([0, 1023, 1536, 10 << 20, 5 << 40].map(bytes), ["0 B", "1023 B", "1.5 KiB", "10 MiB", "5 TiB"]);
        assert_eq!([12.5e6, 125e6, 2_000.0].map(rate), ["100 Mbit/s", "1 Gbit/s", "16 kbit/s"]);
        let times = [0, 250, 9_999, 101_234, 12_000_000].map(|micros| time(Duration::from_micros(micros)));
        assert_eq!(
            [5, 119, 7_199, 7_200, 1_209_600].map(|s| age(Duration::from_secs(s))),
            ["5 s", "119 s", "119 min", "2 h", "14 d"]
        );
        assert_eq!(times, ["0 us", "0.25 ms", "10 ms", "101 ms", "12 s"]);
    }
}
