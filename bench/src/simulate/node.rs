//! The processes of a history. Each is started again when it is gone, until the history is over.

pub(crate) mod executor;
pub(crate) mod ingest;
pub(crate) mod run;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use wf_executor::{JobContext, JobFailure, Registry};

use super::broker::Session;
use super::truth::Args;

/// What runs jobs on one life of a node.
pub(crate) fn registry(session: &Arc<Session>) -> Registry {
    let session = session.clone();
    Registry::new().register("work", move |context: JobContext, args: Args| {
        let session = session.clone();
        async move { work(&session, &context, &args).await }
    })
}

async fn work(session: &Session, context: &JobContext, args: &Args) -> Result<(), JobFailure> {
    session.live().await;
    let (id, attempt, node, life) = (context.id(), context.attempt(), session.node, session.life);
    {
        let mut world = session.world().lock();
        world.truth.started(id, attempt, node, life);
        world.say(|| format!("job {} attempt {attempt} starts on node {node}/{life}", args.tag));
        if world.truth.takes_a_life(args.tag) && !world.healed {
            world.hit("poison");
            world.kill(node);
        }
    }
    session.live().await;
    if args.ms > 0 {
        sleep(Duration::from_millis(args.ms.into())).await;
        session.live().await;
    }
    let well = attempt > u32::from(args.fails);
    let mut world = session.world().lock();
    world.truth.ended(id, attempt, node, life, well);
    world.say(|| format!("job {} attempt {attempt} ends on node {node}/{life}", args.tag));
    drop(world);
    match (well, args.permanent) {
        (true, _) => Ok(()),
        (false, true) => Err(JobFailure::permanent("failed", "for good")),
        (false, false) => Err(JobFailure::retryable("failed", "for now")),
    }
}
