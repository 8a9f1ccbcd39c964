//! Fixed messages of every sort: the golden files, the seeds of the fuzzer, and what the damage tests damage.

use bytes::Bytes;
use wf_schema::{
    Backoff, Batch, BatchBuilder, DeadLetter, Failure, Format, Header, Job, Kind, Lane, Limits, Mark, PastFailure, Policy,
    Priority, Queue, Record, RecordBuilder, RecordHeader, Remains, RunId, State,
};

/// 2026-11-22T09:30:00Z.
pub(crate) const THEN: u64 = 1_795_339_800_000;

pub(crate) const KINDS: [&str; 4] = ["math_add", "math_subtract", "math_multiply", "math_divide"];

/// A message and what sort it is: the target of the fuzzer that reads it.
pub(crate) struct Sample {
    pub(crate) name: &'static str,
    pub(crate) target: &'static str,
    pub(crate) message: Bytes,
}

pub(crate) fn all() -> Vec<Sample> {
    let sample = |name, target, message| Sample { name, target, message };
    vec![
        sample("batch-one", "wire_batch", one()),
        sample("batch-mixed", "wire_batch", mixed().encode()),
        sample("batch-retried", "wire_batch", retried()),
        sample("batch-postcard", "wire_batch", postcard()),
        sample("batch-empty", "wire_batch", BatchBuilder::new(header(Format::Json)).encode()),
        sample("record-completed", "wire_record", completed(false)),
        sample("record-results", "wire_record", completed(true)),
        sample("record-failures", "wire_record", failures()),
        sample("record-marked", "wire_record", marked(Mark::Jobs(vec![2, 700]))),
        sample("record-marked-all", "wire_record", marked(Mark::All)),
        sample("record-scheduled", "wire_record", marked(Mark::Scheduled(vec![0, 300]))),
        sample("dead-jobs", "dead_letter", letter(Remains::Jobs(retried()))),
        sample("dead-raw", "dead_letter", letter(raw())),
    ]
}

pub(crate) fn header(format: Format) -> Header {
    Header { enqueued_at: THEN, ..Header::new("01M819EKE0F7VTYYBG4S0P9P1S".parse().unwrap(), format) }
}

pub(crate) fn job(kind: &str, args: impl AsRef<str>) -> Job<'static> {
    let json = format!(r#"{{"kind":"{kind}","args":{}}}"#, args.as_ref());
    Job::from_json(json.as_bytes(), &Limits::default()).unwrap().into_owned()
}

