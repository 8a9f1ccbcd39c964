//! How much a link carries.

use std::collections::VecDeque;
use std::time::Duration;

/// Spans that are remembered. At four a second, five seconds of traffic that the link has held back.
const REMEMBERED: usize = 20;

/// The rate of one direction of a link: the most it has carried lately, from what was answered (or came) in each of
/// many spans of time.
///
/// A span in which nobody had more to send tells nothing of the link: its rate is only a lower bound, and never makes the
/// estimate smaller. One that the link has held back, with more waiting than it took, does, once all the better ones
/// are forgotten: only such spans make others forgotten, so a quiet hour takes nothing away.
#[derive(Clone, Debug, Default)]
pub struct Rate {
    seen: VecDeque<f64>,
    held_back: bool,
}

impl Rate {
    /// `bytes` were carried in `span`; `held_back` if there was more to carry all the while. A span of no time tells
    /// nothing.
    pub fn add(&mut self, bytes: u64, span: Duration, held_back: bool) {
        if span.is_zero() {
            return;
        }
        let rate = bytes as f64 / span.as_secs_f64();
        if held_back || self.bytes_per_second().is_none_or(|most| rate > most) && bytes > 0 {
            self.held_back |= held_back && bytes > 0;
            self.seen.push_back(rate);
            if self.seen.len() > REMEMBERED {
                self.seen.pop_front();
            }
        }
    }

    /// Whether the link has ever held anything back: until then it may carry much more than was seen.
    pub fn is_known(&self) -> bool {
        self.held_back
    }

    /// The rate, in bytes a second; at least that much, if [that is all that is known](Rate::is_known). `None` as long
    /// as nothing was carried.
    pub fn bytes_per_second(&self) -> Option<f64> {
        self.seen.iter().copied().reduce(f64::max).filter(|rate| *rate > 0.0)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn held_back(rates: impl IntoIterator<Item = u64>) -> Rate {
        let mut rate = Rate::default();
        rates.into_iter().for_each(|bytes| rate.add(bytes, SECOND, true));
        rate
    }

    #[test]
    fn nothing_tells_nothing() {
        let mut rate = Rate::default();
        rate.add(0, SECOND, true);
        rate.add(0, SECOND, false);
        rate.add(1_000, Duration::ZERO, true);
        assert_eq!((rate.bytes_per_second(), rate.is_known()), (None, false));
        rate.add(500, SECOND / 2, false);
        assert_eq!((rate.bytes_per_second(), rate.is_known()), (Some(1_000.0), false));
        rate.add(500, SECOND, true);
        assert_eq!((rate.bytes_per_second(), rate.is_known()), (Some(1_000.0), true));
    }

    proptest! {
        /// However long there is little to send, the estimate stays; more than it is believed at once.
        #[test]
        fn quiet_never_makes_it_smaller(busy in prop::collection::vec(1..1_000_000_u64, 1..50), quiet in prop::collection::vec(0..2_000_000_u64, 0..500)) {
            let mut rate = held_back(busy);
            let before = rate.bytes_per_second().unwrap();
            quiet.iter().for_each(|bytes| rate.add(*bytes, SECOND, false));
            let most = quiet.iter().copied().max().unwrap_or(0) as f64;
            prop_assert_eq!(rate.bytes_per_second().unwrap(), before.max(most));
        }

        /// A link that has become slow is known to be after a while, however fast it was.
        #[test]
        fn a_slower_link_is_noticed(past in prop::collection::vec((0..1_000_000_000_u64, any::<bool>()), 0..100), slow in 1..1_000_u64) {
            let mut rate = Rate::default();
            past.iter().for_each(|(bytes, held)| rate.add(*bytes, SECOND, *held));
            (0..REMEMBERED).for_each(|_| rate.add(slow, SECOND, true));
            prop_assert_eq!(rate.bytes_per_second(), Some(slow as f64));
        }

        /// It is one of what was seen, and no less than the latest that was held back.
        #[test]
        fn it_is_what_was_seen(seen in prop::collection::vec((0..1_000_000_u64, 1..5_000_u64, any::<bool>()), 1..100)) {
            let mut rate = Rate::default();
            let mut rates = Vec::new();
            for (bytes, millis, held) in seen {
                rate.add(bytes, Duration::from_millis(millis), held);
                rates.push(bytes as f64 / Duration::from_millis(millis).as_secs_f64());
                let now = rate.bytes_per_second();
                prop_assert!(now.is_none_or(|now| rates.contains(&now)));
                prop_assert!(!held || now.unwrap_or(0.0) >= *rates.last().unwrap());
            }
        }
    }
}
