//! What became of each run: its log in one stream, and the copies for readers in another.
//!
//! A log is a subject, appended by compare-and-set on its last message. The stream of the logs has no limits; a log
//! ends when the message of its run is gone, in a single message that takes the place of all before it and removes
//! itself after a while. (A purge would set the log back to nothing, and a holder that was stopped all the while could
//! append again.)

use std::collections::HashSet;
use std::time::Duration;

use async_nats::{HeaderMap, HeaderValue, Subscriber, header};
use bytes::Bytes;
use futures::StreamExt as _;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::time::DelayQueue;
use wf_broker::{BoxFuture, BrokerError, Hint, LogEnd, LoggedRecord, LoggedRun, OutcomeLog, Result, RunLog, Version};
use wf_schema::{BatchId, Millis};

use crate::api::{StoredMessage, code};
use crate::broker::NatsBroker;
use crate::connection::part;
use crate::consume::millis;
use crate::exchange::{Part, Unanswered};
use crate::layout::Layout;
use crate::link::LinkState;
use crate::publish::with_id;

/// Records of one request; the server gives no more.
const PAGE: usize = 1_000;

/// Bytes of one request: what is held in memory at a time, and what the server writes at once.
const PAGE_BYTES: usize = 8 << 20;

/// The server hands a record to those who listen before it has stored it, and a read in between does not see it. So
/// each hint is given again after these times.
const AGAIN: [Duration; 3] = [Duration::from_millis(20), Duration::from_millis(200), Duration::from_secs(2)];

/// Hints that may wait to be given again; whoever follows so many batches also looks by itself.
const MAX_AGAIN: usize = 65_536;

/// On each message of a log: the id of the message that its run is of.
pub(crate) const MESSAGE: &str = "Wf-Message";

/// On the end of a log.
pub(crate) const END: &str = "Wf-End";

const APPEND: &str = "append to the log of a run";
const READ_RUN: &str = "read the log of a run";
const PUBLISH: &str = "publish an outcome";
const END_LOG: &str = "end the log of a run";
const READ: &str = "read the outcomes";
const WATCH: &str = "watch the outcomes";

impl NatsBroker {
    async fn append_record(&self, log: RunLog, expected: Version, bytes: Bytes) -> Result<Version> {
        self.check_size(bytes.len())?;
        let _room = self.room(bytes.len(), 1).await;
        let subject = self.layout.run_subject(log.batch, log.run);
        let headers = of_message(&log.message);
        let appended = self.publisher().store_at(&self.layout.runs, &subject, expected.0, headers, bytes).await;
        appended.map(Version).map_err(|error| error.into_broker(APPEND))
    }

    async fn read_log(&self, log: RunLog) -> Result<LoggedRun> {
        let subject = self.layout.run_subject(log.batch, log.run);
        let mut read = LoggedRun::default();
        self.each(&self.layout.runs, &subject, READ_RUN, |message| {
            read.version = Version(message.sequence);
            if !is_of_message(&message.headers, &log.message) {
                return;
            }
            if message.headers.get(END).is_some() {
                (read.ended, read.records) = (true, Vec::new());
            } else {
                read.records.push(LoggedRecord { run: log.run, version: read.version, bytes: message.payload });
            }
        })
        .await?;
        Ok(read)
    }

    async fn publish_copy(&self, log: RunLog, step: u32, bytes: Bytes) -> Result<()> {
        self.check_size(bytes.len())?;
        // The message too: after a rollback another may have the run's name, and its records are others.
        let message = BatchId::derived(0, &[log.message.as_bytes()]);
        let headers = with_id(&format!("{}.{}.{step}.{message}", log.batch, log.run).into())?;
        let _room = self.room(bytes.len(), 1).await;
        let stored = self.publisher().store(&self.layout.outcome_subject(log.batch, log.run), headers, bytes).await;
        stored.map(|_| ()).map_err(|error| error.into_broker(PUBLISH))
    }

    async fn end_log(&self, end: LogEnd) -> Result<()> {
        let end = end_of(&self.layout, &end, self.ends.window);
        let headers = end.headers.unwrap_or_default();
        match self.publisher().store(&end.subject, headers, end.payload).await {
            // Somebody else has ended it, or goes on with it.
            Err(error) if error.code() == Some(code::WRONG_LAST) => Ok(()),
            stored => stored.map(|_| ()).map_err(|error| error.into_broker(END_LOG)),
        }
    }

    async fn read_outcomes(&self, batch: BatchId) -> Result<Vec<LoggedRecord>> {
        let filter = self.layout.outcome_filter(Some(batch));
        let (mut records, mut seen) = (Vec::new(), HashSet::new());
        self.each(&self.layout.results, &filter, READ, |message| {
            let Some((_, run)) = self.layout.outcome_of(&message.subject) else { return };
            // Whoever takes a run up long after its last record publishes that once more.
            let id = message.headers.get(header::NATS_MESSAGE_ID).map(|id| id.as_str().to_owned());
            if id.is_none_or(|id| seen.insert(id)) {
                records.push(LoggedRecord { run, version: Version(message.sequence), bytes: message.payload });
            }
        })
        .await?;
        Ok(records)
    }