/// One job: the example of docs/wire-format.md.
fn one() -> Bytes {
    let mut open = BatchBuilder::new(header(Format::Json));
    open.push(&job("math_add", r#"{"a":2,"b":3}"#)).unwrap();
    open.encode()
}

/// Several kinds and policies, a trace, a due time.
pub(crate) fn mixed() -> BatchBuilder {
    let trace = Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned());
    let mut open = BatchBuilder::new(Header { due: Some(THEN + 60_000), trace, remember: 86_400, ..header(Format::Json) });
    for n in 0..12 {
        let job = job(KINDS[n % 4], format!(r#"{{"a":{n},"b":{}}}"#, n * n + 1));
        let job = if n % 3 == 0 { job.max_attempts(3).store_result() } else { job };
        open.push(&job).unwrap();
    }
    open
}

/// Jobs that were tried before.
fn retried() -> Bytes {
    let origin = Batch::decode(&mixed().encode(), &Limits::default()).unwrap();
    let past =
        |attempt| PastFailure { attempt, at: THEN + u64::from(attempt), failure: Failure::new("timeout", "over a minute") };
    let mut open = BatchBuilder::new(Header { due: Some(THEN + 90_000), ..origin.header().clone() });
    open.carry(&origin.get(2).unwrap(), 2, Some(&[past(1)])).unwrap();
    open.carry(&origin.get(7).unwrap(), 3, Some(&[past(1), past(2)])).unwrap();
    open.carry(&origin.get(11).unwrap(), 1, None).unwrap();
    open.encode()
}

/// Args as typed Rust producers write them, moved once.
fn postcard() -> Bytes {
    let mut open = BatchBuilder::new(Header { hops: 1, ..header(Format::Postcard) });
    let policy = Policy {
        max_attempts: 1,
        timeout_ms: 1_500,
        backoff: Backoff { min_ms: 0, max_ms: 0 },
        expires_in_ms: Some(3_600_000),
        store_result: false,
    };
    for n in 0..3_u8 {
        open.push(&Job { policy: policy.clone(), ..Job::compact("resize/v2", &(u32::from(n) * 300, "thumb")).unwrap() }).unwrap();
    }
    open.encode()
}

pub(crate) fn record_header() -> RecordHeader {
    RecordHeader {
        batch: header(Format::Json).id,
        run: RunId::new('j', 17),
        step: 1,
        writer: 0x1234_5678_9abc_def0,
        executor: "e1".to_owned(),
        at: THEN + 5_000,
        lane: Lane::new(Queue::new("default").unwrap(), Priority::High),
        format: Format::Json,
        cut: 262_144,
    }
}

fn completed(results: bool) -> Bytes {
    let mut record = RecordBuilder::new(record_header());
    for n in 0..5 {
        let result = if results { format!("{n}.5") } else { String::new() };
        assert!(record.completed(n, 1, &Kind::new("math_add").unwrap(), result.as_bytes()));
    }
    record.encode()
}

/// An outcome of every state.
fn failures() -> Bytes {
    let (add, divide) = (Kind::new("math_add").unwrap(), Kind::new("math_divide").unwrap());
    let zero = || Some(Failure::new("division_by_zero", "6 / 0"));
    let mut record = RecordBuilder::new(record_header());
    assert!(record.completed(3, 2, &add, b"5.0"));
    assert!(record.failed(4, 1, &divide, State::Retryable, Some(Failure::new("timeout", "over 1 s")), Some(THEN + 9_000)));
    assert!(record.failed(7, 3, &divide, State::Discarded, zero(), None));
    assert!(record.failed(8, 1, &add, State::Cancelled, None, None));
    assert!(record.failed(9, 1, &add, State::Expired, Some(Failure::new("expired", "1 s too late")), None));
    assert!(record.failed(10, 1, &add, State::Moved, None, Some(THEN)));
    record.encode()
}

/// What was settled, and what is begun next.
fn marked(mark: Mark) -> Bytes {
    let add = Kind::new("math_add").unwrap();
    let mut record = RecordBuilder::new(record_header()).marking(mark);
    assert!(record.completed(1, 1, &add, b""));
    record.encode()
}

fn raw() -> Remains {
    Remains::Raw {
        failure: Failure::new("undecodable", "the checksum does not match"),
        bytes: Bytes::from_static(b"WF\x01\x00???"),
    }
}

fn letter(remains: Remains) -> Bytes {
    let lane = Lane::new(Queue::new("mail").unwrap(), Priority::Low);
    DeadLetter { lane, at: THEN + 7_000, executor: "e1".to_owned(), remains }.encode()
}

/// The decompressed body of `message`, by the document rather than by the code.
pub(crate) fn body(message: &[u8]) -> Vec<u8> {
    let raw_len = u32::from_le_bytes(*message[4..].first_chunk().unwrap()) as usize;
    match message[3] {
        0 => message[12..].to_vec(),
        _ => lz4_flex::block::decompress(&message[12..], raw_len).unwrap(),
    }
}

/// What the golden tests say of a message that they read.
pub(crate) fn describe(target: &str, message: &Bytes) -> String {
    let limits = Limits::default();
    match target {
        "wire_batch" => {
            let batch = Batch::decode(message, &limits).unwrap();
            let jobs = crate::targets::jobs(&batch).into_iter().map(|job| format!("{job:?}\n"));
            format!("{:?}\n{}", batch.header(), jobs.collect::<String>())
        }
        "wire_record" => {
            let record = Record::decode(message, &limits).unwrap();
            let outcomes = record.iter().map(|o| {
                let result = String::from_utf8_lossy(o.result());
                format!(
                    "{} attempt {} {} {} result {result:?} {:?} {:?}\n",
                    o.id(),
                    o.attempt(),
                    o.kind(),
                    o.state(),
                    o.failure(),
                    o.retry_at()
                )
            });
            let mark = record.mark().map(|mark| format!("marks {mark:?}\n")).unwrap_or_default();
            format!("{:?}\n{mark}{}", record.header(), outcomes.collect::<String>())
        }
        _ => format!("{:?}\n", DeadLetter::decode(message, &limits).unwrap()),
    }
}
