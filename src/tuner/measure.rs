//! Measuring a link: at the start with a little traffic of its own, and from then on by what passes anyway.

use std::time::Duration;

use tokio::time::Instant;
use wf_broker::link::Link;
use wf_broker::{Broker, BrokerError, Gate};
use wf_nats::NatsBroker;

/// Round trips at the start.
const FIRST_TRIPS: usize = 5;

/// Round trips after a queue has gone.
const TRIPS_ANEW: usize = 3;

/// What is sent at the start to find out the rate, in bytes: no more than takes a moment on a slow link, and the last
/// several times, for TCP itself needs a few round trips to find out what a long link carries.
const FIRST_LOADS: [usize; 6] = [16 << 10, 64 << 10, 256 << 10, 256 << 10, 256 << 10, 256 << 10];

/// What takes longer than this is large enough to tell the rate.
const LONG_ENOUGH: Duration = Duration::from_millis(250);

/// No load takes less time on its way than this, as far as can be measured.
const SHORTEST_LOAD: Duration = Duration::from_micros(100);

/// A link as it is before anything is sent over it.
pub(super) async fn measure_at_start(broker: &NatsBroker) -> Result<Link, BrokerError> {
    let mut link = Link::default();
    for _ in 0..FIRST_TRIPS {
        link.round_trips.add(broker.ping().await?, false);
    }
    let rtt = link.round_trips.shortest().unwrap_or_default();
    let mut most = 0.0;
    for load in FIRST_LOADS {
        let took = broker.ping_with(load).await?.saturating_sub(rtt).max(SHORTEST_LOAD);
        link.up.add(load as u64, took, true);
        let rate = load as f64 / took.as_secs_f64();
        // Once it gets no better, or is slow, that is it.
        if took >= LONG_ENOUGH || rate < most * 1.25 {
            break;
        }
        most = rate;
    }
    Ok(link)
}

/// How long a link is once what is in its queues has gone, which takes the first round trips.
pub(super) async fn measure_anew(broker: &NatsBroker, link: &mut Link) -> Result<(), BrokerError> {
    tokio::try_join!(broker.ping(), broker.ping_deliveries())?;
    let mut shortest = broker.ping().await?;
    for _ in 1..TRIPS_ANEW {
        shortest = shortest.min(broker.ping().await?);
    }
    link.round_trips.begin_with(shortest);
    Ok(())
}

/// What had passed at one moment, and how full the link was.
pub(super) struct Mark {
    at: Instant,
    stored: u64,
    delivered: u64,
    /// The publish window was nearly full.
    full: bool,
    /// Deliveries queued for longer than the prefetch is meant to have them under way.
    late: bool,
    /// Something has passed since the mark before.
    pub(super) busy: bool,
}

impl Mark {
    pub(super) fn now(broker: &NatsBroker) -> Self {
        let counts = broker.counts();
        Self {
            at: Instant::now(),
            stored: counts.stored_bytes,
            delivered: counts.delivered_bytes,
            full: filled(broker.window(), 3, 4),
            late: false,
            busy: false,
        }
    }

    /// Tells `link` what has passed since this mark, and how long a round trip takes: the next mark. `sure` if how long
    /// the link is was measured anew lately.
    pub(super) async fn look(&self, broker: &NatsBroker, link: &mut Link, sure: bool) -> Result<Self, BrokerError> {
        let before = broker.counts();
        let delivering = before.delivered_bytes > self.delivered;
        let crowded = filled(broker.window(), 1, 2);
        let (trip, deliveries) = tokio::try_join!(broker.ping(), async {
            if delivering { broker.ping_deliveries().await } else { Ok(Duration::ZERO) }
        })?;
        let mut now = Self::now(broker);
        let rtt = link.round_trips.shortest().unwrap_or(trip);
        // Slow deliveries are held back by the link only if it is not the link that has become longer.
        let sure = sure || !link.round_trips.is_doubtful(trip);
        now.late = sure && deliveries > 2 * rtt.max(super::choice::SHORTEST);
        now.busy = now.stored > self.stored || now.delivered > self.delivered;
        // On one connection or another, what is measured has stood behind what was sent.
        let queued = crowded || filled(broker.window(), 1, 2) || deliveries > rtt * 3 / 2 + Duration::from_millis(5);
        link.round_trips.add(trip, queued);
        let span = now.at - self.at;
        link.up.add(now.stored - self.stored, span, self.full && now.full);
        link.down.add(now.delivered - self.delivered, span, self.late && now.late);
        Ok(now)
    }
}

/// Whether more than `part` in `of` of the window is taken, by one measure or the other.
fn filled(gate: &Gate, part: usize, of: usize) -> bool {
    let (taken, window) = (gate.taken(), gate.window());
    let more = |taken: usize, window: usize| taken.saturating_mul(of) > window.saturating_mul(part);
    more(taken.bytes, window.bytes) || more(taken.messages, window.messages)
}