    /// Passes over all messages of `stream` at subjects that match `filter`, in order.
    async fn each(&self, stream: &str, filter: &str, what: &'static str, mut each: impl FnMut(StoredMessage)) -> Result<()> {
        let mut from = 1;
        loop {
            let page = self.asker().page(stream, filter, from, PAGE, PAGE_BYTES).await;
            let (messages, more) = page.map_err(|error| error.into_broker(what))?;
            let Some(last) = messages.last() else { return Ok(()) };
            from = last.sequence + 1;
            messages.into_iter().for_each(&mut each);
            if !more {
                return Ok(());
            }
        }
    }

    async fn watch_log(&self, batch: Option<BatchId>) -> Result<Box<dyn Hint>> {
        let connection = &self.consuming()[0];
        let link = connection.watch();
        let closed = |_| Unanswered::Closed.into_broker(WATCH);
        let changes = connection.client.subscribe(self.layout.outcome_filter(batch)).await.map_err(closed)?;
        // Only then does the server know of the subscription.
        self.round_trip(connection).await?;
        let generation = link.borrow().generation;
        Ok(Box::new(LogHints { layout: self.layout.clone(), changes, again: DelayQueue::new(), link, generation }))
    }
}

impl OutcomeLog for NatsBroker {
    fn append(&self, log: RunLog, expected: Version, bytes: Bytes) -> BoxFuture<'_, Version> {
        Box::pin(self.append_record(log, expected, bytes))
    }

    fn read_run(&self, log: RunLog) -> BoxFuture<'_, LoggedRun> {
        Box::pin(self.read_log(log))
    }

    fn publish_outcome(&self, log: RunLog, step: u32, bytes: Bytes) -> BoxFuture<'_, ()> {
        Box::pin(self.publish_copy(log, step, bytes))
    }

    fn end(&self, end: LogEnd) -> BoxFuture<'_, ()> {
        Box::pin(self.end_log(end))
    }

    fn read(&self, batch: BatchId) -> BoxFuture<'_, Vec<LoggedRecord>> {
        Box::pin(self.read_outcomes(batch))
    }

    fn kept_since(&self) -> BoxFuture<'_, Millis> {
        Box::pin(async {
            let subject = format!("STREAM.INFO.{}", self.layout.results);
            let info: Value = self.asker().api(&subject, &json!({})).await.map_err(|error| error.into_broker(READ))?;
            let (state, now) = (&info["state"], info["ts"].as_str().and_then(millis).unwrap_or(Millis::MAX));
            Ok(match state["messages"].as_u64() {
                Some(0) if state["last_seq"].as_u64() == Some(0) => 0,
                // All that there were are gone.
                Some(0) | None => now,
                // None was ever dropped.
                Some(_) if state["first_seq"].as_u64() == Some(1) => 0,
                Some(_) => state["first_ts"].as_str().and_then(millis).unwrap_or(now),
            })
        })
    }

    fn watch(&self, batch: BatchId) -> BoxFuture<'_, Box<dyn Hint>> {
        Box::pin(self.watch_log(Some(batch)))
    }

    fn watch_all(&self) -> BoxFuture<'_, Box<dyn Hint>> {
        Box::pin(self.watch_log(None))
    }
}

/// The message that ends a log, `window` being how long somebody may still believe that the run is theirs.
pub(crate) fn end_of(layout: &Layout, end: &LogEnd, window: Duration) -> Part {
    let keep = end.keep.unwrap_or_default().max(window);
    let seconds = keep.as_secs() + u64::from(keep.subsec_nanos() > 0);
    let mut headers = of_message(&end.log.message);
    headers.insert(END, "1");
    headers.insert(header::NATS_ROLLUP, "sub");
    headers.insert(header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, HeaderValue::from(end.version.0));
    headers.insert(header::NATS_MESSAGE_TTL, format!("{}s", seconds.max(1)));
    part(&layout.run_subject(end.log.batch, end.log.run), Some(headers), Bytes::new())
}

fn of_message(id: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    // An id that cannot be in a header did not come in one.
    if let Ok(value) = id.parse::<HeaderValue>()
        && !id.is_empty()
    {
        headers.insert(MESSAGE, value);
    }
    headers
}

/// Whether a message of a log is of the run of the message with `id`.
fn is_of_message(headers: &HeaderMap, id: &str) -> bool {
    headers.get(MESSAGE).map_or("", |told| told.as_str()) == id
}

/// Hears what is published for readers; what is published while the link is down is not heard.
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
                            if let Some((batch, _)) = self.layout.outcome_of(&change.subject) {
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
