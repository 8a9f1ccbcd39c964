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
use crate::KnownFault;
use crate::bury;
use crate::charge::Charge;
use crate::hand::Ask;
use crate::intake::Work;
use crate::node::Node;
use crate::patience::insist;
use crate::renew::Held;
use crate::settle::{Found, Lost, Settling};
use crate::stats::count_up;

/// What counts as one unit of the look-ups that go on at once, in bytes of messages.
const LOOKUP_UNIT: usize = 1 << 10;
/// How many there are: 4 MiB, so 40 MB/s of batches at a round trip of 100 ms.
pub(crate) const LOOKUP_UNITS: u32 = 4 << 10;

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
    // those behind it would wait for the answer too.
    let kept = match delivery.delivered > 1 && node.options.has_fault(KnownFault::HeldLookups) {
        true => unless_unwanted(node, &charge, node.lookups.acquire_many(LOOKUP_UNITS / 16)).await,
        false => None,
    };
    let found = match delivery.delivered > 1 {
        true => match unless_unwanted(node, &charge, look_up(node, delivery)).await {
            Some(Ok(found)) => Some(found),
            Some(Err(Lost::Wire(error))) => return bury_whole(node, delivery, held, &error).await,
            Some(Err(lost)) => return Err(lost),
            None => return untouched(node, held),
        },
        false => None,
    };
    let Some(turn) = place(node, &charge, &charge.desk.turns).await else { return untouched(node, held) };
    drop(kept);
    // Read only now, or once more: a batch that waits for its turn is held as it came, for that is what the budget of
    // bytes counts.
    let work = match Work::read(delivery, node.options.reading()) {
        Ok(work) => work,
        Err(error) => {
            drop(turn);
            return bury_whole(node, delivery, held, &error).await;
        }
    };
    let taken_up = Settling::take_up(node.clone(), work.clone(), held, delivery.delivered, found).await?;
    let (mut settling, settled, suspicion) = taken_up;
    let skipped = count_skipped(node, &settled);
    if suspicion.asks_for_care(delivery.delivered) {
        return careful::run(node, &work, settling, settled, &suspicion, &mut charge, turn).await;
    }
    settling.begin();
    tracing::debug!(batch = %work.header.id, jobs = work.batch.len(), skipped, delivered = delivery.delivered, "begun");
    let mut jobs = Jobs::new(node.clone(), work, settling, settled, charge.hand.clone());
    jobs.run(turn, &mut charge).await?;
    if let Some(busy) = jobs.busy() {
        charge.ran(busy);
    }
    jobs.settle().await
}

/// Reads what is on record of a batch. As many as fit into the node's window do so at once, and each only for as long
/// as it reads: nothing here waits for a turn, for then the batches of one slow lane would keep all others waiting.
async fn look_up(node: &Node, delivery: &Delivery) -> Result<Found, Lost> {
    let size = u32::try_from(delivery.bytes.len().div_ceil(LOOKUP_UNIT)).unwrap_or(u32::MAX);
    let _reading = match node.options.has_fault(KnownFault::HeldLookups) {
        true => None,
        // Never closed.
        false => node.lookups.acquire_many(size.clamp(1, LOOKUP_UNITS)).await.ok(),
    };
    let work = Work::read(delivery, node.options.reading())?;
    Found::look_up(node, &work).await
}

/// Gives the batch back as it came: others may have it at once.
fn untouched(node: &Node, held: Held) -> Result<(), Lost> {
    held.release();
    count_up(&node.tally.released, 1);
    Ok(())
}

/// Jobs that need not be run, for they are settled.
fn count_skipped(node: &Node, settled: &[bool]) -> usize {
    let skipped = settled.iter().filter(|settled| **settled).count();
    count_up(&node.tally.skipped, skipped as u64);
    skipped
}

/// What `wait` brings; `None` when the node drains, or others want the batch, before that.
async fn unless_unwanted<T>(node: &Node, charge: &Charge, wait: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        () = node.phases.draining.cancelled() => None,
        () = released(charge) => {
            count_up(&node.tally.handed_on, 1);
            None
        }
        brought = wait => Some(brought),
    }
}

/// A place at `places`, unless the batch is unwanted before there is one.
async fn place(node: &Node, charge: &Charge, places: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    unless_unwanted(node, charge, places.clone().acquire_owned()).await?.ok()
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

#[cfg(test)]
mod tests;
