mod far;

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

const KIB: usize = 1024;

/// A node and its broker in small: lanes with a backlog of messages, served first come, first served.
struct Sim {
    credit: Credit,
    lanes: Vec<LaneId>,
    /// What the broker may still send.
    open: Vec<(usize, i64)>,
    held: VecDeque<(usize, usize)>,
    delivered: Vec<usize>,
    now: Duration,
}

/// So far away that only the budget limits what is fetched.
const FAR: Duration = Duration::from_secs(10);

impl Sim {
    fn new(bytes: usize, work: Duration, slots: usize, weights: &[u32]) -> Self {
        let mut credit = Credit::new(bytes, work, slots);
        credit.set_distance(FAR);
        let lanes: Vec<_> = weights.iter().map(|weight| credit.add(*weight)).collect();
        let (open, delivered) = (vec![(0, 0); lanes.len()], vec![0; lanes.len()]);
        let mut sim = Self { credit, open, delivered, lanes, held: VecDeque::new(), now: Duration::ZERO };
        sim.grant();
        sim
    }

    fn grant(&mut self) {
        for (lane, grant) in self.credit.grants(0, self.now) {
            self.open[lane.0].0 += grant.messages;
            self.open[lane.0].1 += grant.bytes as i64;
        }
    }

    /// The broker sends a message of `size` to `lane`, if it may.
    fn send(&mut self, lane: usize, size: usize) -> bool {
        let open = &mut self.open[lane];
        if open.0 == 0 || open.1 <= 0 {
            return false;
        }
        open.0 -= 1;
        open.1 -= size as i64;
        self.credit.delivered(self.lanes[lane], size, self.now);
        self.delivered[lane] += size;
        self.held.push_back((lane, size));
        self.grant();
        true
    }

    /// The oldest message is run and settled.
    fn finish(&mut self, busy: Duration) {
        if let Some((lane, size)) = self.held.pop_front() {
            self.now += busy;
            self.credit.opened(self.lanes[lane], 1);
            self.credit.started(self.lanes[lane], Stage::Opened, self.now);
            self.credit.finished(self.lanes[lane], Stage::Started, size, Some(busy));
            self.grant();
        }
    }

    fn used(&self) -> f64 {
        self.credit.lanes.iter().map(Account::used_bytes).sum()
    }
}

#[test]
fn lanes_that_all_want_more_share_six_to_three_to_one() {
    let mut sim = Sim::new(2048 * KIB, Duration::from_secs(2), 50, &[6, 3, 1]);
    for round in 0..6_000 {
        for lane in 0..3 {
            while sim.send(lane, 16 * KIB) {}
        }
        sim.finish(Duration::from_micros(100));
        if round == 1_000 {
            sim.delivered = vec![0; 3];
        }
    }
    let total: usize = sim.delivered.iter().sum();
    for (lane, share) in [0.6, 0.3, 0.1].into_iter().enumerate() {
        let got = sim.delivered[lane] as f64 / total as f64;
        assert!((got - share).abs() < 0.07, "lane {lane} got {got:.2}, not about {share}");
    }
}

#[test]
fn a_lane_alone_gets_most_of_the_budget() {
    let mut sim = Sim::new(8192 * KIB, Duration::from_secs(2), 50, &[6, 3, 1]);
    for _ in 0..200 {
        while sim.send(1, 32 * KIB) {}
        for _ in 0..8 {
            sim.finish(Duration::from_micros(100));
        }
    }
    while sim.send(1, 32 * KIB) {}
    let held = sim.held.len() * 32 * KIB;
    assert!(held > 6_000 * KIB, "only {} KiB of 8 MiB are used", held / KIB);
    assert!(sim.open[0].0 > 0 && sim.open[2].0 > 0, "the others can still be served");
}

#[test]
fn slow_work_is_not_hoarded() {
    // A message is 10 s of work and the budget is 2 s x 4 slots.
    let mut sim = Sim::new(8192 * KIB, Duration::from_secs(2), 4, &[3]);
    sim.send(0, KIB);
    sim.finish(Duration::from_secs(10));
    while sim.send(0, KIB) {}
    // What was granted before the first was measured, and no more.
    assert!(sim.held.len() <= FIRST_WINDOW, "{} messages of 10 s are held", sim.held.len());
    for _ in 0..20 {
        sim.finish(Duration::from_secs(10));
        while sim.send(0, KIB) {}
    }
    assert_eq!(sim.held.len(), 1, "one is kept at hand");
}

