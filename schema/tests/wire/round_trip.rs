//! What is written is read: any batch, record and dead letter that can be built.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use wf_schema::{
    Backoff, Batch, BatchBuilder, BatchId, DeadLetter, Failure, Format, Header, Job, Kind, Lane, Limits, Mark, PastFailure,
    Policy, Priority, Queue, Record, RecordBuilder, RecordHeader, Remains, RunId, State,
};

use crate::targets::{Seen, jobs};

fn format() -> impl Strategy<Value = Format> {
    select(vec![Format::Json, Format::Postcard])
}

fn header() -> impl Strategy<Value = Header> {
    let trace = option::of("[ -~]{0,256}");
    (any::<u128>(), any::<u64>(), any::<Option<u64>>(), format(), any::<u8>(), trace, any::<u32>()).prop_map(
        |(id, enqueued_at, due, format, hops, trace, remember)| Header {
            id: BatchId::from(id),
            enqueued_at,
            due,
            format,
            hops,
            trace,
            remember,
        },
    )
}

fn kind() -> impl Strategy<Value = Kind> {
    "[A-Za-z0-9_.:/-]{1,128}".prop_map(|name| Kind::new(&name).unwrap())
}

fn policy() -> impl Strategy<Value = Policy> {
    let backoff = (0..=604_800_000_u64, 0..=604_800_000_u64).prop_map(|(a, b)| Backoff { min_ms: a.min(b), max_ms: a.max(b) });
    (1..=Policy::MAX_ATTEMPTS, 1..=86_400_000_u64, backoff, any::<Option<u64>>(), any::<bool>()).prop_map(
        |(max_attempts, timeout_ms, backoff, expires_in_ms, store_result)| Policy {
            max_attempts,
            timeout_ms,
            backoff,
            expires_in_ms,
            store_result,
        },
    )
}

fn failure() -> impl Strategy<Value = Failure> {
    (".{0,64}", ".{0,80}").prop_map(|(kind, message)| Failure::new(kind, message))
}

fn history() -> impl Strategy<Value = Vec<PastFailure>> {
    let past = (any::<u32>(), any::<u64>(), failure()).prop_map(|(attempt, at, failure)| PastFailure { attempt, at, failure });
    vec(past, 0..14)
}

fn lane() -> impl Strategy<Value = Lane> {
    let queue = "[A-Za-z0-9_-]{1,64}".prop_map(|name| Queue::new(&name).unwrap());
    (queue, select(&Priority::ALL[..])).prop_map(|(queue, priority)| Lane::new(queue, priority))
}

/// A batch as it was born, and what is in it.
fn fresh(size: std::ops::Range<usize>) -> impl Strategy<Value = (BatchBuilder, Vec<Seen>)> {
    let tables = (vec(kind(), 1..5), vec(policy(), 1..4));
    let picks = vec((any::<Index>(), any::<Index>(), vec(any::<u8>(), 0..200)), size);
    (header(), tables, picks).prop_map(|(header, (kinds, policies), picks)| {
        let mut open = BatchBuilder::new(header);
        let format = open.header().format;
        let mut seen = Vec::new();
        for (index, (kind, policy, args)) in picks.into_iter().enumerate() {
            let (kind, policy) = (kind.get(&kinds).clone(), policy.get(&policies).clone());
            let args = Bytes::from(args);
            let job = Job { args: args.to_vec().into(), format, policy: policy.clone(), ..Job::new(kind.as_str(), &()).unwrap() };
            assert_eq!(open.push(&job), Ok(index as u32));
            seen.push(Seen { index: index as u32, attempt: 1, kind, policy, args, history: Vec::new() });
        }
        (open, seen)
    })
}

