//! What a node holds more than it can start soon, while others have nothing to do: it gives that away.
//!
//! First whole batches that nobody has touched go back to the broker, which delivers them elsewhere at once. Only when
//! there are none, or still others wait, is a running batch split: its unstarted jobs are published anew, to be run
//! under the ids they have. Nothing is given while something waits in the lane, for then others have enough; and what
//! was given before goes round only a few times.
//!
//! The decision is [`share`], which is pure; [`watch`] looks when to take it, and asks the batches at hand to follow.

mod share;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use wf_broker::LaneStats;

use crate::desk::Desk;
use crate::hand::{Ask, Hand};
use crate::node::Node;

pub(crate) use share::MAX_HOPS;
use share::{Outlook, Seen, share};

/// What is at hand may wait so long, beside the time that moving it would take.
const SHORTLY: Duration = Duration::from_millis(20);
/// The round trips that moving takes: to ask who waits, to record, to publish, to deliver.
const MOVING: u32 = 4;
/// How often the broker is asked who waits, at most.
const LOOK_EVERY: Duration = Duration::from_millis(300);
/// How long the broker is left alone when it did not answer, and how long an answer is waited for.
const TROUBLE: Duration = Duration::from_secs(5);

/// Gives away what is too much, until the node drains.
pub(crate) async fn watch(node: Arc<Node>, desk: Arc<Desk>) {
    node.phases.draining.run_until_cancelled(keep_watch(&node, &desk)).await;
}

async fn keep_watch(node: &Node, desk: &Desk) {
    loop {
        // Somewhere jobs could not be begun at once. Most are begun a moment later.
        desk.crowded.notified().await;
        sleep(SHORTLY).await;
        while let Some(outlook) = outlook(node, desk) {
            let pause = match timeout(TROUBLE, node.broker.stats(desk.lane.clone())).await {
                Ok(Ok(stats)) => {
                    give(node, desk, outlook, stats);
                    LOOK_EVERY
                }
                Ok(Err(error)) => {
                    tracing::debug!(lane = %desk.lane, error = &error as &dyn std::error::Error, "cannot tell who waits");
                    TROUBLE
                }
                Err(_) => TROUBLE,
            };
            sleep(pause.mul_f64(0.75 + fastrand::f64() / 2.0)).await;
        }
    }
}

/// How it looks at the desk, if anything would be given away to a single one that waits.
fn outlook(node: &Node, desk: &Desk) -> Option<Outlook> {
    let (_, message_time) = node.outlook(desk);
    let soon = SHORTLY + MOVING * node.distance();
    let (_, work) = node.options.budget();
    // As much in a piece as ingest puts into a batch, unless it is told otherwise.
    let outlook = Outlook { message_time, soon, piece: work / 2 };
    (!share(&seen(&desk.hands()), &outlook, 1).is_empty()).then_some(outlook)
}

fn seen(hands: &[Arc<Hand>]) -> Vec<Seen> {
    let now = Instant::now();
    hands.iter().map(|hand| Seen::new(hand.delivered, hand.progress(), now)).collect()
}

/// Gives to those who wait, if they find nothing in the lane.
fn give(node: &Node, desk: &Desk, outlook: Outlook, stats: LaneStats) {
    // This node's own request is one of them.
    let (asks, _) = node.outlook(desk);
    let others = stats.waiting.saturating_sub(u64::from(asks));
    if stats.pending > 0 || others == 0 {
        return;
    }
    // Anew: some time has passed.
    let hands = desk.hands();
    let asked = share(&seen(&hands), &outlook, others);
    if asked.is_empty() {
        return;
    }
    // Before anything goes: it would be the first to take it back.
    node.withdraw(desk);
    let released = asked.iter().filter(|(_, ask)| *ask == Ask::Release).count();
    tracing::debug!(lane = %desk.lane, others, released, split = asked.len() - released, "giving to others who wait");
    for (at, ask) in asked {
        if let Some(hand) = hands.get(at) {
            hand.ask(ask);
        }
    }
}
