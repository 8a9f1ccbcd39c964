//! One delivery, from its turn to its settling.

mod careful;
mod jobs;
mod measured;
mod stride;

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::Instrument;
use wf_broker::Delivery;
use wf_schema::{DeadLetter, State, WireError, now};

use self::jobs::Jobs;
use crate::bury;
use crate::charge::Charge;
use crate::hand::Ask;
use crate::intake::Work;
use crate::node::Node;
use crate::patience::insist;
use crate::renew::Held;
use crate::settle::{Lost, Settling};
use crate::stats::count_up;

/// Runs `delivery` to its end, whatever that is.
pub(crate) async fn run(node: Arc<Node>, delivery: Delivery, held: Held, charge: Charge) {
    let span = tracing::debug_span!("run", run = %delivery.run, lane = %delivery.lane);
    let gone = node.phases.gone.clone();
    // Dropped wherever it is, the batch is neither acknowledged nor renewed: it comes again.
    tokio::select! {
        biased;
        () = gone.cancelled() => {}
        () = Box::pin(attend(node, delivery, held, charge).instrument(span)) => {}
    }
}

async fn attend(node: Arc<Node>, delivery: Delivery, held: Held, charge: Charge) {
    match work_off(&node, &delivery, held, charge).await {
        Ok(()) => {}
        Err(Lost::Fenced) => {
            tracing::warn!(run = %delivery.run, "another executor has taken the batch over; nothing of it is settled here");
            count_up(&node.tally.fenced, 1);
        }
        Err(Lost::Broker(error)) => node.fail(error),
        Err(Lost::Wire(error)) => tracing::error!(run = %delivery.run, %error, "what became of the batch cannot be written"),
    }
}

async fn work_off(node: &Arc<Node>, delivery: &Delivery, held: Held, mut charge: Charge) -> Result<(), Lost> {
    // Of a batch that was delivered before there may be records, a round trip away. They are read before its turn, or
    // those behind it would wait for the answer too; few at a time, for such batches take memory while they wait.
    let again = delivery.delivered > 1;
    let place = if again { node.lookups.clone() } else { charge.desk.turns.clone() };
    let Some(place) = unless_unwanted(node, &charge, place).await else {
        // Untouched, so others may have it at once.
        held.release();
        count_up(&node.tally.released, 1);
        return Ok(());
    };
    let work = match Work::read(delivery, node.options.reading()) {
        Ok(work) => work,
        Err(error) => {
            drop(place);
            return bury_whole(node, delivery, held, &error).await;
        }
    };
    let (mut settling, mut settled, suspicion) = Settling::take_up(node.clone(), work.clone(), held, delivery.delivered).await?;
    let care = suspicion.asks_for_care(delivery.delivered);
    if care {
        count_skipped(node, &settled);
        drop(place);
        return careful::run(node, &work, settling, settled, &suspicion, &mut charge).await;
    }
    let turn = match again {
        true => {
            let turn = unless_unwanted(node, &charge, charge.desk.turns.clone()).await;
            drop(place);
            turn
        }
        false => Some(place),
    };
    let Some(turn) = turn else { return settling.release().await };
    if again {
        settling.catch_up(&mut settled).await?;
    }
    let skipped = count_skipped(node, &settled);
    settling.begin();
    tracing::debug!(batch = %work.header.id, jobs = work.batch.len(), skipped, delivered = delivery.delivered, "begun");
    let mut jobs = Jobs::new(node.clone(), work, settling, settled, charge.hand.clone());
    jobs.run(turn, &mut charge).await?;
    if let Some(busy) = jobs.busy() {
        charge.ran(busy);
    }
    jobs.settle().await
}

/// Jobs that need not be run, for they are settled.
fn count_skipped(node: &Node, settled: &[bool]) -> usize {
    let skipped = settled.iter().filter(|settled| **settled).count();
    count_up(&node.tally.skipped, skipped as u64);
    skipped
}

/// A place at `places`; `None` when the node drains, or others want the batch, before there is one.
async fn unless_unwanted(node: &Node, charge: &Charge, places: Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    tokio::select! {
        biased;
        () = node.phases.draining.cancelled() => None,
        () = released(charge) => {
            count_up(&node.tally.handed_on, 1);
            None
        }
        place = places.acquire_owned() => place.ok(),
    }
}

/// Waits until the batch is asked to go as a whole: before its turn it can do nothing else.
async fn released(charge: &Charge) {
    while charge.hand.asked().await != Ask::Release {}
}

/// A message of which nothing can be read is kept as it came.
async fn bury_whole(node: &Node, delivery: &Delivery, held: Held, error: &WireError) -> Result<(), Lost> {
    tracing::warn!(run = %delivery.run, lane = %delivery.lane, %error, "a message cannot be read and becomes a dead letter");
    let remains = bury::raw(bury::undecodable(&error.to_string()), &delivery.bytes, bury::room(node.broker.max_message()));
    let letter = DeadLetter { lane: delivery.lane.clone(), at: now(), executor: node.options.name().to_owned(), remains };
    // The same over redeliveries: the letter is there once.
    let (id, bytes): (Arc<str>, _) = (format!("{}.{}.raw", delivery.fallback_id, delivery.run).into(), letter.encode());
    let queue = &delivery.lane.queue;
    insist("bury", || node.broker.bury(queue.clone(), id.clone(), bytes.clone())).await?;
    // Only now: a message that is gone is buried by nobody.
    held.ack(None);
    node.tally.settled(std::iter::once(State::Discarded));
    count_up(&node.tally.acked, 1);
    Ok(())
}
