//! Keyed records.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use wf_broker::{BoxFuture, Entry, Key, KeyedRecords, Revision};

use super::super::history::Op;
use super::super::world::{Inner, hash};
use super::Session;

/// How often a watch looks by itself: a record may outlive its time without anybody's doing.
const LOOK: Duration = Duration::from_secs(20);

impl Session {
    fn write<'a>(
        &'a self,
        op: Op,
        key: Key,
        expected: Option<Revision>,
        bytes: Option<Bytes>,
        ttl: Option<Duration>,
    ) -> BoxFuture<'a, Revision> {
        Box::pin(async move {
            let act = |world: &mut Inner, now| {
                let revision = world.server.write(key.clone(), expected, bytes, ttl, now)?;
                world.written.notify_waiters();
                world.say(|| format!("{op:?} {key} {}", revision.0));
                Ok(revision)
            };
            self.ask(op, expected.map_or(0, |revision| revision.0), "write a record", act).await
        })
    }
}

impl KeyedRecords for Session {
    fn create(&self, key: Key, bytes: Bytes, ttl: Option<Duration>) -> BoxFuture<'_, Revision> {
        self.write(Op::Create, key, None, Some(bytes), ttl)
    }

    fn update(&self, key: Key, revision: Revision, bytes: Bytes, ttl: Option<Duration>) -> BoxFuture<'_, Revision> {
        self.write(Op::Update, key, Some(revision), Some(bytes), ttl)
    }

    fn delete(&self, key: Key, revision: Revision) -> BoxFuture<'_, ()> {
        Box::pin(async move { self.write(Op::Delete, key, Some(revision), None, None).await.map(drop) })
    }

    fn get(&self, key: Key) -> BoxFuture<'_, Option<Entry>> {
        Box::pin(async move {
            self.ask(Op::Get, hash(key.as_str()), "read a record", |world, now| {
                let shown = world.shown(now);
                Ok(world.server.entry(&key, shown, now))
            })
            .await
        })
    }

    fn watch_key(&self, key: Key, seen: Option<Revision>) -> BoxFuture<'_, Option<Entry>> {
        Box::pin(async move {
            loop {
                let written = self.world.lock().written.clone();
                let written = written.notified();
                let now = Instant::now();
                let entry = {
                    let world = self.world.lock();
                    let entry = world.server.entry(&key, now, now);
                    world.reaches(self.node, now).then_some(entry)
                };
                if let Some(entry) = entry.filter(|entry| entry.as_ref().map(|entry| entry.revision) != seen) {
                    self.live().await;
                    return Ok(entry);
                }
                let _late = tokio::time::timeout(LOOK, written).await;
            }
        })
    }
}
