//! What a link is like, and when something that departs now arrives.

use std::time::Duration;

/// What a link is like, in each direction. The default is one that costs nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Conditions {
    /// How long it takes: half a round trip.
    pub delay: Duration,
    /// The most it takes in addition; each piece takes another part of it, evenly spread. The order is kept, as TCP
    /// keeps it.
    pub jitter: Duration,
    /// What all connections together may carry, in bytes a second.
    pub rate: Option<u64>,
    /// What one connection may carry, in bytes a second: as if its TCP window were too small for the link.
    pub connection_rate: Option<u64>,
    /// The part of the segments (of 1,460 bytes) that is lost. A lost segment is sent again a round trip later, and
    /// what is behind it in its connection waits for it. The sender does not slow down, as under BBR it would not.
    pub loss: f64,
    /// Times in which nothing arrives.
    pub stalls: Option<Stalls>,
}

/// Times in which nothing arrives at all: what was due then arrives at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stalls {
    /// From the beginning of one to that of the next.
    pub every: Duration,
    /// How long one lasts.
    pub lasting: Duration,
}

/// The bytes of a segment.
const SEGMENT: usize = 1_460;

impl Conditions {
    /// How long a piece of `bytes` takes, the waits for rate and order not counted. `chance` gives numbers from 0 up
    /// to 1.
    pub(super) fn travel(&self, bytes: usize, mut chance: impl FnMut() -> f64) -> Duration {
        let mut time = self.delay;
        if !self.jitter.is_zero() {
            time += self.jitter.mul_f64(chance());
        }
        if self.loss > 0.0 {
            let whole = (1.0 - self.loss.min(1.0)).powi(bytes.div_ceil(SEGMENT) as i32);
            if chance() >= whole {
                time += 2 * self.delay + self.jitter;
            }
        }
        time
    }

    /// `moment` (since the link began), or the end of the stall that it falls into.
    pub(super) fn stalled(&self, moment: Duration) -> Duration {
        let Some(Stalls { every, lasting }) = self.stalls.filter(|stalls| !stalls.every.is_zero()) else { return moment };
        let into = Duration::from_nanos((moment.as_nanos() % every.as_nanos()) as u64);
        if into < lasting.min(every) { moment + (lasting.min(every) - into) } else { moment }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_lost_segment_costs_a_round_trip() {
        let link = Conditions { delay: 50 * MS, loss: 0.01, ..Conditions::default() };
        assert_eq!(link.travel(1_460, || 0.5), 50 * MS);
        assert_eq!(link.travel(1_460, || 0.995), 150 * MS);
        // Of forty-five segments one is lost more often than every third time.
        assert_eq!(link.travel(65_536, || 0.7), 150 * MS);
    }

    #[test]
    fn jitter_adds_a_part_of_itself() {
        let link = Conditions { delay: 10 * MS, jitter: 30 * MS, ..Conditions::default() };
        assert_eq!(link.travel(1, || 0.5), 25 * MS);
    }

    #[test]
    fn what_is_due_in_a_stall_arrives_at_its_end() {
        let stalls = Some(Stalls { every: 100 * MS, lasting: 30 * MS });
        let link = Conditions { stalls, ..Conditions::default() };
        assert_eq!(link.stalled(210 * MS), 230 * MS);
        assert_eq!(link.stalled(250 * MS), 250 * MS);
        assert_eq!(Conditions::default().stalled(5 * MS), 5 * MS);
    }
}
