//! The roles of the contract, passed on to the broker that was found.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use wf_broker::{
    BoxFuture, Broker, Buried, Consume, Control, Cron, DeadLetters, DeadPage, DeadStats, DeliverySource, Entry, Hint, Key,
    KeyedRecords, LaneStats, LogEnd, LoggedRecord, LoggedRun, Message, OutcomeLog, Publish, Revision, RunLog, Schedule,
    Scheduled, Stored, Trace, Traced, Traces, Unserved, Version,
};
use wf_schema::{BatchId, Lane, Millis, Queue};

use super::Late;

impl Publish for Late {
    fn publish(&self, message: Message) -> BoxFuture<'_, Stored> {
        self.ask("store the message", |broker| broker.publish(message))
    }

    fn publish_all(&self, messages: Vec<Message>) -> BoxFuture<'_, ()> {
        self.ask("store the messages together", |broker| broker.publish_all(messages))
    }

    fn max_message(&self) -> usize {
        self.search.found.get().map_or(self.search.facts.max_message, |broker| broker.max_message())
    }

    fn dedup_window(&self) -> Duration {
        self.search.found.get().map_or(self.search.facts.dedup_window, |broker| broker.dedup_window())
    }
}

impl Traces for Late {
    fn trace(&self, wanted: Vec<Trace>, within: Duration) -> BoxFuture<'_, Vec<Traced>> {
        self.ask("look for a message", move |broker| broker.trace(wanted, within))
    }
}

impl Schedule for Late {
    fn publish_at(&self, scheduled: Scheduled) -> BoxFuture<'_, ()> {
        self.ask("store the message for later", |broker| broker.publish_at(scheduled))
    }

    fn cancel_at(&self, key: Key) -> BoxFuture<'_, ()> {
        self.ask("cancel the message", |broker| broker.cancel_at(key))
    }

    fn put_cron(&self, cron: Cron) -> BoxFuture<'_, ()> {
        self.ask("store the cron", |broker| broker.put_cron(cron))
    }

    fn delete_cron(&self, key: Key) -> BoxFuture<'_, ()> {
        self.ask("end the cron", |broker| broker.delete_cron(key))
    }
}

impl Consume for Late {
    fn lane(&self, lane: Lane) -> BoxFuture<'_, Box<dyn DeliverySource>> {
        self.ask("open the lane", |broker| broker.lane(lane))
    }

    fn lease(&self) -> Duration {
        self.search.found.get().map_or(self.search.facts.lease, |broker| broker.lease())
    }

    fn settled(&self) -> BoxFuture<'_, ()> {
        match self.search.found.get() {
            Some(broker) => broker.settled(),
            // Nothing was delivered, so nothing has to be confirmed.
            None => Box::pin(std::future::ready(Ok(()))),
        }
    }
}

impl OutcomeLog for Late {
    fn append(&self, log: RunLog, expected: Version, bytes: Bytes) -> BoxFuture<'_, Version> {
        self.ask("append the record", move |broker| broker.append(log, expected, bytes))
    }

    fn read_run(&self, log: RunLog) -> BoxFuture<'_, LoggedRun> {
        self.ask("read the records", move |broker| broker.read_run(log))
    }

    fn publish_outcome(&self, log: RunLog, step: u32, bytes: Bytes) -> BoxFuture<'_, ()> {
        self.ask("publish the outcome", move |broker| broker.publish_outcome(log, step, bytes))
    }

    fn end(&self, end: LogEnd) -> BoxFuture<'_, ()> {
        self.ask("end the log", move |broker| broker.end(end))
    }

    fn read(&self, batch: BatchId) -> BoxFuture<'_, Vec<LoggedRecord>> {
        self.ask("read the records", move |broker| broker.read(batch))
    }

    fn kept_since(&self) -> BoxFuture<'_, Millis> {
        self.ask("ask for the oldest outcome", |broker| broker.kept_since())
    }

    fn watch(&self, batch: BatchId) -> BoxFuture<'_, Box<dyn Hint>> {
        self.ask("watch the records", move |broker| broker.watch(batch))
    }

    fn watch_all(&self) -> BoxFuture<'_, Box<dyn Hint>> {
        self.ask("watch the records", |broker| broker.watch_all())
    }
}

impl KeyedRecords for Late {
    fn create(&self, key: Key, bytes: Bytes, ttl: Option<Duration>) -> BoxFuture<'_, Revision> {
        self.ask("create the record", move |broker| broker.create(key, bytes, ttl))
    }

    fn update(&self, key: Key, revision: Revision, bytes: Bytes, ttl: Option<Duration>) -> BoxFuture<'_, Revision> {
        self.ask("update the record", move |broker| broker.update(key, revision, bytes, ttl))
    }

    fn delete(&self, key: Key, revision: Revision) -> BoxFuture<'_, ()> {
        self.ask("delete the record", move |broker| broker.delete(key, revision))
    }

    fn get(&self, key: Key) -> BoxFuture<'_, Option<Entry>> {
        self.ask("read the record", |broker| broker.get(key))
    }

    fn watch_key(&self, key: Key, seen: Option<Revision>) -> BoxFuture<'_, Option<Entry>> {
        self.ask("watch the record", move |broker| broker.watch_key(key, seen))
    }
}

impl DeadLetters for Late {
    fn bury(&self, queue: Queue, id: Arc<str>, bytes: Bytes) -> BoxFuture<'_, ()> {
        self.ask("keep the dead letter", move |broker| broker.bury(queue, id, bytes))
    }

    fn dead(&self, queue: Option<Queue>, from: u64, limit: usize) -> BoxFuture<'_, DeadPage> {
        self.ask("list dead letters", move |broker| broker.dead(queue, from, limit))
    }

    fn dead_at(&self, position: u64) -> BoxFuture<'_, Option<Buried>> {
        self.ask("read the dead letter", move |broker| broker.dead_at(position))
    }

    fn delete_dead(&self, position: u64) -> BoxFuture<'_, bool> {
        self.ask("delete the dead letter", move |broker| broker.delete_dead(position))
    }

    fn dead_stats(&self) -> BoxFuture<'_, DeadStats> {
        self.ask("count the dead letters", |broker| broker.dead_stats())
    }
}

impl Control for Late {
    fn stats(&self, lane: Lane) -> BoxFuture<'_, LaneStats> {
        self.ask("tell how full the lane is", |broker| broker.stats(lane))
    }

    fn unserved(&self) -> BoxFuture<'_, Vec<Unserved>> {
        self.ask("look for lanes that nobody serves", |broker| broker.unserved())
    }

    fn pause(&self, queue: Queue, until: Millis) -> BoxFuture<'_, ()> {
        self.ask("hold the queue", move |broker| broker.pause(queue, until))
    }

    fn resume(&self, queue: Queue) -> BoxFuture<'_, ()> {
        self.ask("let the queue go on", |broker| broker.resume(queue))
    }

    fn paused(&self, queue: Queue) -> BoxFuture<'_, Option<Millis>> {
        self.ask("tell whether the queue is held", |broker| broker.paused(queue))
    }
}

impl Broker for Late {
    fn ping(&self) -> BoxFuture<'_, Duration> {
        self.ask("answer a ping", |broker| broker.ping())
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.search.closed.cancel();
        match self.search.found.get() {
            Some(broker) => broker.close(),
            None => Box::pin(std::future::ready(Ok(()))),
        }
    }
}
