//! When a broker counts as unreachable: the decision, and nothing else. No clock but what is passed in, no tasks, no
//! network.
//!
//! What counts is silence: something was asked of the broker, and for a while nothing at all was answered. One answer
//! out of many is proof that it can be reached, however long the others take; so a slow link does not open the circuit,
//! and a link that is cut does, whether its requests fail at once or hang. Half way through a silence the broker is
//! asked whether it is there: one that is only busy says so, and stays reachable.

use std::time::Duration;

use tokio::time::Instant;

/// The pause before the first probe, and the longest between two. Half of each is jitter.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// Who tries again does so within that time. An older silence, which nobody has tried to break since, is none.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug)]
pub(super) struct Circuit {
    /// How long a silence must last.
    after: Duration,
    /// Requests under way.
    under_way: usize,
    /// Since when something is asked and nothing answered.
    silent_since: Option<Instant>,
    /// The silence was doubted: the broker was asked whether it is there.
    doubted: bool,
    /// Something has failed in this silence, and is about to be tried again, most likely.
    failing: bool,
    /// When something last failed or began.
    tried: Option<Instant>,
    open: Option<Open>,
    /// The pause before the next probe. Not reset by a probe: one that succeeds while publishes go on failing must not
    /// make the circuit flutter.
    pause: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    since: Instant,
    probe_at: Instant,
}

impl Circuit {
    pub(super) fn new(after: Duration) -> Self {
        Self { after, under_way: 0, silent_since: None, doubted: false, failing: false, tried: None, open: None, pause: PAUSES.0 }
    }

    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Since when it is open.
    pub(super) fn open_since(&self) -> Option<Instant> {
        self.open.map(|open| open.since)
    }

    /// When the next probe is due, while it is open.
    pub(super) fn probe_at(&self) -> Option<Instant> {
        self.open.map(|open| open.probe_at)
    }

