//! Which of the batches at hand go to others, and how much of them.

use std::time::Duration;

use tokio::time::Instant;

use crate::hand::{Ask, Progress};

/// How often a job may go from one executor to another.
pub(crate) const MAX_HOPS: u8 = 2;
/// A batch that was delivered so often is kept, wherever it is.
const MAX_DELIVERIES: u64 = 6;
/// The most pieces that a batch is split into at a time.
const MAX_PIECES: usize = 128;

/// A batch at hand, as it is seen.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) delivered: u64,
    pub(crate) progress: Progress,
    /// How long until all its jobs are begun.
    pub(crate) rest: Duration,
    /// How long a job of it holds a slot, at least.
    pub(crate) each: Duration,
}

impl Seen {
    pub(crate) fn new(delivered: u64, progress: Progress, now: Instant) -> Self {
        let age = progress.opened.map_or(Duration::ZERO, |opened| now - opened);
        let each = age.mul_f64(progress.running.max(1) as f64 / progress.begun.max(1) as f64);
        Self { delivered, progress, rest: progress.rest(now), each }
    }

    fn is_untouched(&self) -> bool {
        self.progress.begun == 0 && (self.progress.opened.is_none() || self.progress.unstarted > 0)
    }

    fn can_split(&self) -> bool {
        self.progress.divisible && self.progress.begun > 0 && self.progress.unstarted > 0
    }
}

/// How it looks beside the batches themselves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outlook {
    /// How long a batch of the lane keeps the node at work, if that is known.
    pub(crate) message_time: Option<Duration>,
    /// What starts so soon is better off here.
    pub(crate) soon: Duration,
    /// The work, in time of one slot, that is to travel together.
    pub(crate) piece: Duration,
}

/// What to ask of which of the batches at hand, which are given in the order in which they came, when `others` wait.
/// Each gets a share, and one stays here.
pub(crate) fn share(hands: &[Seen], outlook: &Outlook, others: u64) -> Vec<(usize, Ask)> {
    let shares = others.saturating_add(1) as f64;
    let mut asks = release(hands, outlook, shares);
    // Whoever gets a whole batch does not wait any more.
    let left = others.saturating_sub(asks.len() as u64);
    if left > 0 {
        asks.extend(split(hands, outlook, left));
    }
    asks
}

/// The untouched ones that would start later here than the others are through, the last first.
fn release(hands: &[Seen], outlook: &Outlook, shares: f64) -> Vec<(usize, Ask)> {
    let untouched: Vec<_> = hands.iter().enumerate().filter(|(_, seen)| seen.is_untouched()).collect();
    // Until then the slots are taken.
    let until = hands.iter().map(|seen| seen.rest).max().unwrap_or_default();
    // Of batches that nothing is known about each is taken to be as long as what keeps them waiting.
    let each = outlook.message_time.unwrap_or(until);
    let fair = (until + each.mul_f64(untouched.len() as f64)).div_f64(shares);
    let starts = |place: usize| until + each.mul_f64(place as f64);
    let late = |(place, (_, seen)): &(usize, &(usize, &Seen))| {
        let start = starts(*place);
        start > outlook.soon && start >= fair && seen.delivered < MAX_DELIVERIES
    };
    untouched.iter().enumerate().rev().filter(late).map(|(_, (at, _))| (*at, Ask::Release)).collect()
}

