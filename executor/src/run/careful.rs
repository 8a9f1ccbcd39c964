//! A run that keeps coming back, run with care: see [`Suspicion`].
//!
//! Each group of its jobs is marked on record *before* the first of them begins: what kills its executor leaves nothing
//! but what was there before. And a mark is withdrawn *before* a run is given back, so that no end but a loss passes
//! for one.

use std::sync::Arc;

use wf_schema::Mark;

use super::jobs::Jobs;
use super::unless_unwanted;
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
) -> Result<(), Lost> {
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
        // One at a time over all runs of the node: what kills it takes no other suspect along, which would look as
        // guilty. Before the turn, for who waits for this has no use for a turn.
        let apart = match suspect {
            true => unless_unwanted(node, charge, node.suspects.clone()).await,
            false => None,
        };
        let turn = unless_unwanted(node, charge, charge.desk.turns.clone()).await;
        let Some(turn) = turn.filter(|_| apart.is_some() == suspect) else { return settling.release().await };
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
