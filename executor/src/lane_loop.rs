//! One lane's deliveries, from the broker into the node.

use std::sync::Arc;

use wf_broker::BrokerError;

use crate::credit::Grant;
use crate::desk::Desk;
use crate::node::Node;
use crate::patience::insist;
use crate::quiet::Quiet;

/// Pulls until the node drains. Runs on the executor's own thread: a delivery is owned from its arrival, so it must be
/// taken, and renewed, whatever the handlers do.
pub(crate) async fn pull(node: Arc<Node>, desk: Arc<Desk>) {
    tokio::select! {
        biased;
        // What was delivered and not taken yet is released with the source.
        () = node.phases.draining.cancelled() => {}
        Err(error) = serve(&node, &desk) => node.fail(error),
    }
    tracing::debug!(lane = %desk.lane, "the lane is served no more");
}

/// # Errors
/// What the broker will not mend.
async fn serve(node: &Arc<Node>, desk: &Arc<Desk>) -> Result<std::convert::Infallible, BrokerError> {
    let mut source = insist("open a lane", || node.broker.lane(desk.lane.clone())).await?;
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
