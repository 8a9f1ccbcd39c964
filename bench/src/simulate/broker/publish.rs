//! Storing messages, for now and for later.

use std::time::Duration;

use wf_broker::{BoxFuture, BrokerError, Cron, Key, Message, Publish, Schedule, Scheduled, Stored};
use wf_schema::BatchId;

use super::super::history::Op;
use super::super::server::Server;
use super::super::world::{Inner, hash};
use super::{Session, fallback, pump};

/// Stores `message` and tells the truth.
fn store(world: &mut Inner, message: &Message, now: tokio::time::Instant) -> Result<Stored, BrokerError> {
    let (uid, at) = (world.number(), world.wall());
    let run = world.server.publish(uid, &message.lane, &message.id, &message.bytes, now, at)?;
    if let Some(run) = run {
        let id = fallback(run, at, &message.id);
        world.truth.stored(uid, Some(run), &message.lane, &message.id, &message.bytes, id);
        world.say(|| format!("{} is stored as {run} in {}", message.id, message.lane));
    }
    Ok(Server::stored(run))
}

impl Publish for Session {
    fn publish(&self, message: Message) -> BoxFuture<'_, Stored> {
        Box::pin(async move {
            self.ask(Op::Publish, hash(&*message.id), "store a message", |world, now| {
                let stored = store(world, &message, now)?;
                pump(world, &message.lane, now);
                Ok(stored)
            })
            .await
        })
    }

    fn publish_all(&self, messages: Vec<Message>) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let first = messages.first().map_or(0, |message| hash(&*message.id));
            self.ask(Op::PublishAll, first, "store messages", |world, now| {
                // All that are new, or none of them.
                let known: Vec<bool> = messages.iter().map(|m| world.server.is_known(&m.id, now)).collect();
                let new = || messages.iter().zip(&known).filter(|(_, known)| !**known).map(|(message, _)| message);
                for message in new() {
                    let beside = new().filter(|other| other.lane == message.lane).count();
                    world.server.has_room(&message.lane, beside, now)?;
                    let (size, limit) = (message.bytes.len(), world.server.bounds.message_bytes);
                    if size > limit {
                        return Err(BrokerError::TooLarge { size, limit });
                    }
                }
                for message in new() {
                    store(world, message, now)?;
                }
                for message in &messages {
                    pump(world, &message.lane, now);
                }
                Ok(())
            })
            .await
        })
    }

    fn dedup_window(&self) -> Duration {
        self.window
    }

    fn max_message(&self) -> usize {
        self.max_message
    }
}

impl Schedule for Session {
    fn publish_at(&self, scheduled: Scheduled) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.ask(Op::PublishAt, hash(scheduled.key.as_str()), "schedule a message", |world, now| {
                let uid = world.number();
                let (lane, key, bytes) = (scheduled.lane.clone(), scheduled.key.clone(), scheduled.bytes.clone());
                let before = world.server.later.get(&key).map(|later| later.uid);
                if world.server.publish_at(uid, scheduled, now)? {
                    before.into_iter().for_each(|before| world.truth.replaced(before));
                    world.truth.stored(uid, None, &lane, key.as_str(), &bytes, BatchId::from(0));
                    world.say(|| format!("{key} is scheduled for {lane}"));
                    world.alarm.notify_one();
                }
                Ok(())
            })
            .await
        })
    }

    fn cancel_at(&self, key: Key) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.ask(Op::Other, hash(key.as_str()), "cancel a schedule", |world, _| {
                if let Some(later) = world.server.later.remove(&key) {
                    world.truth.replaced(later.uid);
                }
                Ok(())
            })
            .await
        })
    }

    fn put_cron(&self, _: Cron) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(Err(BrokerError::fatal("keep a cron", "the simulation has none"))))
    }

    fn delete_cron(&self, _: Key) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(Ok(())))
    }
}
