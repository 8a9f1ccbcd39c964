//! Small messages that claim to be large: refused before anything of that size is allocated, by the limit they break.

use bytes::Bytes;
use proptest::prelude::*;
use serde::Serialize;
use wf_schema::{
    Backoff, Batch, BatchBuilder, DeadLetter, Failure, Format, Job, Kind, Lane, Limits, PastFailure, Policy, PushError, Record,
    RecordBuilder, Remains, State, WireError,
};

use crate::craft::{self, BatchBody, RecordBody};
use crate::samples;
use crate::targets::envelope;

fn refused(message: &Bytes) -> WireError {
    Batch::decode(message, &Limits::default()).unwrap_err()
}

#[test]
fn a_body_that_would_be_too_large_is_refused_by_its_length() {
    let limit = Limits::default().raw_bytes;
    let over = WireError::Limit { what: "the size of the decompressed body", value: limit + 1, limit };
    assert_eq!(refused(&envelope(1, limit as u32 + 1, b"tiny")), over);
    assert_eq!(refused(&envelope(0, limit as u32 + 1, b"tiny")), over);
    assert!(matches!(refused(&envelope(1, u32::MAX, b"tiny")), WireError::Limit { .. }));
}

#[test]
fn a_body_gets_no_more_memory_than_its_bytes_can_fill() {
    // Within the limit, but LZ4 cannot make 16 MiB of four bytes.
    assert_eq!(refused(&envelope(1, 16 << 20, b"tiny")), WireError::Truncated { have: 4, want: (16 << 20) / 255 });
    // What LZ4 packs best passes that check, and is then no batch.
    let zeros = craft::packed(1, &vec![0; (16 << 20) - 1]);
    assert!(zeros.len() < 70_000);
    assert!(matches!(refused(&zeros), WireError::Malformed(_)));
    // A length that is not the one the body has.
    for raw_len in [1, 100, 900, 1_100, 5_000] {
        let body = envelope(1, raw_len, &lz4_flex::block::compress(&[0; 1_000]));
        assert!(Batch::decode(&body, &Limits::default()).is_err());
    }
}

#[test]
fn a_count_is_no_reason_to_allocate() {
    let over = |count| BatchBody { count, ..BatchBody::one() }.message();
    assert_eq!(
        refused(&over(u32::MAX)),
        WireError::Limit { what: "the number of jobs", value: u32::MAX as usize, limit: 65_536 }
    );
    assert_eq!(refused(&over(65_536)), WireError::Malformed("more jobs than columns"));
    let record = RecordBody { count: 1_000_000, ..RecordBody::one() }.message();
    assert!(matches!(Record::decode(&record, &Limits::default()), Err(WireError::Limit { value: 1_000_000, .. })));
}

#[test]
fn a_million_tiny_jobs_are_refused() {
    let body = BatchBody { count: 1_000_000, args_len: vec![0; 1_000_000], args: Vec::new(), ..BatchBody::one() };
    let message = craft::packed(1, &postcard::to_stdvec(&body).unwrap());
    assert!(message.len() < 5_000);
    assert!(matches!(refused(&message), WireError::Limit { value: 1_000_000, limit: 65_536, .. }));
    for text in [format!("[{}1]", "1,".repeat(999_999)), "{\n".repeat(1_000_000), "{}\n".repeat(1_000_000)] {
        let header = samples::header(Format::Json);
        let error = Batch::from_json(&text.into(), &Lane::default(), header, &Limits::default()).unwrap_err();
        assert_eq!(error, WireError::Limit { what: "the number of jobs", value: 65_537, limit: 65_536 });
    }
}

#[test]
fn a_table_is_no_reason_to_allocate() {
    let kinds = |count| BatchBody { kinds: vec!["k".to_owned(); count], kind_of: vec![0], ..BatchBody::one() }.message();
    assert!(Batch::decode(&kinds(256), &Limits::default()).is_ok());
    assert_eq!(refused(&kinds(257)), WireError::Malformed("the columns of a batch"));
    let policies =
        |count| BatchBody { policies: vec![Policy::default(); count], policy_of: vec![0], ..BatchBody::one() }.message();
    assert!(Batch::decode(&policies(256), &Limits::default()).is_ok());
    assert_eq!(refused(&policies(257)), WireError::Malformed("the columns of a batch"));
    let kinds = RecordBody { kinds: vec!["k".to_owned(); 257], kind_of: vec![0], ..RecordBody::one() }.message();
    assert!(Record::decode(&kinds, &Limits::default()).is_err());
    // Two million empty kinds in a message of some thousand bytes.
    let body = (samples::header(Format::Json), vec![""; 2 << 20]);
    assert!(matches!(refused(&craft::packed(1, &postcard::to_stdvec(&body).unwrap())), WireError::Malformed(_)));
}

