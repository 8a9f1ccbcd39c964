//! Dead letters, and looking at lanes.

use std::sync::Arc;

use bytes::Bytes;
use wf_broker::{BoxFuture, Buried, Control, DeadLetters, DeadPage, LaneStats};
use wf_schema::{Lane, Millis, Queue};

use super::super::history::Op;
use super::super::world::hash;
use super::{Session, pump};

impl DeadLetters for Session {
    fn bury(&self, queue: Queue, id: Arc<str>, bytes: Bytes) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.ask(Op::Bury, hash(&*id), "bury", |world, now| {
                let at = world.wall();
                if world.server.bury(&queue, &id, &bytes, now, at)? {
                    world.truth.buried(&bytes);
                    world.say(|| format!("{id} is buried"));
                }
                Ok(())
            })
            .await
        })
    }

    fn dead(&self, queue: Option<Queue>, from: u64, limit: usize) -> BoxFuture<'_, DeadPage> {
        Box::pin(async move {
            self.ask(Op::Other, from, "read dead letters", |world, _| {
                let of = |letter: &&Buried| letter.position >= from && queue.as_ref().is_none_or(|queue| *queue == letter.queue);
                let mut letters: Vec<Buried> = world.server.dead.iter().filter(of).take(limit + 1).cloned().collect();
                let next = letters.get(limit).map(|letter| letter.position);
                letters.truncate(limit);
                Ok(DeadPage { letters, next })
            })
            .await
        })
    }

    fn dead_at(&self, position: u64) -> BoxFuture<'_, Option<Buried>> {
        Box::pin(async move {
            self.ask(Op::Other, position, "read a dead letter", |world, _| {
                Ok(world.server.dead.iter().find(|letter| letter.position == position).cloned())
            })
            .await
        })
    }

    fn delete_dead(&self, position: u64) -> BoxFuture<'_, bool> {
        Box::pin(async move {
            self.ask(Op::Other, position, "delete a dead letter", |world, _| {
                let before = world.server.dead.len();
                world.server.dead.retain(|letter| letter.position != position);
                Ok(world.server.dead.len() < before)
            })
            .await
        })
    }
}

impl Control for Session {
    fn stats(&self, lane: Lane) -> BoxFuture<'_, LaneStats> {
        Box::pin(async move {
            self.ask(Op::Other, 1, "look at a lane", |world, _| {
                let waits = |source: &&super::super::world::Source| source.lane == lane && source.messages > 0;
                let waiting = world.sources.values().filter(waits).count() as u64;
                Ok(world.server.stats(&lane, waiting))
            })
            .await
        })
    }

    fn pause(&self, queue: Queue, until: Millis) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.ask(Op::Other, until, "pause a queue", |world, _| {
                world.server.paused.insert(queue, until);
                Ok(())
            })
            .await
        })
    }

    fn resume(&self, queue: Queue) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.ask(Op::Other, 0, "resume a queue", |world, now| {
                world.server.paused.remove(&queue);
                Lane::of(&queue).iter().for_each(|lane| pump(world, lane, now));
                Ok(())
            })
            .await
        })
    }

    fn paused(&self, queue: Queue) -> BoxFuture<'_, Option<Millis>> {
        Box::pin(async move {
            self.ask(Op::Other, 0, "look at a queue", |world, _| {
                let now = world.wall();
                Ok(world.server.paused.get(&queue).copied().filter(|until| *until > now))
            })
            .await
        })
    }
}