    /// When [`Circuit::tick`] is next needed, while it is closed.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let silent_since = self.silent_since.filter(|_| self.open.is_none() && self.matters())?;
        Some(silent_since + if self.doubted { self.after } else { self.after / 2 })
    }

    /// How long the answer to a probe may take that is due by now because of a silence. Once for each.
    pub(super) fn doubt(&mut self, now: Instant) -> Option<Duration> {
        let due = !self.doubted && self.deadline().is_some_and(|deadline| deadline <= now);
        self.doubted |= due;
        due.then_some(self.after / 2)
    }

    /// Whether anybody has to do with the silence.
    fn matters(&self) -> bool {
        self.under_way > 0 || self.failing
    }

    fn heard(&mut self, now: Instant) {
        self.silent_since = (self.under_way > 0).then_some(now);
        (self.doubted, self.failing) = (false, false);
        self.open = None;
    }

    /// Something is asked of the broker.
    pub(super) fn begins(&mut self, now: Instant) {
        let stale = self.under_way == 0 && self.tried.is_none_or(|tried| now.duration_since(tried) > self.after + LONGEST_PAUSE);
        if stale || self.silent_since.is_none() {
            self.silent_since = Some(now);
            (self.doubted, self.failing) = (false, false);
        }
        self.under_way += 1;
        self.tried = Some(now);
    }

    /// The broker answered, well or not. It does so also while the circuit is open: to what was on its way before.
    pub(super) fn answered(&mut self, now: Instant) {
        self.under_way = self.under_way.saturating_sub(1);
        self.heard(now);
        self.pause = PAUSES.0;
    }

    /// It did not. `jitter` is from 0 to 1.
    pub(super) fn failed(&mut self, now: Instant, jitter: f64) {
        self.under_way = self.under_way.saturating_sub(1);
        self.tried = Some(now);
        self.failing = true;
        self.look(now, jitter);
    }

    /// Nobody waits for the answer any more, which says nothing about the broker.
    pub(super) fn forgotten(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }

    /// Opens it if the silence has lasted long enough.
    pub(super) fn tick(&mut self, now: Instant, jitter: f64) {
        if self.matters() {
            self.look(now, jitter);
        }
    }

    fn look(&mut self, now: Instant, jitter: f64) {
        let silent = self.silent_since.is_some_and(|since| now.duration_since(since) >= self.after);
        if silent && self.open.is_none() {
            self.open = Some(Open { since: now, probe_at: now + self.next_pause(jitter) });
        }
    }

    /// A probe was answered, or not.
    pub(super) fn probed(&mut self, now: Instant, answered: bool, jitter: f64) {
        if answered {
            self.heard(now);
        } else if let Some(since) = self.open_since() {
            self.open = Some(Open { since, probe_at: now + self.next_pause(jitter) });
        }
    }

    fn next_pause(&mut self, jitter: f64) -> Duration {
        let pause = self.pause.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0);
        self.pause = (self.pause * 2).min(PAUSES.1);
        pause
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const AFTER: Duration = Duration::from_secs(3);

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn silence_opens_it_and_one_answer_is_enough_to_keep_it_closed() {
        let start = Instant::now();
        let mut circuit = Circuit::new(AFTER);
        circuit.begins(start);
        circuit.begins(start + ms(100));
        assert_eq!(circuit.deadline(), Some(start + AFTER / 2));
        assert_eq!((circuit.doubt(start + AFTER / 2), circuit.doubt(start + AFTER / 2)), (Some(AFTER / 2), None));
        assert_eq!(circuit.deadline(), Some(start + AFTER));
        circuit.answered(start + ms(2_900));
        circuit.tick(start + ms(3_000), 0.5);
        assert!(!circuit.is_open(), "the other is slow, but the broker is there");
        assert_eq!(circuit.deadline(), Some(start + ms(2_900) + AFTER / 2), "another silence, to be doubted anew");
        circuit.tick(start + ms(5_900), 0.5);
        assert!(circuit.is_open());
        assert_eq!(circuit.deadline(), None);
    }

    #[test]
    fn quick_failures_open_it_after_the_same_time() {
        let start = Instant::now();
        let mut circuit = Circuit::new(AFTER);
        for n in 0..30 {
            circuit.begins(start + ms(100 * n));
            circuit.failed(start + ms(100 * n), 0.5);
            assert!(!circuit.is_open());
        }
        circuit.begins(start + AFTER);
        circuit.failed(start + AFTER, 0.5);
        assert!(circuit.is_open());
    }

    #[test]
    fn failures_far_apart_say_nothing() {
        let start = Instant::now();
        let mut circuit = Circuit::new(AFTER);
        for n in 0..10 {
            let at = start + 4 * AFTER * n;
            circuit.begins(at);
            circuit.failed(at, 0.5);
            assert!(!circuit.is_open());
        }
        circuit.begins(start + 100 * AFTER);
        circuit.forgotten();
        circuit.tick(start + 200 * AFTER, 0.5);
        assert!(!circuit.is_open(), "nobody waits");
    }

    #[test]
    fn probes_come_later_and_later_until_a_publish_is_answered() {
        let mut now = Instant::now();
        let mut circuit = Circuit::new(AFTER);
        let open = |circuit: &mut Circuit, now: Instant| {
            circuit.begins(now);
            circuit.failed(now + AFTER, 1.0);
            assert!(circuit.is_open());
            circuit.probe_at().unwrap() - (now + AFTER)
        };
        assert_eq!(open(&mut circuit, now), PAUSES.0);
        for pause in [500, 1_000, 2_000, 4_000, 5_000, 5_000] {
            now = circuit.probe_at().unwrap();
            circuit.probed(now, false, 1.0);
            assert_eq!(circuit.probe_at().unwrap() - now, ms(pause));
        }
        circuit.probed(now, true, 1.0);
        assert!(!circuit.is_open());
        assert_eq!(open(&mut circuit, now), PAUSES.1, "only the probe was answered: it goes on where it was");
        now += 2 * AFTER;
        circuit.probed(now, true, 1.0);
        circuit.begins(now);
        circuit.answered(now);
        assert_eq!(open(&mut circuit, now + AFTER), PAUSES.0);
    }

    #[test]
    fn a_late_answer_closes_it() {
        let start = Instant::now();
        let mut circuit = Circuit::new(AFTER);
        circuit.begins(start);
        circuit.tick(start + AFTER, 0.0);
        assert!(circuit.is_open());
        circuit.answered(start + 2 * AFTER);
        assert!(!circuit.is_open());
        assert_eq!(circuit.deadline(), None);
    }

    proptest! {
        /// It never opens before the silence has lasted, it is open once it has, and a probe is always due while it is.
        #[test]
        fn open_if_and_only_if_silent(events in proptest::collection::vec((0_u8..5, 0_u64..2_500), 1..60)) {
            let mut now = Instant::now();
            let mut circuit = Circuit::new(AFTER);
            let mut under_way = 0_usize;
            let mut heard = now;
            for (event, later) in events {
                now += ms(later);
                match event {
                    0 => {
                        if under_way == 0 { heard = now }
                        circuit.begins(now);
                        under_way += 1;
                    }
                    1 if under_way > 0 => { circuit.answered(now); under_way -= 1; heard = now }
                    2 => { circuit.probed(now, true, 0.5); heard = now }
                    3 => circuit.probed(now, false, 0.5),
                    _ => {}
                }
                circuit.tick(now, 0.5);
                if under_way > 0 {
                    prop_assert!(!circuit.is_open() || now.duration_since(heard) >= AFTER);
                    prop_assert!(circuit.is_open() || now.duration_since(heard) < AFTER);
                }
                prop_assert_eq!(circuit.is_open(), circuit.probe_at().is_some());
                prop_assert_eq!(circuit.deadline().is_some(), !circuit.is_open() && under_way > 0);
            }
        }
    }
}