#[test]
fn args_and_traces_have_their_limits() {
    let limits = Limits { args_bytes: 1, ..Limits::default() };
    let error = Batch::decode(&BatchBody::one().message(), &limits).unwrap_err();
    assert_eq!(error, WireError::Limit { what: "the args of a job", value: 2, limit: 1 });
    let mut body = BatchBody::one();
    body.header.trace = Some("t".repeat(Limits::TRACE + 1));
    assert!(matches!(refused(&body.message()), WireError::Malformed(_)));
    // A writer would rather lose the trace than the batch.
    let header = body.header;
    let message = BatchBuilder::new(header).encode();
    assert_eq!(Batch::decode(&message, &Limits::default()).unwrap().header().trace, None);
}

#[test]
fn a_history_that_lies_is_empty() {
    #[derive(Serialize)]
    struct Lying(u64, [u8; 8]);
    let lie = postcard::to_stdvec(&Lying(u64::MAX, [0; 8])).unwrap();
    let many = postcard::to_stdvec(&vec![(1_u32, 1_u64, "", ""); 5_000]).unwrap();
    let large = vec![0; Limits::HISTORY_BYTES + 1];
    for histories in [lie, many, large] {
        let mut length = Vec::new();
        let mut rest = histories.len();
        while rest >= 128 {
            length.push(rest as u8 | 128);
            rest >>= 7;
        }
        length.push(rest as u8);
        let one = BatchBody::one();
        let body = BatchBody { indexes: vec![0], attempts: vec![2], history_len: length, histories, ..one };
        let batch = Batch::decode(&body.message(), &Limits::default()).unwrap();
        assert!(batch.get(0).unwrap().history().is_empty());
        assert_eq!(batch.encode_within(10_000).unwrap().len(), 1, "it is not carried on either, or is harmless");
    }
}

#[test]
fn what_is_inside_a_dead_letter_is_held_to_the_same_limits() {
    let letter = |message| DeadLetter { lane: Lane::default(), at: 0, executor: String::new(), remains: Remains::Jobs(message) };
    let jobs = |message| {
        let letter = DeadLetter::decode(&letter(message).encode(), &Limits::default()).unwrap();
        letter.jobs(&Limits::default()).unwrap_err()
    };
    assert!(matches!(jobs(envelope(1, u32::MAX, b"tiny")), WireError::Limit { .. }));
    assert_eq!(jobs(letter(Bytes::new()).encode()), WireError::Content { found: 3, expected: 1 });
    assert_eq!(jobs(Bytes::new()), WireError::Magic);
    // A message as large as a message can be has a letter that can be read.
    let raw = Bytes::from(vec![7; Limits::default().raw_bytes]);
    let letter =
        DeadLetter { remains: Remains::Raw { failure: Failure::new("undecodable", ""), bytes: raw }, ..letter(Bytes::new()) };
    assert_eq!(DeadLetter::decode(&letter.encode(), &Limits::default()).unwrap(), letter);
}

#[test]
fn a_builder_writes_nothing_that_a_reader_refuses() {
    let limits = Limits::default();
    let mut open = BatchBuilder::new(samples::header(Format::Json));
    let large = Job { args: vec![b'1'; limits.args_bytes].into(), ..samples::job("k", "1") };
    let larger = Job { args: vec![b'1'; limits.args_bytes + 1].into(), ..samples::job("k", "1") };
    let nameless = Job { kind: "a b".into(), ..samples::job("k", "1") };
    assert_eq!(open.push(&larger), Err(PushError::TooLarge));
    assert_eq!(open.push(&nameless), Err(PushError::Kind));
    assert_eq!(open.push(&Job::compact("k", &1).unwrap()), Err(PushError::Format));
    assert!(!PushError::TooLarge.fits_elsewhere() && PushError::Full.fits_elsewhere());
    let full = loop {
        if let Err(error) = open.push(&large) {
            break error;
        }
    };
    assert_eq!((full, open.len()), (PushError::Full, 63));
    assert_eq!(Batch::decode(&open.encode(), &limits).unwrap().len(), 63);

    let mut record = RecordBuilder::new(samples::record_header());
    let kind = Kind::new("k").unwrap();
    let long = || Some(Failure { kind: "t".repeat(1_000), message: "m".repeat(1_000_000) });
    assert!(record.failed(0, 0, &kind, State::Discarded, long(), None));
    while record.completed(record.len() as u32, 1, &kind, &large.args) {}
    assert_eq!(record.len(), 64);
    let record = Record::decode(&record.encode(), &limits).unwrap();
    let first = record.iter().next().unwrap();
    assert_eq!((first.attempt(), first.failure().unwrap().message.len()), (1, Failure::MAX_MESSAGE));
}

