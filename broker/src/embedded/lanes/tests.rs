#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

use super::*;

/// Counts how often it was woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Woken {
    fn times(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

const NOW: Millis = 1_000;
const LEASE: Duration = Duration::from_secs(30);

struct Test {
    lanes: Lanes,
    lane: Lane,
    start: Instant,
}

impl Test {
    /// Lanes in which `messages` wait, of 100 bytes each, numbered from 1.
    fn with(messages: u64) -> Self {
        let mut lanes = Lanes::new(&EmbeddedOptions::default().lane_bytes(1024).unwrap());
        let lane = Lane::default();
        for sequence in 1..=messages {
            lanes.reserve(&lane, weight(100));
            lanes.arrive(&lane, Entry { sequence, stored_at: sequence, size: 100, delivered: 0 }, None);
        }
        Self { lanes, lane, start: Instant::now() }
    }

    /// A source asks: the sequence and number of the delivery it gets.
    fn ask(&mut self, source: u64, waker: &Arc<Woken>) -> Option<(u64, u32)> {
        let waker = Waker::from(Arc::clone(waker));
        let taken = self.lanes.take(&self.lane, source, &waker, self.start + LEASE, NOW)?.unwrap();
        Some((taken.entry.sequence, taken.entry.delivered))
    }

    fn take(&mut self) -> Option<(u64, u32)> {
        let taken = self.ask(u64::MAX, &Arc::default());
        self.lanes.leave(&self.lane, u64::MAX);
        taken
    }

    fn counts(&self) -> (u64, u64) {
        let stats = self.lanes.stats(&self.lane, NOW);
        (stats.pending, stats.in_flight)
    }
}

#[test]
fn sources_that_wait_take_turns() {
    let mut test = Test::with(0);
    let (first, second) = (Arc::default(), Arc::default());
    assert_eq!(test.ask(1, &first), None);
    assert_eq!(test.ask(2, &second), None);
    for sequence in 1..=3 {
        let entry = Entry { sequence, stored_at: NOW, size: 0, delivered: 0 };
        test.lanes.arrive(&test.lane.clone(), entry, None);
    }
    assert!(first.times() > 0 && second.times() > 0);
    assert_eq!(test.ask(1, &first), Some((1, 1)));
    // One is kept for the other, who was first: however quick, nobody takes all.
    assert_eq!(test.ask(1, &first), Some((2, 1)));
    assert_eq!(test.ask(1, &first), None);
    assert_eq!(test.ask(2, &second), Some((3, 1)));
}

#[test]
fn who_leaves_hands_on_its_turn() {
    let mut test = Test::with(0);
    let (first, second) = (Arc::default(), Arc::default());
    assert_eq!(test.ask(1, &first), None);
    assert_eq!(test.ask(2, &second), None);
    test.lanes.arrive(&test.lane.clone(), Entry { sequence: 1, stored_at: NOW, size: 0, delivered: 0 }, None);
    assert_eq!((first.times(), second.times()), (1, 0));
    test.lanes.leave(&test.lane.clone(), 1);
    assert_eq!(second.times(), 1);
    assert_eq!(test.ask(2, &second), Some((1, 1)));
}

#[test]
fn a_lease_that_ran_out_is_handed_on_and_its_old_owner_harms_nobody() {
    let mut test = Test::with(1);
    assert_eq!(test.take(), Some((1, 1)));
    assert_eq!((test.take(), test.counts()), (None, (0, 1)));
    test.lanes.expire(test.start + LEASE);
    assert_eq!(test.counts(), (1, 0));
    // Late before anybody else has it, and late after.
    assert!(!test.lanes.renew(1, 1, test.start));
    assert_eq!(test.take(), Some((1, 2)));
    assert!(!test.lanes.renew(1, 1, test.start));
    test.lanes.release(1, 1, Duration::ZERO, test.start);
    test.lanes.put_back(1, 1);
    assert_eq!(test.counts(), (0, 1));
    assert!(test.lanes.renew(1, 2, test.start + 2 * LEASE));
    test.lanes.expire(test.start + LEASE);
    assert_eq!(test.counts(), (0, 1), "renewed, it does not run out");
}

#[test]
fn an_ack_counts_however_late() {
    let mut test = Test::with(2);
    test.take();
    test.take();
    test.lanes.release(2, 1, LEASE, test.start);
    test.lanes.expire(test.start + LEASE);
    assert_eq!(test.counts(), (2, 0));
    assert!(test.lanes.ack(1, None) && test.lanes.ack(2, None) && !test.lanes.ack(2, None));
    assert_eq!((test.take(), test.counts()), (None, (0, 0)));
    let removed: Vec<_> = test.lanes.take_removed().into_iter().map(|removed| removed.entry.sequence).collect();
    assert_eq!(removed, [1, 2]);
    assert!(test.lanes.lanes.is_empty() && test.lanes.held.is_empty() && test.lanes.deadlines.is_empty());
    assert_eq!(test.lanes.weight, 0);
}

#[test]
fn what_was_released_waits_its_delay_and_what_was_put_back_was_no_delivery() {
    let mut test = Test::with(1);
    test.take();
    test.lanes.release(1, 1, Duration::MAX, test.start);
    assert_eq!((test.take(), test.counts()), (None, (1, 0)));
    assert!(test.lanes.ack(1, None));

    let mut test = Test::with(1);
    test.take();
    test.lanes.put_back(1, 1);
    assert_eq!(test.take(), Some((1, 1)));
}

#[test]
fn a_lane_is_full_for_itself_alone() {
    let mut test = Test::with(4);
    let (full, other) = (test.lane.clone(), Lane { priority: wf_schema::Priority::High, ..Lane::default() });
    let wanted = |lane: &Lane, weight| test.lanes.full([(lane, weight)].into_iter()).cloned();
    assert_eq!(wanted(&full, weight(100)), Some(full.clone()));
    assert_eq!(wanted(&other, weight(100)), None);
    assert_eq!(wanted(&other, 10_000_000), None, "an empty lane takes any message");
    test.take();
    test.lanes.ack(1, None);
    assert_eq!(test.lanes.full([(&full, weight(100))].into_iter()), None);
}

#[test]
fn the_writer_is_woken_for_what_cannot_wait() {
    let mut test = Test::with(2);
    let long = test.start + 2 * LEASE;
    assert_eq!(test.lanes.sleep(test.start, long), long);
    test.take();
    assert!(test.lanes.must_wake(), "its lease runs out before the writer wakes");
    assert!(!test.lanes.must_wake(), "once is enough");
    assert_eq!(test.lanes.sleep(test.start, long), test.start + LEASE);
    test.take();
    assert!(!test.lanes.must_wake());
    test.lanes.ack(1, None);
    assert!(test.lanes.must_wake());
    assert_eq!(test.lanes.sleep(test.start, long), test.start, "there is work");
}

#[test]
fn the_end_is_told_to_who_waits() {
    let mut test = Test::with(1);
    test.take();
    let waiting = Arc::default();
    assert_eq!(test.ask(1, &waiting), None);
    test.lanes.end(Ended::Closed);
    assert_eq!(waiting.times(), 1);
    let waker = Waker::from(waiting);
    assert!(test.lanes.take(&test.lane.clone(), 1, &waker, test.start, NOW).unwrap().is_err());
    assert!(!test.lanes.ack(1, None) && !test.lanes.renew(1, 1, test.start));
}
