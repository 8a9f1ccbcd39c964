//! Dead letters: kept up to an age and a size. When there are too many, the oldest make room.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use wf_schema::{Millis, Queue};

use super::core::OrUnreadable;
use super::keys::{self, Grave};
use super::oldest::Oldest;
use super::publish::check_size;
use super::store::{KeyRange, Space, Store, StoreResult, each_key};
use super::writer::{Round, Writer};
use super::{Embedded, EmbeddedOptions, OpenCause, recent};
use crate::{BoxFuture, Buried, DeadLetters, DeadPage, DeadStats, Episode, Result};

/// The most that one page holds, whatever its limit.
const PAGE_LETTERS: usize = 1000;
const PAGE_BYTES: usize = 16 << 20;
/// Letters that are dropped in one round, so that a burst of them delays nobody.
const DROPPED_AT_ONCE: usize = 2048;
/// How often it is said that letters are dropped to make room.
const SAID_EVERY: Duration = Duration::from_secs(600);

pub(super) struct Dead {
    most_bytes: u64,
    most_age: Millis,
    letters: u64,
    bytes: u64,
    /// How many were dropped to make room, since the store was made.
    dropped: u64,
    dropping: Episode,
    oldest: Oldest,
    /// Letters that this round removes and the store still has.
    removed: HashSet<u64>,
}

fn weight(size: u32) -> u64 {
    u64::from(size) + EmbeddedOptions::MESSAGE_OVERHEAD
}

impl Dead {
    pub(super) fn open(store: &dyn Store, options: &EmbeddedOptions) -> Result<Self, OpenCause> {
        let (mut letters, mut bytes) = (0, 0);
        each_key(store, Space::Dead, KeyRange::all(), |key| {
            letters += 1;
            bytes += weight(Grave::read(key)?.size);
            Ok::<_, OpenCause>(())
        })?;
        let [dropped] = match store.get(Space::Meta, keys::DEAD_DROPPED)? {
            Some(value) => keys::read_numbers(&value)?,
            None => [0],
        };
        let mut oldest = Oldest::new(Space::Dead);
        oldest.peek(store)?;
        Ok(Self {
            most_bytes: options.dead_bytes,
            most_age: options.dead_age.as_millis() as Millis,
            letters,
            bytes,
            dropped,
            dropping: Episode::new(SAID_EVERY),
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
            // One that is larger than the whole store could only be dropped at once.
            let most = self.core.options.dead_bytes.saturating_sub(EmbeddedOptions::MESSAGE_OVERHEAD);
            let most = usize::try_from(most).unwrap_or(usize::MAX).min(self.core.options.max_message);
            let size = check_size(bytes.len(), most)?;
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

    fn dead_stats(&self) -> BoxFuture<'_, DeadStats> {
        Box::pin(self.core.ask("count the dead letters", 0, |writer, _| writer.dead_stats()))
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
        self.make_room(round, weight(size)).or_unreadable("make room for the dead letter")?;
        self.recent.remember(round, id);
        let position = self.sequence.next(round);
        self.dead.letters += 1;
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
            self.dead.letters = self.dead.letters.saturating_sub(1);
            self.dead.bytes = self.dead.bytes.saturating_sub(weight(grave.size));
            round.remove(Space::Dead, grave.key());
        }
        first
    }

    /// Drops the letters that are too old, and the oldest of those that are too much. The latter are there after a
    /// round that buried more than the store may hold, or when the store was made smaller.
    pub(super) fn drop_old_letters(&mut self, round: &mut Round) -> StoreResult<()> {
        for _ in 0..DROPPED_AT_ONCE {
            if self.dead.bytes == 0 {
                break;
            }
            let Some(grave) = self.oldest_letter()? else { break };
            if grave.at.saturating_add(self.dead.most_age) >= round.now {
                break;
            }
            self.dead.oldest.pop();
            self.dig_up_if_there(round, &grave)?;
        }
        self.make_room(round, 0)
    }

    /// Drops the oldest letters that the store has until there is room for one of `weight`. Those of this round are
    /// not there yet: the next one looks again.
    fn make_room(&mut self, round: &mut Round, weight: u64) -> StoreResult<()> {
        let before = self.dead.dropped;
        let mut newest = 0;
        for _ in 0..DROPPED_AT_ONCE {
            if self.dead.bytes == 0 || self.dead.bytes.saturating_add(weight) <= self.dead.most_bytes {
                break;
            }
            let Some(grave) = self.oldest_letter()? else { break };
            self.dead.oldest.pop();
            if self.dig_up_if_there(round, &grave)? {
                self.dead.dropped += 1;
                newest = grave.at;
            }
        }
        let dropped = self.dead.dropped - before;
        if dropped > 0 {
            let mut value = BytesMut::with_capacity(8);
            value.put_u64(self.dead.dropped);
            round.put(Space::Meta, keys::DEAD_DROPPED.to_vec(), value.freeze());
            self.say_dropped(round, dropped, newest);
        }
        Ok(())
    }

    /// Says that letters were dropped, the last of them buried at `newest`: once an episode.
    fn say_dropped(&mut self, round: &Round, dropped: u64, newest: Millis) {
        let Some(dropped) = self.dead.dropping.happened(dropped) else { return };
        tracing::warn!(
            dropped,
            dropped_in_all = self.dead.dropped,
            kept = self.dead.letters,
            kept_bytes = self.dead.bytes,
            limit_bytes = self.dead.most_bytes,
            age_s = round.now.saturating_sub(newest) / 1_000,
            "the store of dead letters is full: the oldest letters are dropped to make room; \
             see what fails, requeue or export what you need, or raise factory.dead_bytes"
        );
    }

    /// The oldest letter that the store has; entries that cannot be read are passed over.
    fn oldest_letter(&mut self) -> StoreResult<Option<Grave>> {
        loop {
            let Some(key) = self.dead.oldest.peek(&*self.store)? else { return Ok(None) };
            match Grave::read(key) {
                Ok(grave) => return Ok(Some(grave)),
                Err(_) => drop(self.dead.oldest.pop()),
            }
        }
    }

    /// Removes a letter that may have been deleted since it was looked up: whether it was there.
    fn dig_up_if_there(&mut self, round: &mut Round, grave: &Grave) -> StoreResult<bool> {
        Ok(find(&*self.store, grave.position)?.is_some() && self.dig_up(round, grave))
    }

    fn dead_stats(&mut self) -> Result<DeadStats> {
        const WHAT: &str = "count the dead letters";
        let oldest = loop {
            let Some(grave) = self.oldest_letter().or_unreadable(WHAT)? else { break None };
            let gone = self.dead.removed.contains(&grave.position);
            if !gone && find(&*self.store, grave.position).or_unreadable(WHAT)?.is_some() {
                break Some(grave.at);
            }
            self.dead.oldest.pop();
        };
        let Dead { letters, bytes, most_bytes, dropped, .. } = self.dead;
        Ok(DeadStats { letters, bytes, most_bytes, oldest, dropped })
    }
}
