//! Publishing: each message with its id, answered one by one, within a window of bytes and messages.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{HeaderMap, HeaderValue, header};
use futures::future::try_join_all;
use serde_json::{Value, json};
use wf_broker::{BoxFuture, BrokerError, Message, Pass, Publish, Result, Stored};
use wf_schema::Lane;

use crate::api::{ApiError, acknowledged, code};
use crate::broker::NatsBroker;
use crate::connection::part;
use crate::exchange::Part;

/// Bytes of a message that are not its own: headers with their names, ids of up to 200 characters, time zones.
pub(crate) const HEADERS: usize = 1_024;

/// How long to wait when a lane is full.
const RETRY_FULL: Duration = Duration::from_secs(1);

/// How often an atomic batch is tried when the server has too many open ones.
const TRIES_TOGETHER: u32 = 4;

const STORE: &str = "store the message";
const STORE_ALL: &str = "store the messages together";

impl NatsBroker {
    /// Waits for room for messages of `bytes` in all. What is larger than the window takes all of it.
    pub(crate) async fn room(&self, bytes: usize, messages: usize) -> Pass {
        self.window.enter(messages, bytes).await
    }

    /// Refuses what is larger than the broker takes.
    pub(crate) fn check_size(&self, size: usize) -> Result<()> {
        let limit = self.largest();
        if size > limit { Err(BrokerError::TooLarge { size, limit }) } else { Ok(()) }
    }

    pub(crate) fn largest(&self) -> usize {
        self.asker().client.max_payload().saturating_sub(HEADERS)
    }

    async fn publish_one(&self, message: Message) -> Result<Stored> {
        self.check_size(message.bytes.len())?;
        let headers = with_id(&message.id)?;
        let _room = self.room(message.bytes.len(), 1).await;
        let stored = self.publisher().store(&self.layout.job_subject(&message.lane), headers, message.bytes).await;
        stored.map(|stored| Stored { duplicate: stored.duplicate }).map_err(|error| full(error, &message.lane, STORE))
    }

    async fn publish_together(&self, messages: Vec<Message>) -> Result<()> {
        if messages.len() > self.max_together() {
            let many = format!("{} messages are more than {} together", messages.len(), self.max_together());
            return Err(BrokerError::fatal(STORE_ALL, many));
        }
        messages.iter().try_for_each(|message| self.check_size(message.bytes.len()))?;
        let mut parts: Vec<Part> = Vec::with_capacity(messages.len());
        for message in &messages {
            parts.push(part(&self.layout.job_subject(&message.lane), Some(with_id(&message.id)?), message.bytes.clone()));
        }
        let Some(last) = parts.pop() else { return Ok(()) };
        if parts.is_empty() {
            return try_join_all(messages.into_iter().map(|message| self.publish_one(message))).await.map(|_| ());
        }
        let stored = {
            let bytes = messages.iter().map(|message| message.bytes.len()).sum();
            let _room = self.room(bytes, messages.len()).await;
            self.store_together(&parts, &last).await
        };
        match stored {
            Ok(()) => Ok(()),
            // Some or all were stored before. Which ones is not said, so each is published again: the server knows
            // its ids, and takes only those that are missing.
            Err(error) if error.code() == Some(code::BATCH_DUPLICATE) => {
                try_join_all(messages.into_iter().map(|message| self.publish_one(message))).await.map(|_| ())
            }
            Err(error) if error.code() == Some(code::NO_ROOM) => {
                let lane = self.which_is_full(&messages).await.unwrap_or_default();
                Err(full(error, &lane, STORE_ALL))
            }
            Err(error) => Err(error.into_broker(STORE_ALL)),
        }
    }

    async fn store_together(&self, ahead: &[Part], last: &Part) -> Result<(), ApiError> {
        let connection = self.publisher();
        let mut tries = 0;
        loop {
            self.counters.published.add(ahead.len() as u64 + 1);
            let load = connection.load(ahead.iter().chain([last]).map(|part| part.payload.len()).sum());
            let answer = connection.exchange.ask_together(ahead.to_vec(), last.clone()).await?;
            tries += 1;
            match acknowledged(&answer) {
                // Parts of it were lost with a connection, or too many batches are open.
                Err(error) if error.code() == Some(code::BATCH_INCOMPLETE) && tries < TRIES_TOGETHER => {
                    let wait = Duration::from_millis(250) * 2_u32.pow(tries);
                    tokio::time::sleep(wait.mul_f64(fastrand::f64().mul_add(0.5, 0.75))).await;
                }
                answer => {
                    answer?;
                    load.stored();
                    return Ok(());
                }
            }
        }
    }

    /// Which lane of `messages` is full: the server says only that one is. `None` if it cannot be told.
    async fn which_is_full(&self, messages: &[Message]) -> Option<Lane> {
        let mut wanted: Vec<(&Lane, u64)> = Vec::new();
        for message in messages {
            match wanted.iter_mut().find(|(lane, _)| *lane == &message.lane) {
                Some((_, count)) => *count += 1,
                None => wanted.push((&message.lane, 1)),
            }
        }
        let room = u64::from(self.settings.lane_messages);
        for (lane, count) in &wanted {
            let subject = self.layout.job_subject(lane);
            let info: Result<Value, _> =
                self.asker().api(&format!("STREAM.INFO.{}", self.layout.jobs), &json!({ "subjects_filter": subject })).await;
            // Who may publish need not have the right to ask.
            let stands = info.ok()?["state"]["subjects"][&subject].as_u64().unwrap_or(0);
            if stands + count > room {
                return Some((*lane).clone());
            }
        }
        wanted.first().map(|(lane, _)| (*lane).clone())
    }
}

impl Publish for NatsBroker {
    fn publish(&self, message: Message) -> BoxFuture<'_, Stored> {
        Box::pin(self.publish_one(message))
    }

    fn publish_all(&self, messages: Vec<Message>) -> BoxFuture<'_, ()> {
        Box::pin(self.publish_together(messages))
    }

    fn max_message(&self) -> usize {
        self.largest()
    }

    fn dedup_window(&self) -> Duration {
        self.settings.dedup_window
    }
}

/// The headers of a message called `id`.
pub(crate) fn with_id(id: &Arc<str>) -> Result<HeaderMap> {
    let fits = (1..=200).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic());
    let value = id.parse::<HeaderValue>().ok().filter(|_| fits);
    let value = value.ok_or_else(|| BrokerError::fatal(STORE, "its id is not 1 to 200 visible ASCII characters"))?;
    let mut headers = HeaderMap::new();
    headers.insert(header::NATS_MESSAGE_ID, value);
    Ok(headers)
}

/// The error that a refusal to store in `lane` is.
pub(crate) fn full(error: ApiError, lane: &Lane, what: &'static str) -> BrokerError {
    match &error {
        // The same code stands for any failure of the store; only those of a limit say "maximum".
        ApiError::Refused { code: code::NO_ROOM, said, .. } if said.contains("maximum") => {
            let retry_after = RETRY_FULL.mul_f64(fastrand::f64() + 1.0);
            BrokerError::Full { lane: lane.clone(), retry_after }
        }
        _ => error.into_broker(what),
    }
}