#[test]
fn what_runs_does_not_hold_back_what_could_run_beside_it() {
    // Single jobs of a minute each, and 50 slots: all of them must get work.
    let mut credit = Credit::new(8 << 20, Duration::from_secs(2), 50);
    let lane = credit.add(3);
    let now = Duration::ZERO;
    let start = |credit: &mut Credit| {
        credit.delivered(lane, 100, now);
        credit.opened(lane, 1);
        credit.started(lane, Stage::Opened, now);
    };
    credit.grants(50, now);
    start(&mut credit);
    credit.finished(lane, Stage::Started, 100, Some(Duration::from_secs(60)));
    for busy in 0..50 {
        credit.grants(50 - busy, now);
        assert!(credit.asks(lane));
        start(&mut credit);
    }
}

#[test]
fn what_was_withdrawn_is_granted_again_only_when_there_is_room_for_it() {
    let mut credit = Credit::new(8 << 20, Duration::from_secs(2), 50);
    let lane = credit.add(3);
    let start = Duration::from_secs(1);
    credit.grants(50, start);
    credit.delivered(lane, 30_000, start);
    // It has a thousand jobs, fifty of which start, and more was asked for.
    credit.opened(lane, 1_000);
    assert!(credit.asks(lane));
    credit.withdraw(lane);
    assert!(!credit.asks(lane));
    let later = start + Duration::from_millis(20);
    assert_eq!(credit.grants(0, later), [], "it is busy");
    assert_eq!(credit.lanes[0].bytes, 0.0);
    credit.started(lane, Stage::Opened, later);
    assert_eq!(credit.grants(0, later).len(), 1, "one is kept at hand");
}

#[test]
fn the_budget_can_be_changed() {
    let mut sim = Sim::new(8192 * KIB, Duration::from_secs(2), 50, &[3]);
    let fill = |sim: &mut Sim| {
        for _ in 0..300 {
            while sim.send(0, 32 * KIB) {}
            sim.finish(Duration::from_micros(100));
        }
        while sim.send(0, 32 * KIB) {}
        sim.held.len() * 32 * KIB
    };
    assert!((6_000 * KIB..=8192 * KIB).contains(&fill(&mut sim)));
    sim.credit.set_bytes(1024 * KIB);
    assert!((700 * KIB..=1024 * KIB).contains(&fill(&mut sim)));
}

#[test]
fn bytes_that_were_not_drawn_do_not_pile_up() {
    // A message much larger than the budget, then small ones, one at a time.
    let mut sim = Sim::new(64 * KIB, Duration::from_secs(2), 8, &[1]);
    for size in std::iter::once(2048 * KIB).chain(std::iter::repeat_n(KIB, 200)) {
        assert!(sim.send(0, size));
        sim.finish(Duration::from_secs(1));
    }
    assert!(sim.used() <= 1024.0 * KIB as f64, "{} bytes are out", sim.used());
}

proptest! {
    #[test]
    fn no_lane_is_ever_stuck_and_the_budget_holds(
        weights in prop::collection::vec(1u32..7, 1..7),
        steps in prop::collection::vec((0usize..7, 1usize..2_000 * KIB, 0u64..3_000), 1..400),
    ) {
        let budget = 1024 * KIB;
        let mut sim = Sim::new(budget, Duration::from_secs(2), 8, &weights);
        let mut largest = FIRST_SIZE as usize;
        for (lane, size, busy) in steps {
            let lane = lane % weights.len();
            if busy % 3 == 0 {
                sim.finish(Duration::from_millis(busy));
            } else if sim.send(lane, size) {
                largest = largest.max(size);
            }
            // One message a lane may overdraw, and one is always allowed.
            let bound = budget + 2 * largest * weights.len();
            prop_assert!(sim.used() <= bound as f64, "{} of {budget} bytes are out", sim.used());
            for lane in 0..weights.len() {
                let idle = !sim.held.iter().any(|(of, _)| *of == lane);
                let (messages, bytes) = sim.open[lane];
                prop_assert!(!idle || (messages > 0 && bytes > 0), "lane {lane} has nothing and gets nothing");
            }
        }
        // Whatever happened, once all is done every lane flows.
        while !sim.held.is_empty() {
            sim.finish(Duration::from_millis(1));
        }
        for lane in 0..weights.len() {
            prop_assert!(sim.send(lane, KIB), "lane {lane} is stuck");
        }
    }
}
