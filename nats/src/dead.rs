//! Dead letters: a stream that is read page by page, whose oldest make room when it is full.

mod watch;

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};
use wf_broker::{BoxFuture, BrokerError, Buried, DeadLetters, DeadPage, DeadStats, Result};
use wf_schema::Queue;

pub(crate) use self::watch::DeadWatch;

use crate::api::{StoredMessage, code};
use crate::broker::NatsBroker;
use crate::publish::{HEADERS, with_id};

/// Letters of one request; the server gives no more.
const PAGE: usize = 1_000;

/// Bytes of one page, but one letter at least.
const PAGE_BYTES: usize = 8 << 20;

const BURY: &str = "bury the dead letter";
const READ: &str = "read the dead letters";
const DELETE: &str = "delete the dead letter";
const COUNT: &str = "count the dead letters";

impl NatsBroker {
    async fn bury_letter(&self, queue: Queue, id: Arc<str>, bytes: Bytes) -> Result<()> {
        self.check_size(bytes.len())?;
        // The server would store one that is larger than the whole stream, and drop it at once with all others.
        let limit = usize::try_from(self.settings.dead_bytes).unwrap_or(usize::MAX).saturating_sub(HEADERS);
        if bytes.len() > limit {
            return Err(BrokerError::TooLarge { size: bytes.len(), limit });
        }
        let headers = with_id(&id)?;
        let _room = self.room(bytes.len(), 1).await;
        let buried = self.publisher().store(&self.layout.dead_subject(&queue), headers, bytes).await;
        buried.map_err(|error| error.into_broker(BURY))?;
        self.dead.buried(self.asker(), &self.layout);
        Ok(())
    }

    async fn page_of_dead(&self, queue: Option<Queue>, from: u64, limit: usize) -> Result<DeadPage> {
        let filter = self.layout.dead_filter(queue.as_ref());
        let limit = limit.clamp(1, PAGE);
        let page = self.asker().page(&self.layout.dead, &filter, from, limit, PAGE_BYTES).await;
        let (messages, more) = page.map_err(|error| error.into_broker(READ))?;
        let next = messages.last().filter(|_| more).map(|last| last.sequence + 1);
        Ok(DeadPage { letters: messages.into_iter().filter_map(|message| self.letter(message)).collect(), next })
    }

    fn letter(&self, message: StoredMessage) -> Option<Buried> {
        let queue = self.layout.dead_queue(&message.subject)?;
        Some(Buried { position: message.sequence, queue, at: message.at, bytes: message.payload })
    }

    async fn delete_letter(&self, position: u64) -> Result<bool> {
        let request = json!({ "seq": position, "no_erase": true });
        match self.asker().api::<Value>(&format!("STREAM.MSG.DELETE.{}", self.layout.dead), &request).await {
            Ok(_) => Ok(true),
            // A sequence that never was fails in the store.
            Err(error) if matches!(error.code(), Some(code::NO_SEQUENCE | code::NO_MESSAGE | code::STORE)) => Ok(false),
            Err(error) => Err(error.into_broker(DELETE)),
        }
    }
}

impl DeadLetters for NatsBroker {
    fn bury(&self, queue: Queue, id: Arc<str>, bytes: Bytes) -> BoxFuture<'_, ()> {
        Box::pin(self.bury_letter(queue, id, bytes))
    }

    fn dead(&self, queue: Option<Queue>, from: u64, limit: usize) -> BoxFuture<'_, DeadPage> {
        Box::pin(self.page_of_dead(queue, from, limit))
    }

    fn dead_at(&self, position: u64) -> BoxFuture<'_, Option<Buried>> {
        Box::pin(async move {
            // Sequences begin at 1; 0 would be no question at all.
            if position == 0 {
                return Ok(None);
            }
            let message = self.asker().at(&self.layout.dead, position).await.map_err(|error| error.into_broker(READ))?;
            Ok(message.and_then(|message| self.letter(message)))
        })
    }

    fn delete_dead(&self, position: u64) -> BoxFuture<'_, bool> {
        Box::pin(async move { if position == 0 { Ok(false) } else { self.delete_letter(position).await } })
    }

    fn dead_stats(&self) -> BoxFuture<'_, DeadStats> {
        Box::pin(async move { self.dead.look(self.asker(), &self.layout).await.map_err(|error| error.into_broker(COUNT)) })
    }
}
