//! How many messages a lane can start a second.

use std::time::Duration;

/// The pace is taken each time that so many were started, or that starting took so long.
const COUNT: u32 = 4;
const TIME: Duration = Duration::from_millis(10);
/// What is left of the highest pace when the next one is lower.
const DECAY: f64 = 0.9;

/// What a lane can do if it is given enough: the highest pace of the last moments in which it had something to start.
/// Jobs that only wait start at once, so what they take is not in here.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Messages a second; none before it was taken once.
    rate: f64,
    /// Started since it was taken, and how long that took.
    count: u32,
    time: Duration,
    /// When it last started something, or had something to start after it had nothing.
    last: Duration,
}

impl Pace {
    /// After it had nothing, there is something to start.
    pub(super) fn begins(&mut self, at: Duration) {
        self.last = at;
    }

    /// One more was started.
    pub(super) fn started(&mut self, at: Duration) {
        self.count += 1;
        self.time += at.saturating_sub(self.last);
        self.last = at;
        if self.count >= COUNT || self.time >= TIME {
            // Nothing is started in no time.
            let time = self.time.as_secs_f64().max(1e-6 * f64::from(self.count));
            self.rate = (f64::from(self.count) / time).max(self.rate * DECAY);
            (self.count, self.time) = (0, Duration::ZERO);
        }
    }

    /// The pace at `at`; `waiting` says whether there is something to start.
    pub(super) fn at(&self, at: Duration, waiting: bool) -> f64 {
        // What waits for long has become slow, whatever it was.
        let stuck = at.saturating_sub(self.last).as_secs_f64();
        if waiting && stuck > 0.0 { self.rate.min(2.0 / stuck) } else { self.rate }
    }
}
