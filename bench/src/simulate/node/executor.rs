//! An executor.

use tokio::time::{Instant, sleep};
use wf_executor::{Executor, ExecutorOptions, KnownFault};
use wf_schema::Queue;

use super::super::breaks::Break;
use super::super::broker::Session;
use super::super::history::Place;
use super::super::world::{World, ms};
use super::registry;

/// How it is set up. A setting that cannot be is the simulation's fault, and told as one.
fn options(world: &World, name: String) -> Result<ExecutorOptions, String> {
    let (slots, turns, served, breaks) = {
        let world = world.lock();
        (world.setting.slots, world.setting.turns, usize::from(world.setting.queues), world.breaks.clone())
    };
    let queues = Place::QUEUES.iter().take(served).filter_map(|queue| Queue::new(queue).ok());
    let mut options =
        ExecutorOptions::new(name).and_then(|options| options.concurrency(slots.into())).map_err(|error| error.to_string())?;
    for (put_back, fault) in [(Break::A9, KnownFault::HeldLookups), (Break::A14, KnownFault::ForgottenDetours)] {
        if breaks.has(put_back) {
            options = options.with_fault(fault);
        }
    }
    Ok(options.serving(queues).turns(turns.into()))
}

/// Runs executor `node`, life after life.
pub(crate) async fn live(world: World, node: usize) {
    loop {
        let (life, died, orders) = {
            let mut world = world.lock();
            if world.closing {
                return;
            }
            let life = world.begin(node);
            (life, world.nodes[node].died.clone(), world.nodes[node].ordered.clone())
        };
        let session = Session::new(&world, node, life);
        let started = options(&world, format!("e{node}"))
            .and_then(|options| Executor::start_here(session.clone(), registry(&session), options).map_err(|e| e.to_string()));
        let executor = match started {
            Ok(executor) => executor,
            Err(error) => return world.lock().truth.violated("simulation", error),
        };
        tokio::select! {
            biased;
            () = died.notified() => {}
            () = orders.notified() => tokio::select! {
                biased;
                () = died.notified() => {}
                () = drain(&world, &executor, node, life) => {}
            },
            ended = executor.stopped() => {
                world.lock().truth.violated("executor stopped", format!("node {node}: {ended:?}"));
            }
        }
        drop(executor);
        let back = {
            let mut world = world.lock();
            world.nodes[node].alive = false;
            world.forget(node);
            let back = std::mem::replace(&mut world.nodes[node].back_ms, 500);
            if world.closing { None } else { Some(back) }
        };
        let Some(back) = back else { return };
        sleep(ms(back)).await;
    }
}

/// Stops it politely, and looks whether it left anything.
async fn drain(world: &World, executor: &Executor, node: usize, life: u32) {
    let (began, deadline) = (Instant::now(), ms(world.lock().nodes[node].deadline_ms));
    let report = executor.drain(deadline).await;
    let mut world = world.lock();
    let now = Instant::now();
    let lease = world.server.bounds.lease;
    let left = world.server.with(node, life).into_iter().filter(|kept| !world.truth.was_fenced(node, kept.uid));
    let left = left.map(|kept| kept.run.to_string()).collect::<Vec<_>>();
    let from = began.checked_sub(lease).unwrap_or(began);
    // What is lost on a link, nobody can give back.
    if world.truth.disturbed(node, from, now) {
        return;
    }
    if !left.is_empty() {
        world.truth.violated("drain left", format!("node {node} drained ({report}) and left {}", left.join(", ")));
    } else if !report.confirmed || report.abandoned > 0 {
        world.truth.violated("drain unclean", format!("node {node} drained without disturbance: {report}"));
    }
}
