//! Fetching over a distance: a node, its broker with a backlog, and the time between them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use proptest::prelude::*;

use super::*;

/// What a message asks of the node.
#[derive(Clone, Copy, Debug)]
enum Work {
    /// Jobs that wait, each in a slot, for so long.
    Waits { jobs: usize, each: Duration },
    /// Jobs that compute, one after another.
    Computes(Duration),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Delivered,
    /// A job of the message with this number ended.
    Ended(usize),
    Computed,
}

/// One lane of a node with 50 slots and two cores.
struct Far {
    credit: Credit,
    lane: LaneId,
    work: Work,
    round_trip: Duration,
    now: Duration,
    events: BinaryHeap<Reverse<(Duration, Event)>>,
    /// Delivered and not opened.
    queue: usize,
    /// Of the message that is opened and not all begun: its number, the jobs to begin, since when, and how far it is.
    opened: Option<(usize, usize, Duration, Stage)>,
    /// The jobs of each message that have not ended.
    left: Vec<usize>,
    free: usize,
    cores: usize,
    /// The time that slots, or cores, were at work.
    busy: Duration,
    /// The most that ever waited, granted and on its way included, and that waited here.
    most_ahead: usize,
    most_here: usize,
}

const SLOTS: usize = 50;
const CORES: usize = 2;
const SIZE: usize = 10_000;

impl Far {
    fn new(round_trip: Duration, work: Work) -> Self {
        let mut credit = Credit::new(32 << 20, Duration::from_secs(2), SLOTS);
        credit.set_distance(round_trip);
        let lane = credit.add(3);
        let mut far = Self {
            credit,
            lane,
            work,
            round_trip,
            now: Duration::ZERO,
            events: BinaryHeap::new(),
            queue: 0,
            opened: None,
            left: Vec::new(),
            free: SLOTS,
            cores: CORES,
            busy: Duration::ZERO,
            most_ahead: 0,
            most_here: 0,
        };
        far.fetch();
        far
    }

    fn after(&mut self, time: Duration, event: Event) {
        self.events.push(Reverse((self.now + time, event)));
    }

    /// What is granted comes a round trip later: the backlog is endless.
    fn fetch(&mut self) {
        let unstarted = self.opened.map_or(0, |(_, jobs, ..)| jobs);
        for (_, grant) in self.credit.grants(self.free.saturating_sub(unstarted), self.now) {
            for _ in 0..grant.messages {
                self.after(self.round_trip, Event::Delivered);
            }
        }
        self.most_ahead = self.most_ahead.max(self.credit.lanes[0].ahead());
    }

    /// Begins what can be.
    fn begin(&mut self) {
        loop {
            match (self.work, self.opened) {
                (Work::Waits { jobs: all, each }, Some((number, jobs, since, stage))) => {
                    let begin = jobs.min(self.free);
                    self.free -= begin;
                    for _ in 0..begin {
                        self.after(each, Event::Ended(number));
                    }
                    let (left, begun) = (jobs - begin, all.saturating_sub(jobs - begin));
                    if left == 0 {
                        self.opened = None;
                        self.credit.started(self.lane, stage, self.now);
                        self.fetch();
                        continue;
                    }
                    let paced = (self.left[number] < all).then(|| (self.now - since).mul_f64(left as f64 / begun as f64));
                    let ends = stage == Stage::Opened && self.credit.is_ending(self.lane, left, paced);
                    self.opened = Some((number, left, since, if ends { Stage::Ending } else { stage }));
                    if ends {
                        self.credit.ending(self.lane);
                        self.fetch();
                    }
                    return;
                }
                (Work::Waits { jobs, .. }, None) if self.queue > 0 => {
                    self.queue -= 1;
                    self.credit.opened(self.lane, jobs);
                    self.left.push(jobs);
                    self.opened = Some((self.left.len() - 1, jobs, self.now, Stage::Opened));
                }
                (Work::Computes(time), _) if self.queue > 0 && self.cores > 0 => {
                    self.queue -= 1;
                    self.cores -= 1;
                    self.free -= 1;
                    self.credit.opened(self.lane, 1_000);
                    self.after(time, Event::Computed);
                }
                _ => return,
            }
        }
    }

