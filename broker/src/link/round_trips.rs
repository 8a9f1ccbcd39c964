//! How long round trips take, and how steady that is.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

/// Round trips that are remembered. At four a second, what a link was like six seconds ago is forgotten.
const REMEMBERED: usize = 24;

/// Round trips that tell enough to judge by.
const ENOUGH: usize = 8;

/// How much longer than the link's own time round trips must be for that to be in doubt: more than the queue that a
/// window of two bandwidth-delay products makes.
const DOUBTFUL: f64 = 2.5;
const DOUBTFUL_SLACK: Duration = Duration::from_millis(10);

/// The round trips of a link.
///
/// A round trip that has waited behind traffic of one's own tells of that traffic, not of the link: it is *queued*, and
/// counts only if it is quicker than all others. If all are queued and much slower than the link was thought to be,
/// either the queue is long or the link has become long; which one cannot be told from them, so the link is
/// [in doubt](RoundTrips::in_doubt) until somebody measures it with the queue gone, and
/// [says so](RoundTrips::begin_with).
#[derive(Clone, Debug, Default)]
pub struct RoundTrips {
    /// The ones that tell of the link, in the order they were made.
    own: VecDeque<Duration>,
    /// How many since then were queued, and doubtful.
    doubtful: usize,
}

impl RoundTrips {
    /// A round trip took `time`; `queued` if it may have waited behind traffic of one's own.
    pub fn add(&mut self, time: Duration, queued: bool) {
        let shortest = self.shortest();
        if queued && shortest.is_some_and(|shortest| time >= shortest) {
            self.doubtful = if self.is_doubtful(time) { self.doubtful + 1 } else { 0 };
            return;
        }
        self.doubtful = 0;
        self.own.push_back(time);
        if self.own.len() > REMEMBERED {
            self.own.pop_front();
        }
    }

    /// Whether a round trip of `time` is so much slower than the link that it may be the link.
    pub fn is_doubtful(&self, time: Duration) -> bool {
        self.shortest().is_some_and(|shortest| time > shortest.mul_f64(DOUBTFUL) + DOUBTFUL_SLACK)
    }

    /// Whether the link may have become longer: for a while all round trips were much slower than it is thought to be,
    /// and all of them were queued.
    pub fn in_doubt(&self) -> bool {
        self.doubtful >= ENOUGH
    }

    /// Forgets everything but `time`, which was measured with nothing of one's own in the way.
    pub fn begin_with(&mut self, time: Duration) {
        *self = Self { own: [time].into(), doubtful: 0 };
    }

    /// The quickest: how long the link itself takes. `None` before the first.
    pub fn shortest(&self) -> Option<Duration> {
        self.own.iter().min().copied()
    }

    /// The one in the middle: half were quicker. `None` before the first.
    pub fn median(&self) -> Option<Duration> {
        middle(self.own.iter().copied().collect())
    }

    /// How much one differs from the next: half of them by less. `None` before there are a few. A link that becomes
    /// longer or shorter once has no jitter; neither has one that is good but for a stall now and then.
    pub fn jitter(&self) -> Option<Duration> {
        if self.own.len() < ENOUGH {
            return None;
        }
        middle(self.own.iter().zip(self.own.iter().skip(1)).map(|(one, next)| one.abs_diff(*next)).collect())
    }
}

fn middle(mut times: Vec<Duration>) -> Option<Duration> {
    times.sort_unstable();
    times.get(times.len() / 2).copied()
}

