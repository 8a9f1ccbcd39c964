//! What it answers, role by role.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use tokio::sync::broadcast;
use wf_broker::{
    BoxFuture, Broker, BrokerError, Buried, Consume, Control, Cron, DeadLetters, DeadPage, DeliverySource, Entry, Hint, Key,
    KeyedRecords, LaneStats, LogEnd, LoggedRecord, LoggedRun, Message, OutcomeLog, Publish, Result, Revision, RunLog, Schedule,
    Scheduled, Stored, Trace, Traced, Traces, Version,
};
use wf_schema::{BatchId, Lane, Millis, Queue};

use super::{Fault, Op, Puppet};

fn failed(fault: Fault, lane: &Lane) -> BrokerError {
    match fault {
        Fault::Away | Fault::AnswerLost => BrokerError::retryable("answer", "it was told not to"),
        Fault::Full => BrokerError::Full { lane: lane.clone(), retry_after: Duration::from_secs(7) },
        Fault::NoRoom => BrokerError::NoRoom { what: "store more jobs", retry_after: Duration::from_secs(5) },
        Fault::Denied => BrokerError::denied("do this", "it was told not to"),
    }
}

impl Publish for Puppet {
    fn publish(&self, message: Message) -> BoxFuture<'_, Stored> {
        async move {
            let fault = self.fault(Op::Publish);
            self.pass().await;
            let full = self.full.lock().contains(&message.lane).then_some(Fault::Full);
            match fault.or(full) {
                Some(Fault::AnswerLost) => {
                    self.put(message);
                    Err(failed(Fault::AnswerLost, &Lane::default()))
                }
                Some(fault) => Err(failed(fault, &message.lane)),
                None => Ok(Stored { duplicate: self.put(message) }),
            }
        }
        .boxed()
    }

    fn publish_all(&self, messages: Vec<Message>) -> BoxFuture<'_, ()> {
        async move {
            let lane = messages[0].lane.clone();
            let fault = self.fault(Op::PublishAll);
            self.pass().await;
            match fault {
                Some(Fault::AnswerLost) | None => {
                    for message in messages {
                        self.put(message);
                    }
                }
                Some(_) => {}
            }
            fault.map_or(Ok(()), |fault| Err(failed(fault, &lane)))
        }
        .boxed()
    }

    fn max_message(&self) -> usize {
        self.max_message.load(SeqCst)
    }

    fn dedup_window(&self) -> Duration {
        Duration::from_millis(self.window_ms.load(SeqCst))
    }

    fn max_together(&self) -> usize {
        50
    }
}

impl Traces for Puppet {
    fn trace(&self, wanted: Vec<Trace>, _: Duration) -> BoxFuture<'_, Vec<Traced>> {
        async move {
            let unknown = match self.fault(Op::Trace) {
                Some(Fault::Denied) => true,
                Some(fault) => return Err(failed(fault, &Lane::default())),
                None => false,
            };
            let store = self.store.lock();
            let look = |trace: &Trace| {
                let called = |name: &str| trace.is_called(name);
                let there = store.messages.iter().any(|message| message.lane == trace.lane && called(&message.id))
                    || store.scheduled.keys().any(|key| called(key.as_str()));
                match (there, store.ended.iter().any(|name| called(name))) {
                    _ if unknown => Traced::Unknown,
                    (true, _) => Traced::Stored,
                    (false, true) => Traced::Ended,
                    (false, false) => Traced::Absent,
                }
            };
            Ok(wanted.iter().map(look).collect())
        }
        .boxed()
    }
}

impl Schedule for Puppet {
    fn publish_at(&self, scheduled: Scheduled) -> BoxFuture<'_, ()> {
        async move {
            match self.fault(Op::PublishAt) {
                Some(fault) => Err(failed(fault, &scheduled.lane)),
                None => {
                    self.store.lock().scheduled.insert(scheduled.key.clone(), scheduled);
                    Ok(())
                }
            }
        }
        .boxed()
    }

    fn cancel_at(&self, _: Key) -> BoxFuture<'_, ()> {
        unasked("cancel_at")
    }

    fn put_cron(&self, _: Cron) -> BoxFuture<'_, ()> {
        unasked("put_cron")
    }

    fn delete_cron(&self, _: Key) -> BoxFuture<'_, ()> {
        unasked("delete_cron")
    }
}

