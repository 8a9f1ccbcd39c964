//! How often the store was opened since a message was stored.
//!
//! Deliveries are not counted on disk. What a message has outlived is: it may have been delivered once in each life of
//! the broker, and may be what ended it.

use bytes::{BufMut, BytesMut};

use super::OpenCause;
use super::keys;
use super::store::{Durability, Space, Store, Write};

/// So many are remembered. Who asks wants to know whether there were more than a few.
const REMEMBERED: usize = 8;

/// The last times the store was opened: the first sequence that was free each time, the latest first.
pub(super) struct Opens([u64; REMEMBERED]);

impl Opens {
    /// Adds this time.
    pub(super) fn add(store: &dyn Store) -> Result<Self, OpenCause> {
        let mut opens = match store.get(Space::Meta, keys::OPENS)? {
            Some(value) => keys::read_numbers(&value)?,
            None => [0; REMEMBERED],
        };
        let free = match store.get(Space::Meta, keys::SEQUENCE)? {
            Some(value) => keys::read_numbers::<1>(&value)?[0],
            None => 0,
        };
        opens.rotate_right(1);
        opens[0] = free;
        let mut value = BytesMut::new();
        opens.iter().for_each(|free| value.put_u64(*free));
        let write = Write { space: Space::Meta, key: keys::OPENS.to_vec(), value: Some(value.freeze()) };
        // Before anything is delivered, for that may be the end of this life too.
        store.commit(&[write], Durability::Synced)?;
        Ok(Self(opens))
    }

    /// How often, this time included, since the message with `sequence` was stored.
    pub(super) fn since(&self, sequence: u64) -> u32 {
        self.0.iter().take_while(|free| **free > sequence).count() as u32
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::store::MemoryStore;
    use super::*;

    #[test]
    fn lives_are_counted_from_when_a_message_was_stored() {
        let store = MemoryStore::default();
        let taken = |sequence| {
            let write = Write { space: Space::Meta, key: keys::SEQUENCE.to_vec(), value: Some(keys::number(sequence)) };
            store.commit(&[write], Durability::Synced).unwrap();
        };
        assert_eq!(Opens::add(&store).unwrap().since(1), 0);
        taken(100);
        assert_eq!(Opens::add(&store).unwrap().since(99), 1);
        taken(200);
        let opens = Opens::add(&store).unwrap();
        assert_eq!((opens.since(99), opens.since(100), opens.since(200)), (2, 1, 0));
        (0..20).for_each(|_| assert!(Opens::add(&store).is_ok()));
        assert_eq!(Opens::add(&store).unwrap().since(99), REMEMBERED as u32);
    }
}
