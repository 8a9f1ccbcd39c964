//! The log of what became of each run: a subject a run, appended by compare-and-set on its last message.

use std::time::Duration;

use async_nats::{HeaderMap, Subscriber};
use bytes::Bytes;
use futures::StreamExt as _;
use tokio::sync::watch;
use tokio_util::time::DelayQueue;
use wf_broker::{BoxFuture, BrokerError, Hint, LoggedRecord, OutcomeLog, Result, Version};
use wf_schema::{BatchId, RunId};

use crate::broker::NatsBroker;
use crate::exchange::Unanswered;
use crate::layout::Layout;
use crate::link::LinkState;

/// Records of one request; the server gives no more.
const PAGE: usize = 1_000;

/// Bytes of one request: what is held in memory at a time, and what the server writes at once.
const PAGE_BYTES: usize = 8 << 20;

/// The server hands a record to those who listen before it has stored it, and a read in between does not see it. So
/// each hint is given again after these times.
const AGAIN: [Duration; 3] = [Duration::from_millis(20), Duration::from_millis(200), Duration::from_secs(2)];

/// Hints that may wait to be given again; whoever follows so many batches also looks by itself.
const MAX_AGAIN: usize = 65_536;

const APPEND: &str = "append to the outcome log";
const READ: &str = "read the outcome log";
const WATCH: &str = "watch the outcome log";

impl NatsBroker {
    async fn append_record(&self, batch: BatchId, run: RunId, expected: Version, bytes: Bytes) -> Result<Version> {
        self.check_size(bytes.len())?;
        let _room = self.room(bytes.len(), 1).await;
        let subject = self.layout.log_subject(batch, run);
        let appended = self.publisher().store_at(&self.layout.results, &subject, expected.0, HeaderMap::new(), bytes).await;
        appended.map(Version).map_err(|error| error.into_broker(APPEND))
    }

    async fn read_records(&self, batch: BatchId) -> Result<Vec<LoggedRecord>> {
        let filter = self.layout.log_filter(Some(batch));
        let mut records = Vec::new();
        let mut from = 1;
        loop {
            let page = self.asker().page(&self.layout.results, &filter, from, PAGE, PAGE_BYTES).await;
            let (messages, more) = page.map_err(|error| error.into_broker(READ))?;
            let Some(last) = messages.last() else { return Ok(records) };
            from = last.sequence + 1;
            records.extend(messages.into_iter().filter_map(|message| {
                let (_, run) = self.layout.log_of(&message.subject)?;
                Some(LoggedRecord { run, version: Version(message.sequence), bytes: message.payload })
            }));
            if !more {
                return Ok(records);
            }
        }
    }

    async fn watch_log(&self, batch: Option<BatchId>) -> Result<Box<dyn Hint>> {
        let connection = &self.consuming()[0];
        let link = connection.watch();
        let closed = |_| Unanswered::Closed.into_broker(WATCH);
        let changes = connection.client.subscribe(self.layout.log_filter(batch)).await.map_err(closed)?;
        // Only then does the server know of the subscription.
        self.round_trip(connection).await?;
        let generation = link.borrow().generation;
        Ok(Box::new(LogHints { layout: self.layout.clone(), changes, again: DelayQueue::new(), link, generation }))
    }
}

impl OutcomeLog for NatsBroker {
    fn append(&self, batch: BatchId, run: RunId, expected: Version, bytes: Bytes) -> BoxFuture<'_, Version> {
        Box::pin(self.append_record(batch, run, expected, bytes))
    }

    fn read(&self, batch: BatchId) -> BoxFuture<'_, Vec<LoggedRecord>> {
        Box::pin(self.read_records(batch))
    }

    fn watch(&self, batch: BatchId) -> BoxFuture<'_, Box<dyn Hint>> {
        Box::pin(self.watch_log(Some(batch)))
    }

    fn watch_all(&self) -> BoxFuture<'_, Box<dyn Hint>> {
        Box::pin(self.watch_log(None))
    }
}

/// Hears what is published to the log; what is published while the link is down is not heard.
struct LogHints {
    layout: Layout,
    changes: Subscriber,
    /// Hints to be given again.
    again: DelayQueue<BatchId>,
    link: watch::Receiver<LinkState>,
    generation: u64,
}

impl LogHints {
    /// Sees to it that whoever looked too early looks again.
    fn repeat(&mut self, batch: BatchId) {
        if self.again.len() < MAX_AGAIN {
            for after in AGAIN {
                self.again.insert(batch, after);
            }
        }
    }
}

impl Hint for LogHints {
    fn changed(&mut self) -> BoxFuture<'_, Option<BatchId>> {
        Box::pin(async {
            loop {
                let state = *self.link.borrow_and_update();
                if state.closed {
                    return Err(BrokerError::fatal(WATCH, Unanswered::Closed));
                }
                if state.up && state.generation != self.generation {
                    self.generation = state.generation;
                    return Ok(None);
                }
                tokio::select! {
                    change = self.changes.next() => match change {
                        Some(change) => {
                            if let Some((batch, _)) = self.layout.log_of(&change.subject) {
                                self.repeat(batch);
                                return Ok(Some(batch));
                            }
                        }
                        None => return Err(BrokerError::fatal(WATCH, Unanswered::Closed)),
                    },
                    Some(batch) = self.again.next(), if !self.again.is_empty() => return Ok(Some(batch.into_inner())),
                    _ = self.link.changed() => {}
                }
            }
        })
    }
}
