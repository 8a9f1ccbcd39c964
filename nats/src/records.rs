//! Keyed records: the messages of a key-value bucket, each with a time to live of its own.

use std::time::Duration;

use async_nats::{HeaderMap, Message, header};
use bytes::Bytes;
use futures::StreamExt as _;
use serde_json::{Value, json};
use wf_broker::{BoxFuture, BrokerError, Entry, Key, KeyedRecords, Result, Revision};

use crate::api::StoredMessage;
use crate::broker::NatsBroker;
use crate::exchange::Unanswered;

/// How often a watch hears that it is still watched.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// How long the mark of a removal is kept, so that watchers hear of it.
const MARK_TTL: &str = "60s";

/// What a removal is marked with.
const OPERATION: &str = "KV-Operation";

const WRITE: &str = "write the record";
const READ: &str = "read the record";
const WATCH: &str = "watch the record";

impl NatsBroker {
    async fn write(&self, key: &Key, expected: u64, bytes: Bytes, headers: HeaderMap) -> Result<Revision> {
        self.check_size(bytes.len())?;
        let subject = self.layout.record_subject(key.as_str());
        let written = self.asker().store_at(&self.layout.state_stream, &subject, expected, headers, bytes).await;
        written.map(Revision).map_err(|error| error.into_broker(WRITE))
    }

    async fn create_record(&self, key: Key, bytes: Bytes, ttl: Option<Duration>) -> Result<Revision> {
        match self.write(&key, 0, bytes.clone(), with_ttl(ttl)).await {
            Err(BrokerError::Fenced) => {}
            done => return done,
        }
        // What stands there may be only the mark that a record is gone; that can be written over.
        match self.last(&key).await? {
            Some(last) if is_mark(&last.headers) => self.write(&key, last.sequence, bytes, with_ttl(ttl)).await,
            Some(_) => Err(BrokerError::Fenced),
            // The mark's own time is over meanwhile.
            None => self.write(&key, 0, bytes, with_ttl(ttl)).await,
        }
    }

    /// Changes the record at `revision`. Sequences begin at 1, and 0 would mean "if there is none".
    async fn change(&self, key: &Key, revision: Revision, bytes: Bytes, headers: HeaderMap) -> Result<Revision> {
        if revision.0 == 0 {
            return Err(BrokerError::Fenced);
        }
        self.write(key, revision.0, bytes, headers).await
    }

    async fn remove(&self, key: Key, revision: Revision) -> Result<()> {
        let mut headers = HeaderMap::new();
        headers.insert(OPERATION, "DEL");
        headers.insert(header::NATS_MESSAGE_TTL, MARK_TTL);
        self.change(&key, revision, Bytes::new(), headers).await.map(|_| ())
    }

    async fn last(&self, key: &Key) -> Result<Option<StoredMessage>> {
        let subject = self.layout.record_subject(key.as_str());
        self.asker().last(&self.layout.state_stream, &subject).await.map_err(|error| error.into_broker(READ))
    }

    async fn get_record(&self, key: Key) -> Result<Option<Entry>> {
        let last = self.last(&key).await?.filter(|last| !is_mark(&last.headers));
        Ok(last.map(|last| Entry { bytes: last.payload, revision: Revision(last.sequence) }))
    }

    /// Watches by a consumer that lives as long as the watch.
    async fn watch_record(&self, key: Key, seen: Option<Revision>) -> Result<Option<Entry>> {
        let connection = &self.consuming()[0];
        let mut link = connection.watch();
        let generation = link.borrow_and_update().generation;
        let inbox = connection.client.new_inbox();
        let closed = |_| Unanswered::Closed.into_broker(WATCH);
        let mut changes = connection.client.subscribe(inbox.clone()).await.map_err(closed)?;
        let stream = &self.layout.state_stream;
        let watch = json!({ "stream_name": stream, "config": {
            "deliver_subject": inbox,
            "deliver_policy": "last_per_subject",
            "filter_subject": self.layout.record_subject(key.as_str()),
            "ack_policy": "none",
            "idle_heartbeat": u64::try_from(HEARTBEAT.as_nanos()).unwrap_or(i64::MAX as u64),
            "mem_storage": true,
            "num_replicas": 1,
        }});
        let made = connection.api::<Value>(&format!("CONSUMER.CREATE.{stream}"), &watch).await;
        let made = made.map_err(|error| error.into_broker(WATCH))?;
        let nothing_there = made["num_pending"] == 0 && made["delivered"]["consumer_seq"] == 0;
        if nothing_there && seen.is_some() {
            return Ok(None);
        }
        let broke = || BrokerError::retryable(WATCH, "the connection was lost meanwhile");
        loop {
            tokio::select! {
                change = tokio::time::timeout(3 * HEARTBEAT, changes.next()) => {
                    let change = change.map_err(|_| BrokerError::retryable(WATCH, "the server watches no longer"))?;
                    let change = change.ok_or_else(|| Unanswered::Closed.into_broker(WATCH))?;
                    match state(&change) {
                        Some(Some(entry)) if seen == Some(entry.revision) => {}
                        // A mark of what was gone before.
                        Some(None) if seen.is_none() => {}
                        Some(entry) => return Ok(entry),
                        None => {}
                    }
                }
                _ = link.changed() => {
                    if link.borrow_and_update().generation != generation {
                        return Err(broke());
                    }
                }
            }
        }
    }
}

/// The record as `change` tells it; `None` if it tells nothing.
fn state(change: &Message) -> Option<Option<Entry>> {
    // $JS.ACK.<stream>.<consumer>.<delivered>.<sequence>..., or with two tokens more before the stream.
    let reply = change.reply.as_deref().filter(|_| change.status.is_none())?;
    let tokens: Vec<&str> = reply.split('.').collect();
    let sequence = tokens.get(if tokens.len() > 9 { 7 } else { 5 })?.parse().ok()?;
    let gone = change.headers.as_ref().is_some_and(is_mark);
    Some((!gone).then(|| Entry { bytes: change.payload.clone(), revision: Revision(sequence) }))
}

/// Whether the message only marks that a record is gone.
fn is_mark(headers: &HeaderMap) -> bool {
    headers.get(OPERATION).is_some() || headers.get(header::NATS_MARKER_REASON).is_some()
}

/// Headers with a time to live of whole seconds, rounded up.
fn with_ttl(ttl: Option<Duration>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Some(ttl) = ttl {
        let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
        // The server counts nanoseconds in 64 bits: no more than a hundred years.
        headers.insert(header::NATS_MESSAGE_TTL, format!("{}s", seconds.clamp(1, 3_153_600_000)));
    }
    headers
}

impl KeyedRecords for NatsBroker {
    fn create(&self, key: Key, bytes: Bytes, ttl: Option<Duration>) -> BoxFuture<'_, Revision> {
        Box::pin(self.create_record(key, bytes, ttl))
    }

    fn update(&self, key: Key, revision: Revision, bytes: Bytes, ttl: Option<Duration>) -> BoxFuture<'_, Revision> {
        Box::pin(async move { self.change(&key, revision, bytes, with_ttl(ttl)).await })
    }

    fn delete(&self, key: Key, revision: Revision) -> BoxFuture<'_, ()> {
        Box::pin(self.remove(key, revision))
    }

    fn get(&self, key: Key) -> BoxFuture<'_, Option<Entry>> {
        Box::pin(self.get_record(key))
    }

    fn watch_key(&self, key: Key, seen: Option<Revision>) -> BoxFuture<'_, Option<Entry>> {
        Box::pin(self.watch_record(key, seen))
    }
}
