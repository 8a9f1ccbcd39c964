//! What is not sent before it is known whether the message that it is about is still stored.

use super::Table;
use crate::consume::Origin;
use crate::exchange::pending::About;

/// A settlement that was repeated so often in vain may be about a message that is gone: that is looked up, and again
/// after as many more. It is repeated for as long as the message is there and the connection is open.
const LOOK_EVERY: u32 = 4;

/// Something that is not sent before it is known whether the message that it is about is still stored: the server knows
/// messages by their sequence alone, and a store that was rolled back gives that to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Doubt {
    pub(crate) id: u64,
    pub(crate) origin: Origin,
    /// Whether only a look at this very message will do, not at a later one of its stream.
    pub(crate) alone: bool,
}

impl Table {
    /// Whether `id` is not to be sent before its message was looked up.
    pub(super) fn is_doubtful(&self, id: u64) -> Option<bool> {
        let pending = self.pending.get(&id)?;
        let About { origin, generation } = pending.about?;
        let repeated = pending.repetitions >= pending.looked_at + LOOK_EVERY;
        let earlier = generation < self.generation && origin.sequence > self.same_up_to[usize::from(origin.later)];
        (repeated || earlier).then_some(repeated)
    }

    /// How much waits until its message was looked up.
    pub(in crate::exchange) fn doubt_count(&self) -> usize {
        self.doubted.len()
    }

    /// What waits until its message was looked up.
    pub(in crate::exchange) fn doubts(&self) -> Vec<Doubt> {
        let doubt = |(id, alone): (&u64, &bool)| {
            let About { origin, .. } = self.pending.get(id)?.about?;
            Some(Doubt { id: *id, origin, alone: *alone })
        };
        self.doubted.iter().filter_map(doubt).collect()
    }

    /// The message of `doubt` was looked up in `generation`, and is still stored: so are, up to there, all that were not
    /// removed, for a store is rolled back from its end.
    pub(in crate::exchange) fn is_stored(&mut self, doubt: Doubt, generation: u64) {
        if generation != self.generation {
            return;
        }
        let Doubt { id, origin, .. } = doubt;
        let same = &mut self.same_up_to[usize::from(origin.later)];
        *same = origin.sequence.max(*same);
        if let Some(pending) = self.pending.get_mut(&id) {
            pending.looked_at = pending.repetitions;
        }
        let ids: Vec<u64> = self.doubted.keys().copied().filter(|id| self.is_doubtful(*id).is_none()).collect();
        for id in ids {
            self.doubted.remove(&id);
            self.queue.push_back(id);
        }
        self.leaves_at = None;
    }

    /// The message of `doubt` was looked up in `generation`, and is gone: there is nothing left to settle. Whether a
    /// settlement ended with that.
    pub(in crate::exchange) fn is_gone(&mut self, doubt: Doubt, generation: u64) -> bool {
        if generation != self.generation {
            return false;
        }
        let settles = self.settles.contains(&doubt.id);
        match self.remove(doubt.id).and_then(|pending| pending.then) {
            Some(then) => {
                self.store_then(doubt.id, then);
                false
            }
            None => settles,
        }
    }
}