#[test]
fn tables_that_are_full_say_so() {
    let mut open = BatchBuilder::new(samples::header(Format::Json));
    let mut record = RecordBuilder::new(samples::record_header());
    for n in 0..256 {
        open.push(&samples::job(&format!("k{n}"), "1")).unwrap();
        assert!(record.completed(n, 1, &Kind::new(&format!("k{n}")).unwrap(), b""));
    }
    assert_eq!(open.push(&samples::job("k256", "1")), Err(PushError::Full));
    assert_eq!(open.push(&samples::job("k17", "1")), Ok(256));
    assert!(!record.completed(256, 1, &Kind::new("k256").unwrap(), b""));
    assert_eq!(Batch::decode(&open.encode(), &Limits::default()).unwrap().get(256).unwrap().kind().as_str(), "k17");
    assert_eq!(Record::decode(&record.encode(), &Limits::default()).unwrap().iter().last().unwrap().kind().as_str(), "k255");
}

#[test]
fn only_the_newest_failures_are_carried() {
    let mut open = BatchBuilder::new(samples::header(Format::Json));
    open.push(&samples::job("k", "1")).unwrap();
    let origin = Batch::decode(&open.encode(), &Limits::default()).unwrap();
    let past = |attempt| PastFailure { attempt, at: 1, failure: Failure::new("t", "m".repeat(5_000)) };
    let past: Vec<_> = (1..=30).map(past).collect();
    let mut open = BatchBuilder::new(origin.header().clone());
    open.carry(&origin.get(0).unwrap(), 31, Some(&past)).unwrap();
    let batch = Batch::decode(&open.encode(), &Limits::default()).unwrap();
    assert_eq!(batch.get(0).unwrap().history(), past[20..]);
}

proptest! {
    #[test]
    fn a_policy_comes_out_within_its_limits(
        max_attempts: u32, timeout_ms: u64, min_ms: u64, max_ms: u64, expires_in_ms: Option<u64>, store_result: bool,
    ) {
        let policy = Policy { max_attempts, timeout_ms, backoff: Backoff { min_ms, max_ms }, expires_in_ms, store_result };
        let message = BatchBody { policies: vec![policy.clone()], ..BatchBody::one() }.message();
        let batch = Batch::decode(&message, &Limits::default()).unwrap();
        let read = batch.get(0).unwrap().policy().clone();
        prop_assert!((1..=Policy::MAX_ATTEMPTS).contains(&read.max_attempts));
        prop_assert!(read.timeout_ms >= 1 && read.timeout() <= Policy::MAX_TIMEOUT);
        prop_assert!(read.backoff.min_ms <= read.backoff.max_ms && read.backoff.max_ms <= Policy::MAX_BACKOFF.as_millis() as u64);
        prop_assert!(read.backoff.delay(u32::MAX, 1.0) <= Policy::MAX_BACKOFF);
        prop_assert_eq!((read.expires_in_ms, read.store_result), (expires_in_ms, store_result));
        // What is within the limits is left alone.
        let message = BatchBody { policies: vec![read.clone()], ..BatchBody::one() }.message();
        let again = Batch::decode(&message, &Limits::default()).unwrap();
        prop_assert_eq!(again.get(0).unwrap().policy(), &read);
    }
}

#[test]
fn the_absurd_is_brought_to_the_nearest_that_is_not() {
    let read = |policy: Policy| {
        let message = BatchBody { policies: vec![policy], ..BatchBody::one() }.message();
        Batch::decode(&message, &Limits::default()).unwrap().get(0).unwrap().policy().clone()
    };
    let backoff = Backoff { min_ms: 9, max_ms: 3 };
    let zero = read(Policy { max_attempts: 0, timeout_ms: 0, backoff, ..Policy::default() });
    assert_eq!((zero.max_attempts, zero.timeout_ms, zero.backoff), (1, 1, Backoff { min_ms: 9, max_ms: 9 }));
    let backoff = Backoff { min_ms: u64::MAX, max_ms: u64::MAX };
    let huge = read(Policy { max_attempts: u32::MAX, timeout_ms: u64::MAX, backoff, ..Policy::default() });
    assert_eq!((huge.max_attempts, huge.timeout_ms), (1_000, 86_400_000));
    assert_eq!(huge.backoff, Backoff { min_ms: 604_800_000, max_ms: 604_800_000 });
}