/// The batch that has most to begin gives away all but its share.
fn split(hands: &[Seen], outlook: &Outlook, others: u64) -> Option<(usize, Ask)> {
    let able = hands.iter().enumerate().filter(|(_, seen)| seen.can_split());
    let (at, seen) = able.max_by_key(|(_, seen)| seen.rest).filter(|(_, seen)| seen.rest > outlook.soon)?;
    let Progress { running, unstarted, .. } = seen.progress;
    let others = usize::try_from(others).unwrap_or(usize::MAX - 1);
    // What begins here soon stays, whatever the share.
    let soon = (unstarted as f64 * outlook.soon.as_secs_f64() / seen.rest.as_secs_f64()) as usize;
    let keep = ((running + unstarted) / (others + 1)).saturating_sub(running).max(soon);
    let moved = unstarted.checked_sub(keep).filter(|moved| *moved > 0)?;
    // At least one piece for each that waits, none with more than its worth of work, and not too many.
    let by_work = (outlook.piece.as_secs_f64() / seen.each.as_secs_f64().max(1e-9)) as usize;
    let piece = by_work.min(moved.div_ceil(others)).max(moved.div_ceil(MAX_PIECES)).max(1);
    Some((at, Ask::Split { keep, piece }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn outlook(message_time: Option<Duration>) -> Outlook {
        Outlook { message_time, soon: 22 * MS, piece: 1_000 * MS }
    }

    fn seen(delivered: u64, age: u32, progress: Progress) -> Seen {
        let opened = Instant::now();
        Seen::new(delivered, Progress { opened: Some(opened), ..progress }, opened + age * MS)
    }

    fn running(age: u32, begun: usize, running: usize, unstarted: usize) -> Seen {
        seen(1, age, Progress { begun, running, unstarted, divisible: true, ..Progress::default() })
    }

    /// Not looked into yet.
    fn untouched(delivered: u64) -> Seen {
        Seen { delivered, ..Seen::default() }
    }

    fn released(asks: &[(usize, Ask)]) -> Vec<usize> {
        asks.iter().filter(|(_, ask)| *ask == Ask::Release).map(|(at, _)| *at).collect()
    }

    #[test]
    fn a_thousand_jobs_are_split_before_the_first_fifty_are_done() {
        // For 25 ms fifty have run, and none has ended.
        let asks = share(&[running(25, 50, 50, 950)], &outlook(None), 3);
        let [(0, Ask::Split { keep, piece })] = asks[..] else { unreachable!("{asks:?}") };
        assert_eq!((keep, piece), (200, 40), "a quarter of all stays, in pieces of at least a second");
    }

    #[test]
    fn what_starts_soon_stays() {
        let nearly = running(90, 50, 50, 10);
        assert_eq!(share(&[nearly], &outlook(None), 3), []);
        assert_eq!(share(&[running(30, 50, 50, 0), untouched(1)], &outlook(Some(2 * MS)), 3), []);
        assert_eq!(share(&[], &outlook(None), 3), []);
    }

    #[test]
    fn whole_batches_go_first_and_the_last_of_them_first() {
        // Its rest takes 100 ms, and each of those behind it 100 ms more: half of 500 ms is for the one that waits.
        let hands = [running(100, 50, 50, 50), untouched(1), untouched(1), untouched(1), untouched(1)];
        let one = share(&hands, &outlook(Some(100 * MS)), 1);
        assert_eq!(one, [(4, Ask::Release), (3, Ask::Release)]);
        // With more that wait than whole batches, the running one is split too.
        let many = share(&hands, &outlook(Some(100 * MS)), 7);
        assert_eq!(released(&many), [4, 3, 2, 1]);
        assert!(matches!(many[4], (0, Ask::Split { .. })), "{many:?}");
    }

    #[test]
    fn cheap_batches_do_not_wait_behind_a_slow_one() {
        let hands = [running(25, 50, 50, 950), untouched(1), untouched(1), untouched(1)];
        assert_eq!(released(&share(&hands, &outlook(Some(MS)), 1)), [3, 2, 1]);
    }

    #[test]
    fn a_batch_that_cannot_begin_goes_as_a_whole() {
        // All slots are with batches that have begun all they have.
        let full = running(5_000, 50, 50, 0);
        let waiting = running(25, 0, 0, 10);
        assert_eq!(share(&[full, waiting], &outlook(None), 1), [(1, Ask::Release)]);
        // But not for ever, from one to the next.
        assert_eq!(share(&[full, Seen { delivered: MAX_DELIVERIES, ..waiting }], &outlook(None), 1), []);
    }

    #[test]
    fn what_is_not_divisible_is_not_split() {
        let mut whole = running(25, 50, 50, 950);
        whole.progress.divisible = false;
        assert_eq!(share(&[whole], &outlook(None), 3), []);
    }

    fn any_seen() -> impl Strategy<Value = Seen> {
        let age = prop::option::of(0u32..10_000);
        (1u64..10, age, 0usize..100, 0usize..100, 0usize..70_000, any::<bool>()).prop_map(
            |(delivered, age, running, ended, unstarted, divisible)| match age {
                Some(age) => {
                    seen(delivered, age, Progress { begun: running + ended, running, unstarted, divisible, opened: None })
                }
                None => untouched(delivered),
            },
        )
    }

    proptest! {
        #[test]
        fn nobody_is_asked_for_what_it_cannot_do(
            hands in prop::collection::vec(any_seen(), 0..20),
            message_time in prop::option::of(0u32..5_000),
            others in 1u64..100,
        ) {
            let asks = share(&hands, &outlook(message_time.map(|time| time * MS)), others);
            let mut asked: Vec<_> = asks.iter().map(|(at, _)| *at).collect();
            asked.sort_unstable();
            asked.dedup();
            prop_assert_eq!(asked.len(), asks.len(), "each is asked once");
            let released = released(&asks).len();
            for (at, ask) in asks {
                let seen = hands[at];
                match ask {
                    Ask::Release => prop_assert!(seen.is_untouched() && seen.delivered < MAX_DELIVERIES),
                    Ask::Split { keep, piece } => {
                        prop_assert!(seen.can_split() && keep < seen.progress.unstarted && piece > 0);
                        let moved = seen.progress.unstarted - keep;
                        let pieces = moved.div_ceil(piece);
                        prop_assert!(pieces <= MAX_PIECES, "{pieces} pieces");
                        let left = (others as usize).saturating_sub(released).min(moved);
                        prop_assert!(pieces * 2 >= left, "{moved} jobs in {pieces} pieces for {left} that wait");
                    }
                }
            }
        }
    }
}
