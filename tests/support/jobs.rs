//! Jobs to run, and what must become of them.

use std::collections::BTreeMap;
use std::fmt::Write;

/// A file of jobs of all sorts: of several kinds, queues and priorities, some of which fail, for good or at first.
pub(crate) struct Mixed {
    pub(crate) lines: String,
    /// What must become of them, as [`super::Outcomes::told`].
    pub(crate) expected: BTreeMap<String, u64>,
    /// How many must complete.
    pub(crate) completed: u64,
}

impl Mixed {
    pub(crate) fn new(jobs: u64) -> Self {
        let mut mixed = Self { lines: String::new(), expected: BTreeMap::new(), completed: 0 };
        for n in 0..jobs {
            let (line, told) = job(n);
            mixed.completed += u64::from(told.contains(" completed "));
            mixed.lines.push_str(&line);
            mixed.lines.push('\n');
            *mixed.expected.entry(told).or_default() += 1;
        }
        mixed
    }
}

/// Job `n`, and what must become of it. Whoever mixes up two jobs changes a number in what is told.
fn job(n: u64) -> (String, String) {
    match n % 100 {
        7 => (
            format!(r#"{{"kind":"math_divide","args":{{"a":{n},"b":0}}}}"#),
            format!("math_divide default discarded 1 division_by_zero: {n} / 0 is not a number"),
        ),
        13 => (
            format!(r#"{{"kind":"fail","args":{{"message":"job {n}"}},"max_attempts":2,"backoff":{{"min":"1ms","max":"2ms"}}}}"#),
            format!("fail default discarded 2 failed_on_purpose: job {n}"),
        ),
        17 => (
            r#"{"kind":"fail","args":{"times":1},"backoff":{"min":"1ms","max":"2ms"}}"#.to_owned(),
            "fail default completed 2 null".to_owned(),
        ),
        23 => (
            format!(r#"{{"kind":"fail","args":{{"permanent":true,"message":"job {n}"}},"queue":"mail"}}"#),
            format!("fail mail discarded 1 failed_on_purpose: job {n}"),
        ),
        31 => (
            format!(r#"{{"kind":"fail","args":{{"panic":true,"message":"job {n}"}},"max_attempts":1}}"#),
            format!("fail default discarded 1 panic: job {n}"),
        ),
        rest if rest < 40 => (
            format!(r#"{{"kind":"echo","args":{{"n":{n},"text":"ä \" {{}}"}},"queue":"mail","priority":"high"}}"#),
            format!(r#"echo mail completed 1 {{"n":{n},"text":"ä \" {{}}"}}"#),
        ),
        rest if rest < 60 => (
            format!(r#"{{"kind":"math_subtract","args":{{"a":{n},"b":0.5}},"priority":"low"}}"#),
            format!("math_subtract default completed 1 {:?}", n as f64 - 0.5),
        ),
        61 => (r#"{"kind":"noop","args":null}"#.to_owned(), "noop default completed 1 null".to_owned()),
        _ => (
            format!(r#"{{"kind":"math_add","args":{{"a":{n},"b":1}}}}"#),
            format!("math_add default completed 1 {:?}", n as f64 + 1.0),
        ),
    }
}

/// Jobs that say their numbers. `more` goes between their fields: `,"queue":"mail"`.
pub(crate) fn echoes(numbers: std::ops::Range<u64>, more: &str) -> String {
    numbers.fold(String::new(), |mut lines, n| {
        let _ = writeln!(lines, r#"{{"kind":"echo","args":{{"n":{n}}}{more}}}"#);
        lines
    })
}

/// Jobs that take `ms` milliseconds each.
pub(crate) fn sleeps(count: u64, ms: u64, more: &str) -> String {
    format!("{{\"kind\":\"sleep\",\"args\":{{\"ms\":{ms}}}{more}}}\n").repeat(count as usize)
}