/// Some jobs of a batch, in any order, tried again.
fn carried() -> impl Strategy<Value = (BatchBuilder, Vec<Seen>)> {
    let picks = vec((any::<Index>(), 1..=1_000_u32, option::of(history())), 0..30);
    (fresh(1..40), picks).prop_map(|((origin, seen), picks)| {
        let origin = Batch::decode(&origin.encode(), &Limits::default()).unwrap();
        let mut open = BatchBuilder::new(origin.header().clone());
        let mut expected = Vec::new();
        for (at, attempt, history) in picks {
            let at = at.index(seen.len());
            open.carry(&origin.get(at).unwrap(), attempt, history.as_deref()).unwrap();
            let history = history.map_or(Vec::new(), |h| h[h.len().saturating_sub(Limits::HISTORY)..].to_vec());
            expected.push(Seen { attempt, history, ..seen[at].clone() });
        }
        (open, expected)
    })
}

fn record_header() -> impl Strategy<Value = RecordHeader> {
    let run = ("[A-Za-z]", any::<u64>());
    (any::<u128>(), run, any::<u32>(), any::<u64>(), ".{0,40}", any::<u64>(), lane(), format(), any::<u32>()).prop_map(
        |(batch, (store, sequence), step, writer, executor, at, lane, format, cut)| RecordHeader {
            batch: BatchId::from(batch),
            run: RunId::new(store.chars().next().unwrap(), sequence),
            step,
            writer,
            executor,
            at,
            lane,
            format,
            cut,
        },
    )
}

#[derive(Clone, Debug)]
struct Outcome {
    index: u32,
    attempt: u32,
    kind: Kind,
    state: State,
    result: Vec<u8>,
    failure: Option<Failure>,
    retry_at: Option<u64>,
}

fn outcomes() -> impl Strategy<Value = Vec<Outcome>> {
    // A record in which all is plain, one of nothing but results, and one of everything.
    (vec(kind(), 1..4), 0..3_u8).prop_flat_map(|(kinds, sort)| {
        let states = match sort {
            0 | 1 => vec![State::Completed],
            _ => vec![State::Completed, State::Retryable, State::Discarded, State::Cancelled, State::Expired, State::Moved],
        };
        let ended = (select(kinds), select(states), vec(any::<u8>(), 0..40), option::of(failure()), any::<Option<u64>>());
        vec((any::<u32>(), 1..=1_000_u32, ended), 0..40).prop_map(move |outcomes| {
            let mut all = Vec::new();
            for (place, (index, attempt, (kind, state, result, failure, retry_at))) in (0..).zip(outcomes) {
                let (index, attempt) = if sort == 0 { (place, 1) } else { (index, attempt) };
                let done = state == State::Completed;
                let result = if done && sort > 0 { result } else { Vec::new() };
                let (failure, retry_at) = if done { (None, None) } else { (failure, retry_at) };
                all.push(Outcome { index, attempt, kind, state, result, failure, retry_at });
            }
            all
        })
    })
}

fn mark() -> impl Strategy<Value = Option<Mark>> {
    option::of(prop_oneof![
        Just(Mark::Nothing),
        Just(Mark::All),
        vec(any::<u32>(), 0..60).prop_map(Mark::Jobs),
        vec(any::<u32>(), 0..60).prop_map(Mark::Scheduled),
    ])
}

