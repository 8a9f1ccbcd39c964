//! One lane's deliveries, from the broker into the node.

use std::sync::Arc;

use wf_broker::{BrokerError, DeliverySource};

use crate::credit::Grant;
use crate::desk::Desk;
use crate::drain::OpenLane;
use crate::node::Node;
use crate::patience::insist;
use crate::quiet::Quiet;
use crate::stats::count_up;

/// Pulls until the node drains, and ends the flow then. Runs on the executor's own thread: a delivery is owned from its
/// arrival, so it must be taken, and renewed, whatever the handlers do.
pub(crate) fn pull(node: Arc<Node>, desk: Arc<Desk>) -> impl Future<Output = ()> {
    // Counts before the future is first polled: a drain that begins right now waits for it.
    let open = OpenLane::new(node.clone());
    async move {
        run(&node, &desk).await;
        drop(open);
        tracing::debug!(lane = %desk.lane, "the lane is served no more");
    }
}

async fn run(node: &Arc<Node>, desk: &Arc<Desk>) {
    let opening = insist("open a lane", || node.broker.lane(desk.lane.clone()));
    let mut source = match node.phases.draining.run_until_cancelled(opening).await {
        Some(Ok(source)) => source,
        Some(Err(error)) => return node.fail(error),
        None => return,
    };
    if let Some(Err(error)) = node.phases.draining.run_until_cancelled(serve(node, desk, &mut *source)).await {
        node.fail(error);
    }
    match source.stop().await {
        Ok(untaken) => count_up(&node.lanes.untaken, untaken),
        Err(error) => {
            let error: &dyn std::error::Error = &error;
            tracing::warn!(lane = %desk.lane, error, "cannot make sure that nothing is on its way from the lane");
            count_up(&node.lanes.unsure, 1);
        }
    }
}

/// # Errors
/// What the broker will not mend.
async fn serve(
    node: &Arc<Node>,
    desk: &Arc<Desk>,
    source: &mut dyn DeliverySource,
) -> Result<std::convert::Infallible, BrokerError> {
    tracing::debug!(lane = %desk.lane, "the lane is served");
    node.dispatch();
    let mut quiet = Quiet::new(node.broker.lease());
    loop {
        tokio::select! {
            biased;
            change = desk.changed() => {
                if change.withdraw {
                    source.withdraw();
                }
                if change.grant != Grant::default() {
                    source.grant(change.grant.messages, change.grant.bytes);
                }
            }
            delivery = source.next() => {
                quiet.heard();
                node.take(desk, delivery?);
            }
            () = quiet.noticed(node, desk) => source.mend(),
        }
    }
}
