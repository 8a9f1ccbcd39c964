//! A run that keeps coming back, run with care: see [`Suspicion`].
//!
//! Each group of its jobs is marked on record *before* the first of them begins: what kills its executor leaves nothing
//! but what was there before. And a mark is withdrawn *before* a run is given back, so that no end but a loss passes
//! for one.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;
use wf_schema::Mark;

use super::jobs::Jobs;
use super::place;
use crate::charge::Charge;
use crate::hand::Hand;
use crate::intake::Work;
use crate::node::Node;
use crate::settle::{Lost, Settling};
use crate::suspicion::{Group, Suspicion, open};

/// Runs what is not settled of `work`, group by group.
pub(super) async fn run(
    node: &Arc<Node>,
    work: &Arc<Work>,
    mut settling: Settling,
    mut settled: Vec<bool>,
    suspicion: &Suspicion,
    charge: &mut Charge,
    turn: OwnedSemaphorePermit,
) -> Result<(), Lost> {
    let mut turn = Some(turn);
    let condemned = suspicion.condemned(work, &settled);
    if !condemned.is_empty() {
        tracing::error!(batch = %work.header.id, jobs = condemned.len(), "jobs that killed their executors become dead letters");
        settling.commit(&condemned).await?;
        condemned.iter().for_each(|outcome| settled[outcome.place as usize] = true);
    }
    loop {
        let group = suspicion.next(work, &settled);
        let rest = group.as_ref().is_none_or(|group| group.places.len() == open(work, &settled).count());
        let suspect = group.as_ref().is_some_and(|group| group.suspect);
        // Its first turn is here already; a suspect gives it up while it waits for the others.
        let turn = turn.take().filter(|_| !suspect);
        let (_apart, turn) = match (suspect, turn) {
            (false, Some(turn)) => (None, Some(turn)),
            (false, None) => (None, place(node, charge, &charge.desk.turns).await),
            (true, _) => both(node, charge).await.unzip(),
        };
        let Some(turn) = turn else { return settling.release().await };
        if let Some(Group { places, suspect }) = &group {
            let indexes = || places.iter().filter_map(|place| Some(work.label(*place)?.0)).collect();
            settling.mark(if rest { Mark::All } else { Mark::Jobs(indexes()) }).await?;
            tracing::info!(batch = %work.header.id, jobs = places.len(), suspect, "jobs of a batch that keeps coming back");
        }
        settling.begin();
        // A suspect is nothing to give away: elsewhere nothing would be known against it.
        let hand = if suspect { Arc::new(Hand::new(charge.hand.delivered)) } else { charge.hand.clone() };
        if rest {
            let mut jobs = Jobs::new(node.clone(), work.clone(), settling, settled, hand);
            jobs.run(turn, charge).await?;
            return jobs.settle().await;
        }
        let mut others = settled.clone();
        others[..work.batch.len()].fill(true);
        let places = group.map(|group| group.places).unwrap_or_default();
        places.iter().chain(work.later.iter().map(|(place, _)| place)).for_each(|place| others[*place] = settled[*place]);
        let mut jobs = Jobs::new(node.clone(), work.clone(), settling, others, hand);
        jobs.run(turn, charge).await?;
        let Some((given_back, whole)) = jobs.hand_back().await? else { return Ok(()) };
        settling = given_back;
        if !whole {
            return settling.release().await;
        }
        places.iter().chain(work.later.iter().map(|(place, _)| place)).for_each(|place| settled[*place] = true);
        settled[work.batch.len()..].fill(true);
    }
}

/// The one place that a node has for suspects, over all its runs, and a turn: what kills the node takes no other suspect
/// along, which would look as guilty. Neither is held while it waits for the other: the place would be kept from the
/// suspects of other lanes, and the turn from the other batches of this one.
async fn both(node: &Node, charge: &Charge) -> Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)> {
    let (suspects, turns) = (&node.suspects, &charge.desk.turns);
    loop {
        let apart = place(node, charge, suspects).await?;
        if let Ok(turn) = turns.clone().try_acquire_owned() {
            return Some((apart, turn));
        }
        drop(apart);
        let turn = place(node, charge, turns).await?;
        if let Ok(apart) = suspects.clone().try_acquire_owned() {
            return Some((apart, turn));
        }
    }
}