impl KeyedRecords for Puppet {
    fn create(&self, key: Key, bytes: Bytes, ttl: Option<Duration>) -> BoxFuture<'_, Revision> {
        async move {
            assert_eq!(ttl, Some(Duration::from_secs(24 * 3600)));
            let fault = self.fault(Op::Create);
            if let Some(fault) = fault.filter(|fault| *fault != Fault::AnswerLost) {
                return Err(failed(fault, &Lane::default()));
            }
            let mut store = self.store.lock();
            if store.records.contains_key(&key) {
                return Err(BrokerError::Fenced);
            }
            store.revision += 1;
            let revision = Revision(store.revision);
            store.records.insert(key, Entry { bytes, revision });
            fault.map_or(Ok(revision), |fault| Err(failed(fault, &Lane::default())))
        }
        .boxed()
    }

    fn update(&self, key: Key, revision: Revision, bytes: Bytes, _: Option<Duration>) -> BoxFuture<'_, Revision> {
        async move {
            if let Some(fault) = self.fault(Op::Update) {
                return Err(failed(fault, &Lane::default()));
            }
            let mut store = self.store.lock();
            if store.records.get(&key).map(|entry| entry.revision) != Some(revision) {
                return Err(BrokerError::Fenced);
            }
            store.revision += 1;
            let revision = Revision(store.revision);
            store.records.insert(key, Entry { bytes, revision });
            Ok(revision)
        }
        .boxed()
    }

    fn delete(&self, key: Key, revision: Revision) -> BoxFuture<'_, ()> {
        async move {
            let mut store = self.store.lock();
            if store.records.get(&key).map(|entry| entry.revision) != Some(revision) {
                return Err(BrokerError::Fenced);
            }
            store.records.remove(&key);
            Ok(())
        }
        .boxed()
    }

    fn get(&self, key: Key) -> BoxFuture<'_, Option<Entry>> {
        async move {
            match self.fault(Op::Get) {
                Some(fault) => Err(failed(fault, &Lane::default())),
                None => Ok(self.store.lock().records.get(&key).cloned()),
            }
        }
        .boxed()
    }

    fn watch_key(&self, _: Key, _: Option<Revision>) -> BoxFuture<'_, Option<Entry>> {
        unasked("watch_key")
    }
}

impl OutcomeLog for Puppet {
    fn append(&self, RunLog { batch, run, .. }: RunLog, expected: Version, bytes: Bytes) -> BoxFuture<'_, Version> {
        async move {
            let version = Version(expected.0 + 1);
            self.store.lock().log.entry(batch).or_default().push(LoggedRecord { run, version, bytes });
            let _ = self.changed.send(batch);
            Ok(version)
        }
        .boxed()
    }

    fn read_run(&self, _: RunLog) -> BoxFuture<'_, LoggedRun> {
        unasked("read_run")
    }

    fn publish_outcome(&self, _: RunLog, _: u32, _: Bytes) -> BoxFuture<'_, ()> {
        unasked("publish_outcome")
    }

    fn end(&self, _: LogEnd) -> BoxFuture<'_, ()> {
        unasked("end")
    }

    fn read(&self, batch: BatchId) -> BoxFuture<'_, Vec<LoggedRecord>> {
        async move {
            if self.away.load(SeqCst) {
                return Err(failed(Fault::Away, &Lane::default()));
            }
            Ok(self.store.lock().log.get(&batch).cloned().unwrap_or_default())
        }
        .boxed()
    }

    fn kept_since(&self) -> BoxFuture<'_, Millis> {
        unasked("kept_since")
    }

    fn watch(&self, _: BatchId) -> BoxFuture<'_, Box<dyn Hint>> {
        let hints = Hints(self.changed.subscribe());
        async move { Ok(Box::new(hints) as Box<dyn Hint>) }.boxed()
    }

    fn watch_all(&self) -> BoxFuture<'_, Box<dyn Hint>> {
        unasked("watch_all")
    }
}

struct Hints(broadcast::Receiver<BatchId>);

impl Hint for Hints {
    fn changed(&mut self) -> BoxFuture<'_, Option<BatchId>> {
        async move { Ok(self.0.recv().await.ok()) }.boxed()
    }
}

impl Broker for Puppet {
    fn ping(&self) -> BoxFuture<'_, Duration> {
        async move { self.fault(Op::Ping).map_or(Ok(Duration::from_millis(1)), |fault| Err(failed(fault, &Lane::default()))) }
            .boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        async { Ok(()) }.boxed()
    }
}

impl Consume for Puppet {
    fn lane(&self, _: Lane) -> BoxFuture<'_, Box<dyn DeliverySource>> {
        unasked("lane")
    }

    fn lease(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn settled(&self) -> BoxFuture<'_, ()> {
        unasked("settled")
    }
}

impl DeadLetters for Puppet {
    fn bury(&self, _: Queue, _: Arc<str>, _: Bytes) -> BoxFuture<'_, ()> {
        unasked("bury")
    }

    fn dead(&self, _: Option<Queue>, _: u64, _: usize) -> BoxFuture<'_, DeadPage> {
        unasked("dead")
    }

    fn dead_at(&self, _: u64) -> BoxFuture<'_, Option<Buried>> {
        unasked("dead_at")
    }

    fn delete_dead(&self, _: u64) -> BoxFuture<'_, bool> {
        unasked("delete_dead")
    }
}

impl Control for Puppet {
    fn stats(&self, _: Lane) -> BoxFuture<'_, LaneStats> {
        unasked("stats")
    }

    fn pause(&self, _: Queue, _: Millis) -> BoxFuture<'_, ()> {
        unasked("pause")
    }

    fn resume(&self, _: Queue) -> BoxFuture<'_, ()> {
        unasked("resume")
    }

    fn paused(&self, _: Queue) -> BoxFuture<'_, Option<Millis>> {
        unasked("paused")
    }
}

/// Ingest has no business with these.
fn unasked<T: Send + 'static>(what: &'static str) -> BoxFuture<'static, T> {
    async move { Result::<T>::Err(BrokerError::fatal("be asked this by ingest", what)) }.boxed()
}
