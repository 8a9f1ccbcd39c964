//! The logs of runs, and who wants to hear of them.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Notify;
use wf_broker::{BoxFuture, BrokerError, Hint, LoggedRecord, OutcomeLog, Version};
use wf_schema::{BatchId, RunId};

use super::super::history::Op;
use super::super::world::{Inner, Watcher, hash};
use super::Session;

impl OutcomeLog for Session {
    fn append(&self, batch: BatchId, run: RunId, expected: Version, bytes: Bytes) -> BoxFuture<'_, Version> {
        Box::pin(async move {
            self.ask(Op::Append, hash(&(batch, run, expected)), "append a record", |world, now| {
                let appended = world.server.append(batch, run, expected, bytes.clone(), now);
                let message = world.truth.message_of(batch, run);
                if let (Err(BrokerError::Fenced), Some(uid)) = (&appended, message) {
                    world.hit("fenced");
                    world.truth.fenced(uid, self.node);
                }
                let version = appended?;
                if let Some(uid) = message {
                    world.truth.appended(uid, &bytes);
                    world.truth.looked(uid, self.node, self.life, now);
                }
                world.say(|| format!("{batch} {run} has a record {}", version.0));
                copied(world, batch, LoggedRecord { run, version, bytes }, now);
                Ok(version)
            })
            .await
        })
    }

    fn read(&self, batch: BatchId) -> BoxFuture<'_, Vec<LoggedRecord>> {
        Box::pin(async move {
            self.ask(Op::Read, hash(&batch), "read records", |world, now| {
                let shown = world.shown(now);
                let runs: Vec<RunId> = world.server.logs.keys().filter(|(of, _)| *of == batch).map(|(_, run)| *run).collect();
                let mut records = Vec::new();
                for run in runs {
                    if let Some(uid) = world.truth.message_of(batch, run) {
                        world.truth.looked(uid, self.node, self.life, shown);
                    }
                    records.extend(world.server.log(batch, run, shown));
                }
                Ok(records)
            })
            .await
        })
    }

    fn watch(&self, batch: BatchId) -> BoxFuture<'_, Box<dyn Hint>> {
        self.watched(Some(batch))
    }

    fn watch_all(&self) -> BoxFuture<'_, Box<dyn Hint>> {
        self.watched(None)
    }
}

/// Readers may see it, and are told.
fn copied(world: &mut Inner, batch: BatchId, record: LoggedRecord, now: tokio::time::Instant) {
    world.server.copy(batch, record, now);
    for watcher in world.watchers.values_mut().filter(|watcher| watcher.batch.is_none_or(|of| of == batch)) {
        watcher.hints.push_back(Some(batch));
        watcher.news.notify_one();
    }
}

impl Session {
    fn watched(&self, batch: Option<BatchId>) -> BoxFuture<'_, Box<dyn Hint>> {
        Box::pin(async move {
            let news = Arc::new(Notify::new());
            let number = self
                .ask(Op::Other, 2, "watch outcomes", |world, _| {
                    let number = world.number();
                    let watcher = Watcher { node: self.node, batch, hints: VecDeque::new(), news: news.clone() };
                    world.watchers.insert(number, watcher);
                    Ok(number)
                })
                .await?;
            let session = self.me.upgrade();
            let hint: Box<dyn Hint> = Box::new(Watch { session, number, news });
            Ok(hint)
        })
    }
}

struct Watch {
    session: Option<Arc<Session>>,
    number: u64,
    news: Arc<Notify>,
}

impl Hint for Watch {
    fn changed(&mut self) -> BoxFuture<'_, Option<BatchId>> {
        Box::pin(async {
            loop {
                let news = self.news.notified();
                let Some(session) = &self.session else { return std::future::pending().await };
                let now = tokio::time::Instant::now();
                let hint = {
                    let mut world = session.world.lock();
                    let cut = world.is_cut(session.node, now);
                    world.watchers.get_mut(&self.number).filter(|_| !cut).and_then(|watcher| watcher.hints.pop_front())
                };
                if let Some(hint) = hint {
                    session.live().await;
                    return Ok(hint);
                }
                news.await;
            }
        })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(session) = &self.session {
            session.world.lock().watchers.remove(&self.number);
        }
    }
}
