//! The logs of runs, their copies, and who wants to hear of them.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Notify;
use wf_broker::{BoxFuture, BrokerError, Hint, LogEnd, LoggedRecord, LoggedRun, OutcomeLog, RunLog, Version};
use wf_schema::{BatchId, Millis};

use super::super::breaks::Break;
use super::super::history::Op;
use super::super::world::{Watcher, hash};
use super::Session;

impl OutcomeLog for Session {
    fn append(&self, log: RunLog, expected: Version, bytes: Bytes) -> BoxFuture<'_, Version> {
        Box::pin(async move {
            self.ask(Op::Append, hash(&(log.batch, log.run, expected)), "append a record", |world, now| {
                let appended = world.server.append(&log, expected, bytes.clone(), now);
                let message = world.truth.message_of(&log);
                if let (Err(BrokerError::Fenced), Some(uid)) = (&appended, message) {
                    world.hit("fenced");
                    world.truth.fenced(uid, self.node);
                }
                let version = appended?;
                if let Some(uid) = message {
                    world.truth.appended(uid, &bytes);
                    world.truth.looked(uid, self.node, self.life, now);
                }
                world.say(|| format!("{} {} has a record {}", log.batch, log.run, version.0));
                if world.breaks.has(Break::A1) {
                    let most = world.server.bounds.copies;
                    world.server.evict_logs(most);
                }
                Ok(version)
            })
            .await
        })
    }

    fn read_run(&self, log: RunLog) -> BoxFuture<'_, LoggedRun> {
        Box::pin(async move {
            self.ask(Op::ReadRun, hash(&(log.batch, log.run)), "read the log of a run", |world, now| {
                let shown = world.shown(now);
                if let Some(uid) = world.truth.message_of(&log) {
                    world.truth.looked(uid, self.node, self.life, shown);
                }
                Ok(world.server.read_run(&log, shown))
            })
            .await
        })
    }

    fn publish_outcome(&self, log: RunLog, step: u32, bytes: Bytes) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.ask(Op::Copy, hash(&(log.batch, log.run, step)), "publish outcomes", |world, now| {
                if world.server.copy(&log, step, bytes, now)? {
                    for watcher in world.watchers.values_mut().filter(|watcher| watcher.batch.is_none_or(|of| of == log.batch)) {
                        watcher.hints.push_back(Some(log.batch));
                        watcher.news.notify_one();
                    }
                }
                Ok(())
            })
            .await
        })
    }

    fn end(&self, end: LogEnd) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.ask(Op::End, hash(&(end.log.batch, end.log.run)), "end a log", |world, now| {
                world.server.end(&end, now);
                Ok(())
            })
            .await
        })
    }

    fn read(&self, batch: BatchId) -> BoxFuture<'_, Vec<LoggedRecord>> {
        Box::pin(async move {
            self.ask(Op::Read, hash(&batch), "read outcomes", |world, now| {
                let shown = world.shown(now);
                Ok(world.server.read(batch, shown))
            })
            .await
        })
    }

    fn kept_since(&self) -> BoxFuture<'_, Millis> {
        Box::pin(self.ask(Op::Other, 5, "tell what is kept", |world, _| {
            let since = world.server.kept_since;
            Ok(if world.breaks.has(Break::A6) { 0 } else { since })
        }))
    }

    fn watch(&self, batch: BatchId) -> BoxFuture<'_, Box<dyn Hint>> {
        self.watched(Some(batch))
    }

    fn watch_all(&self) -> BoxFuture<'_, Box<dyn Hint>> {
        self.watched(None)
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
