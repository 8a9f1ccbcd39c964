//! Storing messages, to be delivered now.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use bytes::Bytes;
use wf_schema::Lane;

use super::core::RETRY_AFTER;
use super::keys::{self, IdHash};
use super::lanes::{Entry, Lanes, weight};
use super::message::{self, Header};
use super::opens::Opens;
use super::stall::no_room_to;
use super::store::{KeyRange, Space, Store, each_key};
use super::writer::{Round, Writer};
use super::{Embedded, OpenCause, recent};
use crate::{BoxFuture, BrokerError, Message, Publish, Result, Stored};

/// The messages of the store wait again. Whether one was delivered before is not stored; each counts as if it was once
/// in each life of the broker, because who takes a redelivery for a first delivery would run it twice, and who takes
/// the tenth for the second would let it end the broker's life as often.
pub(super) fn restore(store: &dyn Store, lanes: &mut Lanes) -> Result<(), OpenCause> {
    let opens = Opens::add(store)?;
    each_key(store, Space::Messages, KeyRange::all(), |key| {
        let (lane, entry) = keys::read_message(key, 1)?;
        let entry = Entry { delivered: opens.since(entry.sequence).max(1), ..entry };
        lanes.reserve(&lane, weight(entry.size));
        lanes.arrive(&lane, entry, None);
        Ok(())
    })
}

/// A message that is ready to be stored.
struct Outgoing {
    lane: Lane,
    id: IdHash,
    size: u32,
    value: Bytes,
}

/// Checks and encodes a message, on the caller's thread rather than on the writer's.
fn outgoing(message: &Message, limit: usize) -> Result<Outgoing> {
    let Message { lane, id, bytes } = message;
    if !(1..=200).contains(&id.len()) || !id.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(BrokerError::fatal("store the message", "its id is not 1 to 200 visible ASCII characters"));
    }
    let size = check_size(bytes.len(), limit)?;
    let value = message::value(&Header { id, fired: None }, bytes);
    Ok(Outgoing { lane: lane.clone(), id: recent::hash("message", id), size, value })
}

/// The size, if the broker takes it.
pub(super) fn check_size(size: usize, limit: usize) -> Result<u32> {
    let too_large = BrokerError::TooLarge { size, limit };
    if size > limit { Err(too_large) } else { u32::try_from(size).map_err(|_| too_large) }
}

impl Publish for Embedded {
    fn publish(&self, message: Message) -> BoxFuture<'_, Stored> {
        Box::pin(async move {
            let outgoing = outgoing(&message, self.max_message())?;
            let cost = outgoing.value.len();
            let store = move |writer: &mut Writer, round: &mut Round| writer.publish(round, outgoing);
            self.core.ask("store the message", cost, store).await
        })
    }

    fn publish_all(&self, messages: Vec<Message>) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if messages.len() > self.max_together() {
                let why = format!("{} are more than the {} that go together", messages.len(), self.max_together());
                return Err(BrokerError::fatal("store the messages", why));
            }
            let outgoing: Vec<_> = messages.iter().map(|message| outgoing(message, self.max_message())).collect::<Result<_>>()?;
            let cost = outgoing.iter().map(|message| message.value.len()).sum();
            let store = move |writer: &mut Writer, round: &mut Round| writer.publish_all(round, outgoing);
            self.core.ask("store the messages", cost, store).await
        })
    }

    fn max_message(&self) -> usize {
        self.core.options.max_message
    }

    fn dedup_window(&self) -> Duration {
        self.core.options.dedup_window
    }
}

impl Writer {
    fn publish(&mut self, round: &mut Round, message: Outgoing) -> Result<Stored> {
        if self.recent.contains(round, message.id) {
            return Ok(Stored { duplicate: true });
        }
        self.reserve(round, &[(&message.lane, weight(message.size))])?;
        self.store(round, message);
        Ok(Stored { duplicate: false })
    }

    fn publish_all(&mut self, round: &mut Round, mut messages: Vec<Outgoing>) -> Result<()> {
        let mut ids = HashSet::new();
        messages.retain(|message| ids.insert(message.id) && !self.recent.contains(round, message.id));
        let mut wanted: HashMap<&Lane, u64> = HashMap::new();
        for message in &messages {
            *wanted.entry(&message.lane).or_default() += weight(message.size);
        }
        self.reserve(round, &wanted.into_iter().collect::<Vec<_>>())?;
        for message in messages {
            self.store(round, message);
        }
        Ok(())
    }

    /// Counts the weights, if all of them have room, in their lanes and on the disk.
    pub(super) fn reserve(&mut self, round: &mut Round, wanted: &[(&Lane, u64)]) -> Result<()> {
        if !self.has_room(round) {
            return Err(no_room_to("store more jobs"));
        }
        self.core.lanes(|lanes| {
            if let Some(lane) = lanes.full(wanted.iter().copied()) {
                return Err(BrokerError::Full { lane: lane.clone(), retry_after: RETRY_AFTER });
            }
            for (lane, weight) in wanted {
                lanes.reserve(lane, *weight);
            }
            Ok(())
        })
    }

    fn store(&mut self, round: &mut Round, message: Outgoing) {
        self.recent.remember(round, message.id);
        let sequence = self.sequence.next(round);
        let entry = Entry { sequence, stored_at: round.now, size: message.size, delivered: 0 };
        round.store_message(message.lane, entry, message.value);
    }
}