impl fmt::Display for RoundTrips {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = |time: Option<Duration>| time.map(|time| format!("{:.1} ms", time.as_secs_f64() * 1e3));
        let (Some(shortest), Some(median)) = (millis(self.shortest()), millis(self.median())) else {
            return f.write_str("round trip not known");
        };
        write!(f, "round trip {shortest} (median {median}")?;
        match millis(self.jitter()) {
            Some(jitter) => write!(f, ", jitter {jitter})"),
            None => f.write_str(")"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn of(times: impl IntoIterator<Item = (u64, bool)>) -> RoundTrips {
        let mut trips = RoundTrips::default();
        times.into_iter().for_each(|(time, queued)| trips.add(ms(time), queued));
        trips
    }

    #[test]
    fn a_link_that_becomes_long_is_believed_when_nothing_is_in_the_way() {
        let mut trips = of([(1, false); 100]);
        assert_eq!(trips.shortest(), Some(ms(1)));
        (0..REMEMBERED).for_each(|_| trips.add(ms(100), false));
        assert_eq!((trips.shortest(), trips.jitter()), (Some(ms(100)), Some(ms(0))));
    }

    #[test]
    fn behind_a_queue_it_is_only_doubted() {
        let mut trips = of([(20, false); 10]);
        (0..100).for_each(|_| trips.add(ms(50), true));
        assert_eq!((trips.shortest(), trips.in_doubt()), (Some(ms(20)), false), "a queue as long as the link is usual");
        (0..ENOUGH).for_each(|_| trips.add(ms(200), true));
        assert_eq!((trips.shortest(), trips.in_doubt()), (Some(ms(20)), true));
        trips.begin_with(ms(190));
        assert_eq!((trips.shortest(), trips.in_doubt()), (Some(ms(190)), false));
        // It was the queue after all.
        trips.add(ms(20), true);
        assert_eq!(trips.shortest(), Some(ms(20)));
    }

    #[test]
    fn jitter_is_what_half_of_them_have() {
        assert_eq!(of([(100, false); 5]).jitter(), None);
        let step = (0..30).map(|n| (if n < 15 { 1 } else { 100 }, false));
        assert_eq!(of(step).jitter(), Some(ms(0)), "a link that changed once");
        let stalls = (0..30).map(|n| (if n % 10 == 0 { 400 } else { 100 }, false));
        assert_eq!(of(stalls).jitter(), Some(ms(0)), "a stall now and then");
        let unsteady = (0..30).map(|n| (100 + n * 37 % 60, false));
        assert!(of(unsteady).jitter().unwrap() >= ms(15));
    }

    proptest! {
        /// The link is as long as the quickest that tells of it, however long it is measured behind queues.
        #[test]
        fn queues_never_make_a_link_longer(clean in prop::collection::vec(1..500_u64, 1..20), queued in prop::collection::vec(1..5_000_u64, 0..500)) {
            let mut trips = of(clean.iter().map(|time| (*time, false)));
            let before = trips.shortest().unwrap();
            queued.iter().for_each(|time| trips.add(ms(*time), true));
            prop_assert!(trips.shortest().unwrap() <= before);
            let quickest = clean.iter().chain(&queued).min().unwrap();
            prop_assert!(trips.shortest().unwrap() >= ms(*quickest));
        }

        /// What was so long ago that nobody remembers has no part in it.
        #[test]
        fn the_past_is_forgotten(past in prop::collection::vec((1..5_000_u64, any::<bool>()), 0..100), now in prop::collection::vec(1..500_u64, REMEMBERED..60)) {
            let mut trips = of(past);
            now.iter().for_each(|time| trips.add(ms(*time), false));
            let lately = of(now[now.len() - REMEMBERED..].iter().map(|time| (*time, false)));
            prop_assert_eq!(trips.shortest(), lately.shortest());
            prop_assert_eq!(trips.median(), lately.median());
            prop_assert_eq!(trips.jitter(), lately.jitter());
        }

        /// Shortest, median and jitter are of the same times.
        #[test]
        fn they_are_in_order(times in prop::collection::vec((1..5_000_u64, any::<bool>()), 1..100)) {
            let trips = of(times);
            prop_assert!(trips.shortest() <= trips.median());
            let longest = trips.own.iter().max().unwrap();
            prop_assert!(trips.jitter().is_none_or(|jitter| jitter <= *longest - trips.shortest().unwrap()));
        }
    }
}
