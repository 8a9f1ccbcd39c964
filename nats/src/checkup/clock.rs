//! By how much the servers' clock and this machine's differ.

use std::time::{Duration, Instant, SystemTime};

use super::{Checkup, CheckupError, everything};
use crate::clock::by_now;

/// How often the server is asked for its time, at most. The quickest answer tells the most.
const READINGS: usize = 8;

/// How the servers' clock stands against this machine's.
#[derive(Clone, Debug, PartialEq)]
pub struct ClockReading {
    /// How far the server is ahead, in seconds; negative if it is behind.
    pub ahead_s: f64,
    /// By how much that may be wrong, either way: half of the round trip, for nobody knows which way took longer.
    pub uncertainty: Duration,
    /// Whose clock it is, if that was told.
    pub server: Option<String>,
}

impl Checkup {
    /// Compares the clock of the server that leads the factory's records, or else of the one that is connected to,
    /// with this machine's; takes about `within`.
    ///
    /// # Errors
    /// When the user may ask for neither.
    pub async fn clock(&self, within: Duration) -> Result<ClockReading, CheckupError> {
        let until = Instant::now() + within;
        let mut best: Option<ClockReading> = None;
        for _ in 0..READINGS {
            match self.read_clock().await {
                Ok(reading) if best.as_ref().is_none_or(|best| reading.uncertainty < best.uncertainty) => best = Some(reading),
                Ok(_) => {}
                Err(error) if best.is_none() => return Err(error),
                Err(_) => break,
            }
            if Instant::now() >= until {
                break;
            }
        }
        best.ok_or_else(|| CheckupError::Missing("the server's time".into()))
    }

    async fn read_clock(&self) -> Result<ClockReading, CheckupError> {
        let (wall, sent) = (SystemTime::now(), Instant::now());
        // What every role may ask.
        let info = self.api(&format!("STREAM.INFO.{}", self.options.layout.state_stream), &everything()).await;
        let leader = |info: &serde_json::Value| info["cluster"]["leader"].as_str().map(str::to_owned);
        if let Ok(info) = &info
            && let Some(reading) = compare(info["ts"].as_str(), wall, sent.elapsed(), leader(info))
        {
            return Ok(reading);
        }
        let (wall, sent) = (SystemTime::now(), Instant::now());
        let user = self.user().await?;
        let name = user["server"]["name"].as_str().map(str::to_owned);
        let reading = compare(user["server"]["time"].as_str(), wall, sent.elapsed(), name);
        reading.ok_or_else(|| CheckupError::Missing("the server's time".into()))
    }
}

/// What the server's time `told` says, in an answer that came `took` after it was asked for at `wall`.
fn compare(told: Option<&str>, wall: SystemTime, took: Duration, server: Option<String>) -> Option<ClockReading> {
    let (there, here) = (by_now(told?, took)?, wall + took);
    let ahead_s = match there.duration_since(here) {
        Ok(ahead) => ahead.as_secs_f64(),
        Err(behind) => -behind.duration().as_secs_f64(),
    };
    Some(ClockReading { ahead_s, uncertainty: took / 2, server })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_round_trip_is_taken_off() {
        let asked = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        let took = Duration::from_millis(200);
        for (told, ahead_s) in
            [("1970-01-01T00:16:40.1Z", 0.0), ("1970-01-01T00:16:42.1Z", 2.0), ("1970-01-01T00:16:35.1+00:00", -5.0)]
        {
            let reading = compare(Some(told), asked, took, None).unwrap();
            assert!((reading.ahead_s - ahead_s).abs() < 1e-6, "{told}: {reading:?}");
            assert_eq!(reading.uncertainty, Duration::from_millis(100));
        }
        assert_eq!(compare(Some("yesterday"), asked, took, None), None);
        assert_eq!(compare(None, asked, took, None), None);
    }
}
