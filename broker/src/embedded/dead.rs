//! Dead letters.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use wf_schema::{Lane, Millis, Priority, Queue};

use super::core::{OrUnreadable, RETRY_AFTER};
use super::keys::{self, Grave};
use super::oldest::Oldest;
use super::publish::check_size;
use super::store::{KeyRange, Space, Store, StoreResult, each_key};
use super::writer::{Round, Writer};
use super::{Embedded, EmbeddedOptions, OpenCause, recent};
use crate::{BoxFuture, BrokerError, Buried, DeadLetters, DeadPage, Result};

/// The most that one page holds, whatever its limit.
const PAGE_LETTERS: usize = 1000;
const PAGE_BYTES: usize = 16 << 20;
/// Letters that are dropped in one round, so that a burst of them delays nobody.
const DROPPED_AT_ONCE: usize = 2048;

pub(super) struct Dead {
    most_bytes: u64,
    most_age: Millis,
    bytes: u64,
    oldest: Oldest,
    /// Letters that this round removes and the store still has.
    removed: HashSet<u64>,
}

fn weight(size: u32) -> u64 {
    u64::from(size) + EmbeddedOptions::MESSAGE_OVERHEAD
}

impl Dead {
    pub(super) fn open(store: &dyn Store, options: &EmbeddedOptions) -> Result<Self, OpenCause> {
        let mut bytes = 0;
        each_key(store, Space::Dead, KeyRange::all(), |key| {
            bytes += weight(Grave::read(key)?.size);
            Ok::<_, OpenCause>(())
        })?;
        let mut oldest = Oldest::new(Space::Dead);
        oldest.peek(store)?;
        Ok(Self {
            most_bytes: options.dead_bytes,
            most_age: options.dead_age.as_millis() as Millis,
            bytes,
            oldest,
            removed: HashSet::new(),
        })
    }

    /// When the next letter is too old.
    pub(super) fn next(&self) -> Option<Millis> {
        let oldest = Grave::read(self.oldest.known()?).ok()?;
        Some(oldest.at.saturating_add(self.most_age).saturating_add(1))
    }

    /// The round is over: the store has what it wrote.
    pub(super) fn committed(&mut self) {
        self.removed.clear();
    }
}

/// The letter's key in the store, if it is there.
fn find(store: &dyn Store, position: u64) -> StoreResult<Option<Bytes>> {
    Ok(store.keys(Space::Dead, &KeyRange::prefix(&position.to_be_bytes()), 1)?.pop())
}

fn exhume(store: &dyn Store, key: &[u8]) -> Result<Option<Buried>> {
    const WHAT: &str = "read the dead letter";
    let Grave { position, at, queue, .. } = Grave::read(key).or_unreadable(WHAT)?;
    let bytes = store.get(Space::Dead, key).or_unreadable(WHAT)?;
    Ok(bytes.map(|bytes| Buried { position, queue, at, bytes }))
}

impl DeadLetters for Embedded {
    fn bury(&self, queue: Queue, id: Arc<str>, bytes: Bytes) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let size = check_size(bytes.len(), self.core.options.max_message)?;
            let id = recent::hash("dead", &id);
            let bury = move |writer: &mut Writer, round: &mut Round| writer.bury(round, queue, id, size, bytes);
            self.core.ask("bury the dead letter", size as usize, bury).await
        })
    }

    fn dead(&self, queue: Option<Queue>, from: u64, limit: usize) -> BoxFuture<'_, DeadPage> {
        Box::pin(self.core.read("list the dead letters", move |store| page(store, queue, from, limit)))
    }

    fn dead_at(&self, position: u64) -> BoxFuture<'_, Option<Buried>> {
        const WHAT: &str = "read the dead letter";
        Box::pin(self.core.read(WHAT, move |store| match find(store, position).or_unreadable(WHAT)? {
            Some(key) => exhume(store, &key),
            None => Ok(None),
        }))
    }

    fn delete_dead(&self, position: u64) -> BoxFuture<'_, bool> {
        Box::pin(self.core.ask("delete the dead letter", 0, move |writer, round| writer.delete_dead(round, position)))
    }
}

fn page(store: &dyn Store, queue: Option<Queue>, from: u64, limit: usize) -> Result<DeadPage> {
    const WHAT: &str = "list the dead letters";
    const KEYS: usize = 1024;
    let mut page = DeadPage::default();
    let mut range = KeyRange { from: from.to_be_bytes().to_vec(), to: None };
    let mut bytes = 0;
    loop {
        let keys = store.keys(Space::Dead, &range, KEYS).or_unreadable(WHAT)?;
        for key in &keys {
            let grave = Grave::read(key).or_unreadable(WHAT)?;
            if queue.as_ref().is_some_and(|queue| *queue != grave.queue) {
                continue;
            }
            if page.letters.len() >= limit.clamp(1, PAGE_LETTERS) || bytes >= PAGE_BYTES {
                page.next = Some(grave.position);
                return Ok(page);
            }
            // One that was deleted meanwhile is left out.
            if let Some(letter) = exhume(store, key)? {
                bytes += letter.bytes.len();
                page.letters.push(letter);
            }
        }
        match keys.last() {
            Some(last) if keys.len() == KEYS => range = range.after(last),
            _ => return Ok(page),
        }
    }
}

impl Writer {
    fn bury(&mut self, round: &mut Round, queue: Queue, id: keys::IdHash, size: u32, bytes: Bytes) -> Result<()> {
        if self.recent.contains(round, id) {
            return Ok(());
        }
        let full = self.dead.bytes != 0 && self.dead.bytes + weight(size) > self.dead.most_bytes;
        if full {
            return Err(BrokerError::Full { lane: Lane::new(queue, Priority::Normal), retry_after: RETRY_AFTER });
        }
        self.recent.remember(round, id);
        let position = self.sequence.next(round);
        self.dead.bytes += weight(size);
        round.put(Space::Dead, Grave { position, at: round.now, size, queue }.key(), bytes);
        Ok(())
    }

    fn delete_dead(&mut self, round: &mut Round, position: u64) -> Result<bool> {
        const WHAT: &str = "delete the dead letter";
        let Some(key) = find(&*self.store, position).or_unreadable(WHAT)? else { return Ok(false) };
        let grave = Grave::read(&key).or_unreadable(WHAT)?;
        Ok(self.dig_up(round, &grave))
    }

    /// Removes a letter that the store has; whether this round had not done so already.
    fn dig_up(&mut self, round: &mut Round, grave: &Grave) -> bool {
        let first = self.dead.removed.insert(grave.position);
        if first {
            self.dead.bytes = self.dead.bytes.saturating_sub(weight(grave.size));
            round.remove(Space::Dead, grave.key());
        }
        first
    }

    /// Drops the letters that are too old.
    pub(super) fn drop_old_letters(&mut self, round: &mut Round) -> StoreResult<()> {
        for _ in 0..DROPPED_AT_ONCE {
            if self.dead.bytes == 0 {
                break;
            }
            let Some(key) = self.dead.oldest.peek(&*self.store)? else { break };
            let grave = Grave::read(key);
            if grave.as_ref().is_ok_and(|grave| grave.at.saturating_add(self.dead.most_age) >= round.now) {
                break;
            }
            self.dead.oldest.pop();
            // It may have been deleted since it was looked up.
            if let Ok(grave) = grave
                && find(&*self.store, grave.position)?.is_some()
            {
                self.dig_up(round, &grave);
            }
        }
        Ok(())
    }
}
