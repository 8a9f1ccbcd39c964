//! How far the broker is: a round trip, as the executor measures it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use crate::node::Node;

/// How often it is measured, on average.
const EVERY: Duration = Duration::from_secs(3);
/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// The part of the way to a longer round trip that each measurement goes.
const FOLLOW: f64 = 0.25;

/// A smoothed minimum: at once as short as the shortest, longer only if it stays so. What a round trip takes beyond
/// the shortest is mostly a wait behind other things, here or there.
#[derive(Debug, Default)]
struct Distance(Option<Duration>);

impl Distance {
    /// One took this long: what it is taken for from now on.
    fn took(&mut self, took: Duration) -> Duration {
        let smoothed = match self.0 {
            Some(before) if took > before => before + (took - before).mul_f64(FOLLOW),
            _ => took,
        };
        *self.0.insert(smoothed)
    }
}

/// Measures it until the node drains.
pub(crate) async fn measure(node: Arc<Node>) {
    let mut distance = Distance::default();
    let measuring = async {
        loop {
            match timeout(PATIENCE, node.broker.ping()).await {
                Ok(Ok(took)) => node.set_distance(distance.took(took)),
                // Whoever waits for the broker says what is wrong with it.
                Ok(Err(error)) => tracing::debug!(error = &error as &dyn std::error::Error, "no answer to a ping"),
                Err(_) => tracing::debug!("no answer to a ping"),
            }
            tokio::time::sleep(EVERY.mul_f64(0.5 + fastrand::f64())).await;
        }
    };
    node.phases.draining.run_until_cancelled(measuring).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_as_short_as_it_was_lately_and_grows_only_if_it_stays_longer() {
        let ms = Duration::from_millis;
        let mut distance = Distance::default();
        assert_eq!(distance.took(ms(80)), ms(80));
        assert_eq!(distance.took(ms(10)), ms(10));
        assert_eq!(distance.took(ms(50)), ms(20), "one that waited somewhere");
        assert_eq!(distance.took(ms(10)), ms(10));
        let moved = (0..12).map(|_| distance.took(ms(100))).last();
        assert!(moved.is_some_and(|now| now > ms(95)), "{moved:?}");
    }
}
