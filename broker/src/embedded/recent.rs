//! The ids of messages that were stored lately, so that none is stored twice.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use sha2::{Digest, Sha256};
use wf_schema::Millis;

use super::keys::{self, IdHash};
use super::store::{KeyRange, Space, Store, each_key};
use super::writer::Round;
use super::{EmbeddedOptions, OpenCause};

/// However long the window, no more ids than these are remembered: about 80 MB of memory.
const MOST: usize = 1 << 20;
/// Ids that are forgotten in one round, so that a burst of them delays nobody.
const FORGOTTEN_AT_ONCE: usize = 4096;

/// What an id is remembered by. Ids of different `kind`s are different.
pub(super) fn hash(kind: &str, id: &str) -> IdHash {
    let digest = Sha256::new().chain_update(kind).chain_update([0]).chain_update(id).finalize();
    let mut half = [0; 16];
    half.copy_from_slice(&digest[..16]);
    u128::from_be_bytes(half)
}

pub(super) struct Recent {
    window: Millis,
    known: HashMap<IdHash, Millis>,
    /// By age, the oldest first.
    order: VecDeque<(Millis, IdHash)>,
}

impl Recent {
    pub(super) fn open(store: &dyn Store, options: &EmbeddedOptions) -> Result<Self, OpenCause> {
        let window = options.dedup_window.as_millis() as Millis;
        let mut recent = Self { window, known: HashMap::new(), order: VecDeque::new() };
        each_key(store, Space::Ids, KeyRange::all(), |key| {
            let (stored_at, id) = keys::read_id(key)?;
            recent.known.insert(id, stored_at);
            recent.order.push_back((stored_at, id));
            Ok::<_, OpenCause>(())
        })?;
        Ok(recent)
    }

    /// Whether `id` was stored within the window.
    pub(super) fn contains(&self, round: &Round, id: IdHash) -> bool {
        self.known.get(&id).is_some_and(|stored_at| !self.over(*stored_at, round.now))
    }

    /// Remembers `id`, durably with the round.
    pub(super) fn remember(&mut self, round: &mut Round, id: IdHash) {
        if self.window > 0 {
            self.known.insert(id, round.now);
            self.order.push_back((round.now, id));
            round.put(Space::Ids, keys::id(round.now, id), Bytes::new());
        }
    }

    /// Forgets `id`, as if it had never been.
    pub(super) fn remove(&mut self, round: &mut Round, id: IdHash) {
        if let Some(stored_at) = self.known.remove(&id) {
            round.remove(Space::Ids, keys::id(stored_at, id));
        }
    }

    /// Forgets what the window has passed, or what is too much.
    pub(super) fn forget(&mut self, round: &mut Round) {
        for _ in 0..FORGOTTEN_AT_ONCE {
            let Some(&(stored_at, id)) = self.order.front() else { return };
            if !self.over(stored_at, round.now) && self.order.len() <= MOST {
                return;
            }
            self.order.pop_front();
            // It may have been stored anew since.
            if self.known.get(&id) == Some(&stored_at) {
                self.known.remove(&id);
            }
            round.remove(Space::Ids, keys::id(stored_at, id));
        }
    }

    fn over(&self, stored_at: Millis, now: Millis) -> bool {
        stored_at.saturating_add(self.window) < now
    }
}