    fn until(&mut self, end: Duration) {
        while let Some(Reverse((at, event))) = self.events.pop() {
            self.now = at;
            if at > end {
                self.events.push(Reverse((at, event)));
                return;
            }
            match (event, self.work) {
                (Event::Delivered, _) => {
                    self.credit.delivered(self.lane, SIZE, at);
                    self.queue += 1;
                }
                (Event::Ended(number), Work::Waits { jobs, each }) => {
                    self.free += 1;
                    self.busy += each;
                    self.left[number] -= 1;
                    if self.left[number] == 0 {
                        self.credit.finished(self.lane, Stage::Started, SIZE, Some(each * jobs as u32));
                    }
                }
                (Event::Computed | Event::Ended(_), work) => {
                    let Work::Computes(time) = work else { continue };
                    self.cores += 1;
                    self.free += 1;
                    self.busy += time;
                    self.credit.started(self.lane, Stage::Opened, at);
                    self.credit.finished(self.lane, Stage::Started, SIZE, Some(time));
                }
            }
            self.begin();
            self.most_here = self.most_here.max(self.queue);
            self.fetch();
        }
    }

    /// How much of the time between `from` and `to` the node was at work.
    fn utilisation(&mut self, from: Duration, to: Duration) -> f64 {
        self.until(from);
        let before = self.busy;
        self.until(to);
        let able = if matches!(self.work, Work::Waits { .. }) { SLOTS } else { CORES };
        (self.busy - before).as_secs_f64() / ((to - from).as_secs_f64() * able as f64)
    }
}

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

#[test]
fn next_door_slow_work_is_fetched_when_it_can_start() {
    for (jobs, each) in [(10, 100 * MS), (50, 20 * MS), (1, 10 * SECOND), (1_000, 100 * MS)] {
        let mut far = Far::new(MS / 2, Work::Waits { jobs, each });
        let fill = SLOTS.div_ceil(jobs);
        let used = far.utilisation(5 * SECOND, 45 * SECOND);
        assert!(used > 0.94, "{jobs} jobs of {each:?}: {used:.3} of the slots were used");
        // What the free slots can start, and one or two more; not the two seconds of work that would be allowed.
        assert!(far.most_ahead <= FIRST_WINDOW.max(fill + 1), "{jobs} jobs of {each:?}: {} ahead", far.most_ahead);
        assert!(far.most_here <= FIRST_WINDOW, "{jobs} jobs of {each:?}: {} waited here", far.most_here);
    }
    // As long as many jobs wait to be begun, nothing more is asked for.
    let mut far = Far::new(MS / 2, Work::Waits { jobs: 1_000, each: 100 * MS });
    far.until(15 * SECOND);
    (far.most_ahead, far.most_here) = (0, 0);
    far.until(45 * SECOND);
    assert_eq!((far.most_ahead, far.most_here), (1, 0));
}

#[test]
fn distance_costs_no_throughput() {
    let quick = Work::Computes(4 * MS);
    let slow = Work::Waits { jobs: 10, each: 100 * MS };
    for (work, round_trip) in [(quick, 100), (quick, 300), (slow, 100), (slow, 300), (quick, 0), (slow, 0)] {
        let mut far = Far::new(round_trip * MS, work);
        let used = far.utilisation(3 * SECOND, 13 * SECOND);
        assert!(used > 0.95, "{work:?} at {round_trip} ms: {used:.3}");
    }
    // Two round trips' worth, and no more.
    let mut far = Far::new(100 * MS, quick);
    far.until(3 * SECOND);
    far.most_ahead = 0;
    far.until(13 * SECOND);
    assert!((50..=140).contains(&far.most_ahead), "{} of 500 a second", far.most_ahead);
}

#[test]
fn what_turns_slow_is_not_fetched_far_ahead_any_more() {
    let mut far = Far::new(100 * MS, Work::Computes(MS));
    far.until(3 * SECOND);
    assert!(far.most_ahead > 100);
    // From the next message on each is 10 s of all slots.
    far.work = Work::Waits { jobs: 1_000, each: SECOND / 2 };
    far.events.retain(|Reverse((_, event))| *event == Event::Delivered);
    (far.free, far.cores) = (SLOTS, CORES);
    far.until(5 * SECOND);
    assert!(!far.credit.asks(far.lane), "it has {} here", far.queue);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn slots_are_kept_at_work_and_little_waits(
        jobs in 1usize..200, each in 2u32..500, round_trip in 0u32..250,
    ) {
        let mut far = Far::new(round_trip * MS, Work::Waits { jobs, each: each * MS });
        let used = far.utilisation(10 * SECOND, 30 * SECOND);
        prop_assert!(used > 0.85, "{used:.3} of the slots were used");
        // Two round trips of all slots, what fills them, and a little for what is whole messages.
        let each_message = (jobs as f64 * f64::from(each)) / 1e3 / SLOTS as f64;
        let stock = 2.0 * f64::from(round_trip.max(10)) / 1e3 / each_message;
        let fill = SLOTS.div_ceil(jobs) as f64;
        prop_assert!(far.most_ahead as f64 <= (stock + fill + 2.0).max(FIRST_WINDOW as f64), "{} ahead", far.most_ahead);
    }
}
