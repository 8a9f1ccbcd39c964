//! What goes wrong, when it does.

use std::time::Duration;

use tokio::time::Instant;

use super::breaks::Break;
use super::broker::{pump, send};
use super::history::{Fault, Role};
use super::play::lane;
use super::world::{Inner, World, ms};

/// Lets `fault` happen.
pub(crate) fn strike(world: &World, fault: &Fault) {
    let mut world = world.lock();
    let now = Instant::now();
    if !matches!(fault, Fault::Op { .. } | Fault::Evict { .. } | Fault::Repeat { .. }) {
        world.hit(&fault.kind());
    }
    world.say(|| format!("{fault:?}"));
    match *fault {
        Fault::Kill { role, node, back_ms } => {
            if let Some(node) = alive(&world, role, node) {
                world.nodes[node].back_ms = back_ms;
                world.kill(node);
            }
        }
        Fault::Drain { node, deadline_ms, back_ms } => {
            if let Some(node) = alive(&world, Role::Executor, node) {
                let it = &mut world.nodes[node];
                (it.deadline_ms, it.back_ms) = (deadline_ms, back_ms);
                it.ordered.notify_one();
                // What it gives back is run elsewhere, also what it had begun.
                world.truth.drains(node, now);
            }
        }
        Fault::Cut { role, node, ms: time } => {
            if let Some(node) = world.node(role, node) {
                world.nodes[node].cut = Some((now, now + ms(time)));
                world.truth.disturb(Some(node), now);
                world.truth.disturb(Some(node), now + ms(time));
                world.alarm.notify_one();
            }
        }
        Fault::Restart { down_ms, acks_ms, ids, counts, leases } => {
            restart(&mut world, now, down_ms, acks_ms, ids, counts, leases)
        }
        Fault::Rollback { .. } => rollback(&mut world, now),
        Fault::Full { place, ms: time } => {
            if let Some(lane) = lane(place) {
                world.server.full.insert(lane, now + ms(time));
            }
        }
        Fault::Lag { lag_ms, ms: time } => world.lag = Some((ms(lag_ms), now + ms(time))),
        Fault::Evict { left } => {
            let gone = world.server.evict(left.into());
            if gone > 0 {
                world.hit("records evicted");
            }
            if world.breaks.has(Break::A1) {
                world.server.evict_logs(left.into());
            }
        }
        Fault::Reorder { ms: time } => world.disorder = Some(now + ms(time)),
        Fault::Repeat { count } => repeat(&mut world, now, count.into()),
        Fault::Clock { role, node, ms } => {
            if let Some(node) = world.node(role, node) {
                world.nodes[node].skew = i64::from(ms);
            }
        }
        Fault::DiskFull { node, ms: time } => {
            if let Some(node) = world.node(Role::Ingest, node) {
                world.disks_full.insert(node, now + ms(time));
                world.truth.disturb(Some(node), now);
            }
        }
        Fault::Op { .. } => world.mishaps.push((now, *fault)),
    }
}

fn alive(world: &Inner, role: Role, index: u8) -> Option<usize> {
    world.node(role, index).filter(|node| world.nodes[*node].alive)
}

fn restart(world: &mut Inner, now: Instant, down_ms: u32, acks_ms: u32, ids: bool, counts: bool, leases: bool) {
    let back = world.server.restart(now, ms(acks_ms), ids, counts, leases);
    for uid in back {
        world.hit("ack forgotten");
        world.truth.back(uid);
    }
    if ids {
        world.hit("dedup ids forgotten");
        world.truth.forget_ids(now);
    }
    if counts {
        world.hit("delivery counts forgotten");
    }
    world.truth.disturb(None, now);
    world.truth.disturb(None, now + ms(down_ms));
    world.down = Some(now + ms(down_ms));
    world.break_connections();
    world.alarm.notify_one();
}

fn rollback(world: &mut Inner, now: Instant) {
    let Some((then, server)) = world.snapshots.pop_front() else { return };
    let full = world.server.full.clone();
    world.server = server;
    world.server.full = full;
    world.truth.rolled_back(then);
    world.down = Some(now + Duration::from_millis(500));
    world.break_connections();
    world.alarm.notify_one();
}

/// Messages that are out come once more, to whoever asks.
fn repeat(world: &mut Inner, now: Instant, count: usize) {
    for run in world.server.out(count) {
        let Some(kept) = world.server.messages.get(&run) else { continue };
        let lane = kept.lane.clone();
        let able = world
            .sources
            .iter()
            .find(|(_, source)| source.lane == lane && source.messages > 0 && source.bytes > 0 && world.sends(source.node, now));
        let Some(number) = able.map(|(number, _)| *number) else { continue };
        world.hit("delivered again");
        world.truth.disturb(None, now);
        send(world, run, number, now);
        pump(world, &lane, now);
    }
}
