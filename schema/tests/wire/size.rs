//! How many bytes a job takes on the wire.

use wf_schema::{BatchBuilder, Format, Job, Kind, Limits, RecordBuilder};

use crate::samples::{self, KINDS};

const JOBS: u32 = 1_000;

/// The kind and the args of job n.
type Stream = Box<dyn FnMut(u32, &mut Random) -> (usize, String)>;

/// Bytes a job, for batches of 1,000, in the order of docs/wire-format.md.
pub(crate) fn batches() -> Vec<(&'static str, f64)> {
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let mut rows = Vec::new();
    let mut row = |name, mut job: Stream| {
        let mut open = BatchBuilder::new(samples::header(Format::Json));
        for n in 1..=JOBS {
            let (kind, args) = job(n, &mut random);
            open.push(&samples::job(KINDS[kind], args)).unwrap();
        }
        rows.push((name, per_job(open.encode().len())));
    };
    let args = |a: u32, b: u32| format!(r#"{{"a":{a},"b":{b}}}"#);
    row("`seq`, one kind, `b` fixed", Box::new(move |n, _| (0, args(n, 2))));
    row("`seq`, four kinds in turn, `b` = `a` + 1", Box::new(move |n, _| (n as usize % 4, args(n, n + 1))));
    row("the same from 5,000,000 on", Box::new(move |n, _| (n as usize % 4, args(n + 5_000_000, n + 5_000_001))));
    row("random 10 to 999, one kind", Box::new(move |_, r| (0, args(r.within(10, 999), r.within(10, 999)))));
    row(
        "random 10 to 999, four kinds in turn",
        Box::new(move |n, r| (n as usize % 4, args(r.within(10, 999), r.within(10, 999)))),
    );
    row(
        "random 10 to 999, random kinds",
        Box::new(move |_, r| (r.within(0, 3) as usize, args(r.within(10, 999), r.within(10, 999)))),
    );
    row(
        "the same, spaces after `:` and `,`",
        Box::new(|_, r| (r.within(0, 3) as usize, format!(r#"{{"a": {}, "b": {}}}"#, r.within(10, 999), r.within(10, 999)))),
    );
    row(
        "random 1.0 to 999.9, random kinds",
        Box::new(|_, r| {
            let mut number = || format!("{}.{}", r.within(1, 999), r.within(0, 9));
            let args = format!(r#"{{"a":{},"b":{}}}"#, number(), number());
            (r.within(0, 3) as usize, args)
        }),
    );
    rows.push(("examples/jobs.ndjson", example()));
    rows
}

/// Bytes an outcome, for records of 1,000 that completed.
pub(crate) fn records() -> Vec<(&'static str, f64)> {
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let kinds = KINDS.map(|kind| Kind::new(kind).unwrap());
    let mut rows = Vec::new();
    for (name, results) in [("no results asked for", false), ("results of 0.0 to 1998.0", true)] {
        let mut record = RecordBuilder::new(samples::record_header());
        for n in 0..JOBS {
            let result = if results { format!("{}.0", random.within(0, 1_998)) } else { String::new() };
            assert!(record.completed(n, 1, &kinds[n as usize % 4], result.as_bytes()));
        }
        rows.push((name, per_job(record.encode().len())));
    }
    rows
}

fn example() -> f64 {
    let text = include_str!("../../../examples/jobs.ndjson");
    let mut open = BatchBuilder::new(samples::header(Format::Json));
    for (n, line) in (1..).zip(text.lines()) {
        // As examples/README.md has it made.
        let (kind, a, b) = (KINDS[n % 4], n * 7919 % 1000, n * 104_729 % 999 + 1);
        assert_eq!(line, format!(r#"{{"kind":"{kind}","args":{{"a":{a},"b":{b}}}}}"#));
        open.push(&Job::from_json(line.as_bytes(), &Limits::default()).unwrap()).unwrap();
    }
    assert_eq!(open.len(), 1_000);
    per_job(open.encode().len())
}

fn per_job(bytes: usize) -> f64 {
    bytes as f64 / f64::from(JOBS)
}

/// The same numbers on every machine (xorshift64*).
struct Random(u64);

impl Random {
    fn within(&mut self, low: u32, high: u32) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let random = (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32;
        low + random % (high - low + 1)
    }
}

#[test]
fn a_seed_math_job_takes_at_most_twelve_bytes() {
    for (stream, bytes) in batches() {
        // Two random decimals of four digits are no seed math job: they are here to show where the promise ends.
        let promise = if stream.contains("999.9") { 13.0 } else { 12.0 };
        assert!(bytes <= promise, "{stream}: {bytes} bytes a job");
    }
}

#[test]
fn an_outcome_takes_next_to_nothing() {
    let [(_, plain), (_, results)] = records()[..] else { panic!("two rows") };
    assert!(plain < 0.2 && results < 6.0, "{plain} and {results} bytes an outcome");
}
