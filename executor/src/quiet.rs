//! A lane that has gone quiet: messages wait in it, there is credit for them, and nothing comes.
//!
//! Brokers mend their connections themselves, and this should never happen. It is looked for all the same, from
//! outside and by nothing but what the broker tells of the lane, because a node that is healthy in its own eyes and
//! gets no work is what nobody notices.

use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};
use wf_broker::LaneStats;

use crate::desk::Desk;
use crate::node::Node;
use crate::stats::count_up;

/// How often in a row messages must have been found waiting: what is found once may be on its way.
const LOOKS: u32 = 2;
/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// What did not help is tried again after twice the time, up to so many doublings.
const DOUBLINGS: u32 = 5;

/// Watches over one lane's flow.
pub(crate) struct Quiet {
    /// After so long without a delivery it is looked at: a third of the lease, as often as what is held is renewed.
    period: Duration,
    next: Instant,
    /// How often in a row messages were found waiting.
    found: u32,
    /// How often in a row that was said, and nothing came afterwards.
    said: u32,
}

impl Quiet {
    pub(crate) fn new(lease: Duration) -> Self {
        let mut this = Self { period: lease / 3, next: Instant::now(), found: 0, said: 0 };
        this.heard();
        this
    }

    /// Something has come.
    pub(crate) fn heard(&mut self) {
        (self.found, self.said) = (0, 0);
        self.wait(self.period);
    }

    /// Waits until the lane has gone quiet, and says so. Cancel safe.
    pub(crate) async fn noticed(&mut self, node: &Node, desk: &Desk) {
        loop {
            sleep_until(self.next).await;
            if !node.outlook(desk).0 {
                // It has all that it asked for.
                self.calm();
                continue;
            }
            // Before the question: who cancels this asks again later, not at once.
            self.wait(self.period / 3 + 4 * node.distance());
            match timeout(PATIENCE, node.broker.stats(desk.lane.clone())).await {
                Ok(Ok(stats)) if stats.pending > 0 && stats.waiting > 0 => {
                    self.found += 1;
                    if self.found >= LOOKS {
                        return self.say(node, desk, stats);
                    }
                }
                Ok(Ok(_)) => self.calm(),
                // A broker that does not answer has other troubles, and is being connected to anew as it is.
                Ok(Err(_)) | Err(_) => (self.found, self.next) = (0, Instant::now() + self.period),
            }
        }
    }

    fn say(&mut self, node: &Node, desk: &Desk, stats: LaneStats) {
        let LaneStats { pending, in_flight, waiting, .. } = stats;
        let times = self.said + 1;
        tracing::warn!(
            lane = %desk.lane, pending, in_flight, waiting, times,
            "messages wait, there is credit for them, and none comes; beginning anew"
        );
        count_up(&node.tally.quiet, 1);
        self.wait(self.period * 2_u32.pow(times.min(DOUBLINGS)));
        (self.found, self.said) = (0, times);
    }

    fn calm(&mut self) {
        (self.found, self.said) = (0, 0);
        self.wait(self.period);
    }

    /// Looks again after `time`, give or take a quarter: nodes that lost something together do not ask together.
    fn wait(&mut self, time: Duration) {
        self.next = Instant::now() + time.mul_f64(0.75 + fastrand::f64() / 2.0);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    use tokio::runtime::Handle;
    use wf_broker::{Message, Publish};
    use wf_schema::{BatchBuilder, BatchId, Format, Header, Job, Lane};

    use super::*;
    use crate::model::{Fault, Session};
    use crate::{ExecutorOptions, Registry, lane_loop, stock};

    async fn served(session: &Arc<Session>, batches: u64, time: Duration) -> (u64, u64) {
        let options = ExecutorOptions::new("x").unwrap();
        let node = Node::new(session.clone(), stock::register(Registry::new()), options, Handle::current());
        let desk = node.open(Lane::default()).unwrap();
        let pulling = tokio::spawn(lane_loop::pull(node.clone(), desk));
        for _ in 0..batches {
            let mut open = BatchBuilder::new(Header::new(BatchId::new(), Format::Json));
            open.push(&Job::new("noop", &()).unwrap()).unwrap();
            let id = BatchId::new().to_string().into();
            session.publish(Message { lane: Lane::default(), id, bytes: open.encode() }).await.unwrap();
        }
        tokio::time::sleep(time).await;
        node.phases.draining.cancel();
        pulling.await.unwrap();
        let stats = node.tally.read(0);
        (stats.quiet, stats.acked)
    }

    #[tokio::test(start_paused = true)]
    async fn a_lane_that_went_quiet_is_begun_anew() {
        let session = Session::new(&Arc::default(), std::iter::empty::<Fault>());
        session.deaf.store(true, Ordering::SeqCst);
        // The lease is 30 s: well within it.
        let (quiet, acked) = served(&session, 3, Duration::from_secs(25)).await;
        assert_eq!((quiet, acked), (1, 3));
        assert!(!session.deaf.load(Ordering::SeqCst));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lane_without_messages_or_in_flow_is_left_alone() {
        let session = Session::new(&Arc::default(), std::iter::empty::<Fault>());
        assert_eq!(served(&session, 0, Duration::from_secs(600)).await, (0, 0));
        assert_eq!(served(&session, 5, Duration::from_secs(600)).await, (0, 5));
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_help_is_done_less_and_less_often() {
        let session = Session::new(&Arc::default(), std::iter::empty::<Fault>());
        session.deaf.store(true, Ordering::SeqCst);
        session.stubborn.store(true, Ordering::SeqCst);
        let (quiet, acked) = served(&session, 3, Duration::from_secs(3_600)).await;
        assert!((8..=20).contains(&quiet), "{quiet} times in an hour");
        assert_eq!(acked, 0);
    }
}
