//! What holds whatever happens, and in which cases a batch leaves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;
use wf_schema::{Batch, JobId, Priority, Queue};

use super::*;
use crate::group::Group;

const ROOM: usize = 256 << 10;

fn options() -> BatchOptions {
    BatchOptions {
        linger: Duration::from_millis(5),
        wire_bytes: 16 << 10,
        jobs: 50,
        raw_bytes: 24 << 10,
        run_time: Duration::from_secs(1),
    }
}

fn batcher() -> Batcher<()> {
    Batcher::new(options(), ROOM, BatchId::new)
}

fn job(queue: &str, args: usize) -> Job<'static> {
    Job::new("k", &"x".repeat(args)).unwrap().queue(Queue::new(queue).unwrap())
}

fn incoming<'a>(job: &'a Job<'a>) -> Incoming<'a> {
    Incoming { job, args: ArgsRow::One(&job.args), due: None, run_time: Duration::ZERO, trace: None }
}

fn at(millis: u64) -> Moment {
    Moment { clock: Duration::from_millis(millis), wall: 1_795_323_672_000 + millis }
}

/// Pushes jobs as one group.
fn push(batcher: &mut Batcher<()>, jobs: &[Job<'static>], now: Moment) -> usize {
    let jobs: Vec<_> = jobs.iter().map(incoming).collect();
    let taken = batcher.take(&jobs, now, |_, _, _, ()| ());
    batcher.rest();
    taken
}

fn sizes(closed: &[Closed<()>]) -> Vec<usize> {
    closed.iter().map(|closed| closed.batch.len()).collect()
}

#[test]
fn nothing_on_its_way_means_leave_now() {
    let mut batcher = batcher();
    push(&mut batcher, &[job("q", 10)], at(0));
    assert_eq!(sizes(&batcher.take_ready()), [1]);
    assert_eq!(batcher.deadline(), None);
}

#[test]
fn a_group_leaves_together() {
    let mut batcher = batcher();
    push(&mut batcher, &vec![job("q", 10); 7], at(0));
    assert_eq!(sizes(&batcher.take_ready()), [7]);
}

#[test]
fn behind_another_jobs_gather_until_it_arrives() {
    let mut batcher = batcher();
    push(&mut batcher, &[job("q", 10)], at(0));
    let first = batcher.take_ready().pop().unwrap();
    for _ in 0..5 {
        push(&mut batcher, &[job("q", 10)], at(1));
    }
    assert!(batcher.take_ready().is_empty());
    batcher.left(first.held);
    batcher.arrived(&first.place, Some((100, 100)));
    assert_eq!(sizes(&batcher.take_ready()), [5]);
}

#[test]
fn an_arrival_cuts_no_batch_short_while_more_is_coming() {
    let mut batcher = batcher();
    batcher.bulk_begins();
    push(&mut batcher, &[job("q", 10)], at(0));
    let first = batcher.take_ready().pop().unwrap();
    push(&mut batcher, &[job("q", 10)], at(1));
    batcher.left(first.held);
    batcher.arrived(&first.place, Some((100, 100)));
    assert!(batcher.take_ready().is_empty());
    push(&mut batcher, &vec![job("q", 10); 60], at(2));
    assert_eq!(sizes(&batcher.take_ready()), [50]);
    // Those behind them wait no longer than usual, and not at all once nothing more comes.
    assert_eq!(batcher.deadline(), Some(Duration::from_millis(7)));
    batcher.arrived(&first.place, Some((100, 100)));
    assert!(batcher.take_ready().is_empty());
    batcher.bulk_ends();
    assert_eq!(sizes(&batcher.take_ready()), [11]);
}

#[test]
fn full_batches_of_a_bulk_leave_a_few_at_a_time() {
    let mut batcher = batcher();
    batcher.bulk_begins();
    let jobs = vec![job("q", 10); 50];
    let left = |batcher: &mut Batcher<()>, millis| {
        push(batcher, &jobs, at(millis));
        sizes(&batcher.take_ready()).len()
    };
    // The first finds nothing on its way.
    let leaving: Vec<_> = (0..9).map(|_| left(&mut batcher, 0)).collect();
    assert_eq!(leaving, [1, 0, 0, 0, 4, 0, 0, 0, 4]);
    // Nor does one wait longer than jobs do in any case, or longer than the bulk takes.
    assert_eq!(left(&mut batcher, 1), 0);
    assert_eq!(batcher.deadline(), Some(Duration::from_millis(6)));
    batcher.tick(Duration::from_millis(6));
    assert_eq!(batcher.take_ready().len(), 1);
    assert_eq!(left(&mut batcher, 7), 0);
    batcher.bulk_ends();
    assert_eq!(batcher.take_ready().len(), 1);
}

#[test]
fn what_opens_in_the_middle_of_many_waits_for_the_next_of_them() {
    let mut batcher = batcher();
    batcher.bulk_begins();
    let job = job("q", 10);
    let group = [incoming(&job); 7];
    for _ in 0..2 {
        batcher.take(&group, at(0), |_, _, _, ()| ());
        batcher.rest_for_more(at(0).clock);
        assert!(batcher.take_ready().is_empty());
    }
    assert_eq!(batcher.deadline(), Some(Duration::from_millis(5)));
    batcher.bulk_ends();
    assert_eq!(sizes(&batcher.take_ready()), [14]);
}

#[test]
fn or_until_linger_is_over() {
    let mut batcher = batcher();
    push(&mut batcher, &[job("q", 10)], at(0));
    batcher.take_ready();
    push(&mut batcher, &[job("q", 10)], at(1));
    push(&mut batcher, &[job("q", 10)], at(3));
    assert_eq!(batcher.deadline(), Some(Duration::from_millis(6)));
    batcher.tick(Duration::from_millis(5));
    assert!(batcher.take_ready().is_empty());
    batcher.tick(Duration::from_millis(6));
    assert_eq!(sizes(&batcher.take_ready()), [2]);
    assert_eq!(batcher.deadline(), None);
}

#[test]
fn or_until_it_is_full_by_any_measure() {
    // Jobs.
    let mut full = batcher();
    push(&mut full, &vec![job("q", 10); 120], at(0));
    assert_eq!(sizes(&full.take_ready()), [50, 50]);
    // Bytes on the wire: nothing is known of how well they compress, so 16 KiB are 16 KiB.
    let mut full = batcher();
    push(&mut full, &vec![job("q", 1_020); 20], at(0));
    assert_eq!(sizes(&full.take_ready()), [16]);
    // Bytes before compression.
    let mut full = batcher();
    full.ratio = 0.1;
    push(&mut full, &vec![job("q", 1_020); 30], at(0));
    assert_eq!(sizes(&full.take_ready()), [23]);
    // Expected run time.
    let mut full = batcher();
    let slow = job("q", 1);
    let slow = Incoming { run_time: Duration::from_millis(400), ..incoming(&slow) };
    assert_eq!(full.take(&[slow; 6], at(0), |_, _, _, ()| ()), 6);
    full.rest();
    assert_eq!(sizes(&full.take_ready()), [3, 3]);
}

#[test]
fn another_pace_is_for_open_batches_too() {
    let mut batcher = batcher();
    let leave = |batcher: &mut Batcher<()>| {
        let ready = batcher.take_ready();
        ready.iter().for_each(|closed| batcher.left(closed.held));
        sizes(&ready)
    };
    push(&mut batcher, &[job("a", 10), job("b", 10)], at(0));
    leave(&mut batcher);
    push(&mut batcher, &[job("a", 10)], at(1));
    push(&mut batcher, &[job("b", 10)], at(2));
    // A longer wait is for those that open from now on.
    batcher.set_pace(Duration::from_millis(50), 16 << 10, ROOM, Duration::from_millis(3));
    assert_eq!(batcher.deadline(), Some(Duration::from_millis(6)));
    // A shorter one is for all, in the order they came.
    batcher.set_pace(Duration::from_millis(1), 16 << 10, ROOM, Duration::from_millis(3));
    assert_eq!(batcher.deadline(), Some(Duration::from_millis(4)));
    batcher.tick(Duration::from_millis(4));
    assert_eq!(leave(&mut batcher), [1, 1]);
    // Smaller batches, and less room for them: for four jobs, beside what a batch itself takes.
    batcher.set_pace(Duration::from_millis(1), 4 << 10, 9 << 10, Duration::from_millis(5));
    assert_eq!(push(&mut batcher, &vec![job("a", 1_020); 20], at(5)), 4);
    assert_eq!(leave(&mut batcher), [4]);
}

#[test]
fn a_quiet_lane_does_not_wait_for_a_busy_one() {
    let mut batcher = batcher();
    push(&mut batcher, &[job("busy", 10)], at(0));
    batcher.take_ready();
    push(&mut batcher, &[job("quiet", 10)], at(1));
    assert_eq!(sizes(&batcher.take_ready()), [1]);
}

#[test]
fn how_well_jobs_compress_is_learnt() {
    let mut batcher = batcher();
    for _ in 0..40 {
        push(&mut batcher, &[job("q", 10)], at(0));
        for closed in batcher.take_ready() {
            batcher.left(closed.held);
            batcher.arrived(&closed.place, Some((1_000, 500)));
        }
    }
    push(&mut batcher, &vec![job("q", 1_020); 30], at(1));
    assert_eq!(sizes(&batcher.take_ready()), [23], "24 KiB are 12 KiB on the wire by now: the raw size binds");
}

#[test]
fn a_large_job_goes_into_the_next_batch() {
    let mut batcher = batcher();
    push(&mut batcher, &[job("q", 12_000), job("q", 20_000), job("q", 10)], at(0));
    assert_eq!(sizes(&batcher.take_ready()), [1, 1]);
    batcher.close_all();
    assert_eq!(sizes(&batcher.take_ready()), [1]);
}

#[test]
fn a_trace_travels_with_a_job_that_leaves_alone() {
    let traced = |count: usize| {
        let mut batcher = batcher();
        let job = job("q", 10);
        let traced = Incoming { trace: Some("00-a-b-01"), ..incoming(&job) };
        assert_eq!(batcher.take(&vec![traced; count], at(0), |_, _, _, ()| ()), count);
        batcher.rest();
        batcher.take_ready().pop().unwrap().batch.header().trace.clone()
    };
    assert_eq!(traced(1).as_deref(), Some("00-a-b-01"));
    assert_eq!(traced(2), None);
}

#[test]
fn what_falls_due_at_another_time_goes_in_another_batch() {
    let mut batcher = batcher();
    let job = job("q", 10);
    let jobs = [None, Some(1_000), Some(2_000), Some(1_000)].map(|due| Incoming { due, ..incoming(&job) });
    assert_eq!(batcher.take(&jobs, at(0), |_, _, _, ()| ()), 4);
    batcher.rest();
    let mut left: Vec<_> = batcher.take_ready().iter().map(|c| (c.batch.header().due, c.batch.len())).collect();
    left.sort_unstable();
    assert_eq!(left, [(None, 1), (Some(1_000), 2), (Some(2_000), 1)]);
}

#[test]
fn open_batches_that_take_all_the_room_leave() {
    let mut batcher = batcher();
    let jobs: Vec<_> = (0..200).map(|n| job(&format!("q{n}"), 10)).collect();
    push(&mut batcher, &jobs[..60], at(0));
    let on_their_way = batcher.take_ready();
    for closed in &on_their_way {
        batcher.left(closed.held);
    }
    // Each lane has a batch on its way, so these linger: each in an open batch of its own.
    let taken = push(&mut batcher, &[jobs[..60].to_vec(), vec![job("q0", 20_000); 20]].concat(), at(0));
    assert!(taken < 80);
    assert!(!batcher.take_ready().is_empty());
}

#[test]
fn many_lanes_are_forgotten_when_they_are_quiet() {
    let mut batcher = batcher();
    for n in 0..3 * QUIET_PLACES {
        push(&mut batcher, &[job(&format!("q{n}"), 1)], at(0));
        for closed in batcher.take_ready() {
            batcher.left(closed.held);
            batcher.arrived(&closed.place, None);
        }
    }
    assert!(batcher.slots.len() <= QUIET_PLACES + 1);
}

/// What callers and the network may do.
#[derive(Clone, Debug)]
enum Act {
    Push { queue: u8, priority: u8, due: bool, args: usize, count: usize, run_ms: u64, in_a_row: bool },
    Leave,
    Arrive { which: usize, ratio: u8 },
    Wait { micros: u64 },
    Pace { micros: u64, wire_bytes: usize },
    CloseAll,
    Bulk { begins: bool },
}

fn act() -> impl Strategy<Value = Act> {
    let push = (0..3u8, 0..3u8, any::<bool>(), 0..20_000usize, 1..80usize, prop_oneof![Just(0), 0..2_000u64], any::<bool>());
    prop_oneof![
        4 => push.prop_map(|(queue, priority, due, args, count, run_ms, in_a_row)| {
            Act::Push { queue, priority, due, args, count, run_ms, in_a_row }
        }),
        3 => Just(Act::Leave),
        3 => (any::<usize>(), any::<u8>()).prop_map(|(which, ratio)| Act::Arrive { which, ratio }),
        3 => (0..8_000u64).prop_map(|micros| Act::Wait { micros }),
        1 => (0..8_000u64, 1_000..60_000usize).prop_map(|(micros, wire_bytes)| Act::Pace { micros, wire_bytes }),
        1 => Just(Act::CloseAll),
        2 => any::<bool>().prop_map(|begins| Act::Bulk { begins }),
    ]
}

/// Jobs that were taken and what their callers were told; and what has left of them.
#[derive(Default)]
struct Ledger {
    told: HashMap<JobId, (Lane, Option<Millis>)>,
    left: HashSet<JobId>,
}

impl Ledger {
    fn leave(&mut self, ready: &[Closed<()>]) {
        for batch in ready {
            let read = Batch::decode(&batch.batch.encode(), &Limits::default()).unwrap();
            assert!((1..=50).contains(&read.len()));
            assert!(batch.batch.raw_len() <= (24 << 10) + 20, "larger than the raw size allows");
            for job in read.iter() {
                assert!(self.left.insert(job.id()), "it left twice");
                let (lane, due) = self.told.get(&job.id()).expect("it was taken");
                assert_eq!((lane, due), (&batch.place.lane, &batch.place.due));
                assert_eq!(read.header().due, *due);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Every job that was taken leaves once, in its lane, under the id its caller was told; what waits never exceeds
    /// the room; no batch exceeds a limit; none is open longer than linger.
    #[test]
    fn every_job_leaves_once_within_all_bounds(acts in prop::collection::vec(act(), 1..80)) {
        let mut batcher = batcher();
        let mut now = Duration::ZERO;
        let mut linger = options().linger;
        let mut ledger = Ledger::default();
        let mut closed: Vec<Closed<()>> = Vec::new();
        let mut in_window: Vec<Place> = Vec::new();

        for act in acts {
            match act {
                Act::Push { queue, priority, due, args, count, run_ms, in_a_row } => {
                    let job = job(&format!("q{queue}"), args).priority(Priority::ALL[priority as usize]);
                    let due = due.then_some(2_000);
                    // As many rows as there are jobs, or all in one row.
                    let (jobs, run_time) = (vec![job; count], Duration::from_millis(run_ms));
                    let single = |job| Incoming { due, run_time, ..incoming(job) };
                    let mut group = Group::default();
                    jobs.iter().for_each(|job| group.add(job));
                    let rows: Vec<_> = match in_a_row {
                        true => group.rows().map(|(job, args)| Incoming { job, args, due, run_time, trace: None }).collect(),
                        false => jobs.iter().map(single).collect(),
                    };
                    let (mut told, mut news) = (0, true);
                    let taken = batcher.take(&rows, Moment { clock: now, wall: 1 }, |at, count, id, ()| {
                        news &= at == told;
                        for index in id.index..id.index + count {
                            news &= ledger.told.insert(JobId { index, ..id }, (jobs[0].lane.clone(), due)).is_none();
                            told += 1;
                        }
                    });
                    prop_assert!(news && told == taken);
                    batcher.rest();
                }
                Act::Leave => {
                    if let Some(batch) = (!closed.is_empty()).then(|| closed.remove(0)) {
                        batcher.left(batch.held);
                        in_window.push(batch.place);
                    }
                }
                Act::Arrive { which, ratio } => {
                    if !in_window.is_empty() {
                        let place = in_window.swap_remove(which % in_window.len());
                        batcher.arrived(&place, Some((100, usize::from(ratio))));
                    }
                }
                Act::Wait { micros } => {
                    now += Duration::from_micros(micros);
                    batcher.tick(now);
                }
                Act::Pace { micros, wire_bytes } => {
                    linger = Duration::from_micros(micros);
                    batcher.set_pace(linger, wire_bytes, ROOM, now);
                    batcher.tick(now);
                }
                Act::CloseAll => batcher.close_all(),
                Act::Bulk { begins: true } => batcher.bulk_begins(),
                Act::Bulk { begins: false } => batcher.bulk_ends(),
            }
            let ready = batcher.take_ready();
            ledger.leave(&ready);
            closed.extend(ready);
            prop_assert!(batcher.held <= ROOM, "held {}", batcher.held);
            prop_assert!(batcher.deadline().is_none_or(|at| (at > now || linger.is_zero()) && at <= now + linger));
            prop_assert!(batcher.deadlines.iter().is_sorted_by_key(|(at, ..)| at));
            let open: usize = batcher.slots.values().filter_map(|slot| slot.open.as_ref()).map(|open| open.held).sum();
            prop_assert_eq!(open, batcher.held_open);
            let ready: usize = closed.iter().chain(&batcher.ready).map(|c| c.held).sum();
            prop_assert_eq!(open + ready, batcher.held);
            prop_assert!(batcher.ready.len() < TOGETHER && (batcher.bulks > 0 || batcher.ready.is_empty()));
            // Whoever is open waits for something: for another to arrive, or, where somebody is giving many jobs in one
            // go, for more of them until its deadline.
            let lingers = |open: &Open<()>| batcher.deadlines.iter().any(|(.., id)| *id == open.batch.header().id);
            let waits = |slot: &Slot<()>, open| slot.in_flight > 0 || batcher.bulks > 0 && lingers(open);
            prop_assert!(batcher.slots.values().all(|slot| slot.open.as_ref().is_none_or(|open| waits(slot, open))));
        }
        batcher.close_all();
        ledger.leave(&batcher.take_ready());
        prop_assert_eq!(ledger.left.len(), ledger.told.len(), "every job that was taken has left");
    }
}