proptest! {
    #[test]
    fn a_batch((open, seen) in fresh(0..60)) {
        let batch = Batch::decode(&open.encode(), &Limits::default()).unwrap();
        prop_assert_eq!(batch.header(), open.header());
        prop_assert_eq!(jobs(&batch), seen);
    }

    #[test]
    fn a_batch_of_jobs_that_were_tried_before((open, seen) in carried()) {
        let batch = Batch::decode(&open.encode(), &Limits::default()).unwrap();
        prop_assert_eq!(batch.header(), open.header());
        prop_assert_eq!(jobs(&batch), seen);
    }

    #[test]
    fn a_batch_in_parts_keeps_every_job_and_id((open, seen) in carried(), max in 400..6_000_usize) {
        let batch = Batch::decode(&open.encode(), &Limits::default()).unwrap();
        match batch.encode_within(max) {
            Ok(parts) => {
                prop_assert!(parts.iter().all(|part| part.len() <= max));
                let parts = parts.iter().map(|part| Batch::decode(part, &Limits::default()).unwrap());
                let mut again = Vec::new();
                for part in parts {
                    prop_assert_eq!(part.header(), batch.header());
                    again.extend(jobs(&part));
                }
                prop_assert_eq!(again, seen);
            }
            // Only if one job alone is too large.
            Err(_) => {
                let alone = |place| {
                    let mut open = BatchBuilder::new(batch.header().clone());
                    let job = batch.get(place).unwrap();
                    open.carry(&job, job.attempt(), None).unwrap();
                    open.encode().len()
                };
                prop_assert!((0..batch.len()).any(|place| alone(place) > max));
            }
        }
    }

    #[test]
    fn a_record(header in record_header(), mark in mark(), outcomes in outcomes()) {
        let mut record = RecordBuilder::new(header.clone());
        if let Some(mark) = &mark {
            record = record.marking(mark.clone());
        }
        for o in &outcomes {
            let fitted = match o.state {
                State::Completed => record.completed(o.index, o.attempt, &o.kind, &o.result),
                _ => record.failed(o.index, o.attempt, &o.kind, o.state, o.failure.clone(), o.retry_at),
            };
            prop_assert!(fitted);
        }
        let raw_len = record.raw_len();
        let message = record.encode();
        prop_assert!(message.len() <= raw_len + 1_000);
        let record = Record::decode(&message, &Limits::default()).unwrap();
        prop_assert_eq!((record.header(), record.mark()), (&header, mark.as_ref()));
        prop_assert_eq!(record.len(), outcomes.len());
        for (read, o) in record.iter().zip(&outcomes) {
            prop_assert_eq!((read.id().batch, read.id().index, read.attempt()), (header.batch, o.index, o.attempt));
            prop_assert_eq!((read.kind(), read.state(), read.result()), (&o.kind, o.state, &o.result[..]));
            prop_assert_eq!((read.failure(), read.retry_at()), (o.failure.as_ref(), o.retry_at));
        }
    }

    #[test]
    fn a_dead_letter(
        lane in lane(), at: u64, executor in ".{0,40}", (open, seen) in carried(), failure in option::of(failure()), raw: Vec<u8>,
    ) {
        let dead_raw = failure.is_some();
        let remains = match failure {
            Some(failure) => Remains::Raw { failure, bytes: raw.into() },
            None => Remains::Jobs(open.encode()),
        };
        let letter = DeadLetter { lane, at, executor, remains };
        let read = DeadLetter::decode(&letter.encode(), &Limits::default()).unwrap();
        prop_assert_eq!(&read, &letter);
        match read.jobs(&Limits::default()).unwrap() {
            Some(batch) => prop_assert_eq!(jobs(&batch), seen),
            None => prop_assert!(dead_raw),
        }
    }
}

#[test]
fn jobs_that_are_as_they_were_born_cost_no_ids() {
    let batch = Batch::decode(&crate::samples::mixed().encode(), &Limits::default()).unwrap();
    assert_eq!(batch.encode_within(usize::MAX).unwrap(), [crate::samples::mixed().encode()]);
}

#[test]
fn a_push_behind_a_carried_job_still_counts_from_the_start() {
    let origin = Batch::decode(&crate::samples::mixed().encode(), &Limits::default()).unwrap();
    let mut open = BatchBuilder::new(origin.header().clone());
    open.push(&crate::samples::job("k", "1")).unwrap();
    open.carry(&origin.get(9).unwrap(), 4, None).unwrap();
    assert_eq!(open.push(&crate::samples::job("k", "2")), Ok(2));
    let batch = Batch::decode(&open.encode(), &Limits::default()).unwrap();
    assert_eq!(batch.iter().map(|job| (job.index(), job.attempt())).collect::<Vec<_>>(), [(0, 1), (9, 4), (2, 1)]);
    // Args of another format would be taken for what they are not.
    let mut other = BatchBuilder::new(Header { format: Format::Postcard, ..origin.header().clone() });
    assert!(other.carry(&origin.get(0).unwrap(), 1, None).is_err());
}

#[test]
fn an_uncompressed_batch_shares_the_memory_of_its_message() {
    let message = crate::samples::all().swap_remove(0).message;
    let batch = Batch::decode(&message, &Limits::default()).unwrap();
    let args = batch.get(0).unwrap().args_shared();
    assert!(message.as_ptr_range().contains(&args.as_ptr()));
}
