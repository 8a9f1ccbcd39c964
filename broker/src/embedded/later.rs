//! Messages scheduled for later.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;
use sha2::{Digest, Sha256};
use wf_schema::{Lane, Millis};

use super::keys::{self, IdHash};
use super::lanes::{Entry, Lanes, weight};
use super::message::{self, Header};
use super::publish::check_size;
use super::store::{KeyRange, Space, Store, StoreResult, each_key};
use super::writer::{Round, Writer};
use super::{Embedded, OpenCause, recent};
use crate::{BoxFuture, Cron, Key, Result, Schedule, Scheduled};

/// What is scheduled, by key and by due time; the messages themselves are in the store.
#[derive(Default)]
pub(super) struct Later {
    by_key: HashMap<Key, Due>,
    by_due: BTreeSet<(Millis, Key)>,
}

struct Due {
    due: Millis,
    size: u32,
    lane: Lane,
}

impl Later {
    /// Reads what is scheduled, and counts it as messages of their lanes: what is due always has room.
    pub(super) fn open(store: &dyn Store, lanes: &mut Lanes) -> Result<Self, OpenCause> {
        let mut later = Self::default();
        each_key(store, Space::Later, KeyRange::all(), |key| {
            let (due, size, lane, name) = keys::read_later(key)?;
            lanes.reserve(&lane, weight(size));
            later.insert(name, Due { due, size, lane });
            Ok::<_, OpenCause>(())
        })?;
        Ok(later)
    }

    /// When the next one is due.
    pub(super) fn next(&self) -> Option<Millis> {
        self.by_due.first().map(|(due, _)| *due)
    }

    fn insert(&mut self, name: Key, due: Due) {
        self.by_due.insert((due.due, name.clone()));
        self.by_key.insert(name, due);
    }

    fn remove(&mut self, name: &Key) -> Option<Due> {
        let due = self.by_key.remove(name)?;
        self.by_due.remove(&(due.due, name.clone()));
        Some(due)
    }
}

/// What the cancellation of `key` is remembered by, among the ids of messages.
fn cancelled(key: &Key) -> IdHash {
    recent::hash("cancelled", key.as_str())
}

impl Schedule for Embedded {
    fn publish_at(&self, scheduled: Scheduled) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let size = check_size(scheduled.bytes.len(), self.core.options.max_message)?;
            // It is kept as the message that it becomes.
            let value = message::value(&Header { id: scheduled.key.as_str(), fired: None }, &scheduled.bytes);
            let Scheduled { lane, key, due, bytes } = scheduled;
            let repeated = recent::hash("at", &format!("{key} {due} {:?}", Sha256::digest(&bytes)));
            let store = move |writer: &mut Writer, round: &mut Round| {
                let cancelled = cancelled(&key);
                // The first one after a cancellation is no repetition of what was cancelled.
                if writer.recent.contains(round, repeated) && !writer.recent.contains(round, cancelled) {
                    return Ok(());
                }
                writer.publish_at(round, key, Due { due, size, lane }, value)?;
                writer.recent.remove(round, cancelled);
                writer.recent.remember(round, repeated);
                Ok(())
            };
            self.core.ask("schedule the message", size as usize, store).await
        })
    }

    fn cancel_at(&self, key: Key) -> BoxFuture<'_, ()> {
        Box::pin(self.core.ask("cancel the message", 0, move |writer, round| {
            writer.cancel_at(round, &key);
            writer.recent.remember(round, cancelled(&key));
            Ok(())
        }))
    }

    fn put_cron(&self, cron: Cron) -> BoxFuture<'_, ()> {
        Box::pin(self.put(cron))
    }

    fn delete_cron(&self, key: Key) -> BoxFuture<'_, ()> {
        Box::pin(self.core.ask("delete the cron", 0, move |writer, round| {
            writer.delete_cron(round, &key);
            Ok(())
        }))
    }
}

impl Writer {
    fn publish_at(&mut self, round: &mut Round, name: Key, due: Due, value: Bytes) -> Result<()> {
        self.reserve(round, &[(&due.lane, weight(due.size))])?;
        self.cancel_at(round, &name);
        round.put(Space::Later, keys::later(due.due, due.size, &due.lane, &name), value);
        self.later.insert(name, due);
        Ok(())
    }

    fn cancel_at(&mut self, round: &mut Round, name: &Key) {
        if let Some(due) = self.later.remove(name) {
            round.remove(Space::Later, keys::later(due.due, due.size, &due.lane, name));
            self.core.lanes(|lanes| lanes.unreserve(&due.lane, weight(due.size)));
        }
    }

    /// Moves what is due into its lane: in one commit, so that it is neither lost nor doubled.
    pub(super) fn fire_later(&mut self, round: &mut Round) -> StoreResult<()> {
        while let Some((due, name)) = self.later.by_due.first().cloned()
            && due <= round.now
            && !round.is_large()
        {
            let Some(due) = self.later.remove(&name) else { continue };
            let key = keys::later(due.due, due.size, &due.lane, &name);
            let value = self.store.get(Space::Later, &key)?;
            round.remove(Space::Later, key);
            match value {
                Some(value) => {
                    let sequence = self.sequence.next(round);
                    let entry = Entry { sequence, stored_at: round.now, size: due.size, delivered: 0 };
                    round.store_message(due.lane, entry, value);
                }
                None => {
                    tracing::error!(schedule = %name, "the store has lost a scheduled message");
                    self.core.lanes(|lanes| lanes.unreserve(&due.lane, weight(due.size)));
                }
            }
        }
        Ok(())
    }
}
