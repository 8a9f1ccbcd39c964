#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use wf_broker::Delivery;
use wf_schema::{BatchBuilder, BatchId, Format, Header, Job, Kind, Lane, Limits, RecordBuilder, RecordHeader, RunId};

use super::*;
use crate::model::NoLease;

fn work(jobs: usize) -> Arc<Work> {
    let mut open = BatchBuilder::new(Header::new(BatchId::from(1), Format::Json));
    (0..jobs).for_each(|n| assert!(open.push(&Job::new("k", &n).unwrap()).is_ok()));
    let delivery = Delivery {
        lane: Lane::default(),
        id: "".into(),
        bytes: open.encode(),
        run: RunId::new('t', 1),
        delivered: 3,
        fallback_id: BatchId::from(1),
        stored_at: 0,
        fired: None,
        lease: Arc::new(NoLease),
    };
    Work::read(&delivery, &Limits::default()).unwrap()
}

/// A record of `writer`, in which the jobs of `done` completed, and which marks `mark`.
fn record(writer: u64, done: &[u32], mark: Option<Mark>) -> Record {
    let mut record = RecordBuilder::new(RecordHeader {
        batch: BatchId::from(1),
        run: RunId::new('t', 1),
        step: 0,
        writer,
        executor: "x".into(),
        at: 0,
        lane: Lane::default(),
        format: Format::Json,
        cut: 1 << 18,
    });
    if let Some(mark) = mark {
        record = record.marking(mark);
    }
    for index in done {
        assert!(record.completed(*index, 1, &Kind::new("k").unwrap(), b""));
    }
    Record::decode(&record.encode(), &Limits::default()).unwrap()
}

fn read(records: &[Record], work: &Work) -> Vec<(usize, u32, u32)> {
    let suspicion = Suspicion::read(records, work, |writer| writer == 99);
    let mut known: Vec<_> = suspicion.0.iter().map(|(place, losses)| (*place, losses.together, losses.alone)).collect();
    known.sort_unstable();
    known
}

#[test]
fn what_was_begun_and_has_no_outcome_was_lost_with_its_writer() {
    let work = work(4);
    let all = record(1, &[0], Some(Mark::All));
    assert_eq!(read(std::slice::from_ref(&all), &work), [(1, 1, 0), (2, 1, 0), (3, 1, 0)]);
    assert_eq!(read(&[all.clone(), record(1, &[1, 2], None)], &work), [(3, 1, 0)]);
    // It says so once, whoever looks, until the next one marks something.
    let alone = |writer| record(writer, &[], Some(Mark::Jobs(vec![2])));
    assert_eq!(read(&[all.clone(), alone(2)], &work), [(1, 1, 0), (2, 1, 1), (3, 1, 0)]);
    assert_eq!(read(&[alone(1), alone(2), alone(3)], &work), [(2, 0, 3)]);
    // What one writer marks takes the place of what it marked before.
    assert_eq!(read(&[all, alone(1), record(1, &[2], None)], &work), []);
}

#[test]
fn who_gives_back_or_lives_has_lost_nothing() {
    let work = work(2);
    let all = |writer| record(writer, &[], Some(Mark::All));
    assert_eq!(read(&[all(1), record(1, &[], Some(Mark::Nothing))], &work), []);
    assert_eq!(read(&[all(99)], &work), []);
    assert_eq!(read(&[all(99), all(1)], &work), [(0, 1, 0), (1, 1, 0)]);
    // An outcome that came just before its writer was overtaken counts.
    assert_eq!(read(&[all(1), record(1, &[0, 1], None), all(2)], &work), []);
    // What is marked and not there is nobody's.
    assert_eq!(read(&[record(1, &[], Some(Mark::Jobs(vec![7])))], &work), []);
}

#[test]
fn the_more_is_known_against_a_job_the_less_company_it_has_and_the_later_it_runs() {
    let work = work(200);
    let mut settled = vec![false; 200];
    let first = Suspicion::default();
    assert!(!first.asks_for_care(CARELESS) && first.asks_for_care(CARELESS + 1));
    assert_eq!(first.next(&work, &settled).unwrap(), Group { places: (0..200).collect(), suspect: false });

    let mut log = vec![record(1, &[], Some(Mark::All))];
    let then = Suspicion::read(&log, &work, |_| false);
    assert!(then.asks_for_care(2));
    assert_eq!(then.next(&work, &settled).unwrap(), Group { places: (0..FEW).collect(), suspect: true });

    // They were lost: the others go first, and while there are many of them, together.
    log.push(record(2, &[], Some(Mark::Jobs((0..FEW as u32).collect()))));
    let then = Suspicion::read(&log, &work, |_| false);
    let order = |suspicion: &Suspicion, settled: &mut Vec<bool>| {
        let mut groups = Vec::new();
        while let Some(group) = suspicion.next(&work, settled) {
            assert!(group.suspect);
            group.places.iter().for_each(|place| settled[*place] = true);
            groups.push(group.places);
        }
        groups
    };
    let groups = order(&then, &mut settled.clone());
    assert_eq!(groups.iter().take(4).map(Vec::len).collect::<Vec<_>>(), [FEW, FEW, 1, 1]);
    assert_eq!(groups.concat()[..200 - FEW], (FEW..200).collect::<Vec<_>>());

    // One of them was lost alone: it is the last.
    log.push(record(3, &(FEW as u32..200).collect::<Vec<_>>(), Some(Mark::Jobs(vec![5]))));
    settled[FEW..].fill(true);
    let then = Suspicion::read(&log, &work, |_| false);
    assert_eq!(order(&then, &mut settled.clone()).last().unwrap(), &[5]);
    assert!(then.condemned(&work, &settled).is_empty());

    // As often as it takes.
    log.extend((4..6).map(|writer| record(writer, &[], Some(Mark::Jobs(vec![5])))));
    let condemned = Suspicion::read(&log, &work, |_| false).condemned(&work, &settled);
    assert_eq!(condemned.iter().map(|outcome| (outcome.place, outcome.state())).collect::<Vec<_>>(), [(5, State::Discarded)]);
}
