//! Bodies kept at hand between their storing and their delivery.

use std::collections::HashMap;

use bytes::Bytes;

/// The most bytes that are kept.
const MOST_BYTES: usize = 32 << 20;

/// Values of messages that wait, by sequence: those that came while there was room. Most messages are delivered as
/// soon as they are stored, and need not be read back for it.
#[derive(Default)]
pub(super) struct Bodies {
    values: HashMap<u64, Bytes>,
    bytes: usize,
}

impl Bodies {
    /// Keeps `value`, if there is room.
    pub(super) fn keep(&mut self, sequence: u64, value: Bytes) {
        if self.bytes + value.len() <= MOST_BYTES {
            self.bytes += value.len();
            let before = self.values.insert(sequence, value);
            self.bytes -= before.map_or(0, |before| before.len());
        }
    }

    /// Whether the value is kept.
    pub(super) fn has(&self, sequence: u64) -> bool {
        self.values.contains_key(&sequence)
    }

    /// How many more bytes can be kept.
    pub(super) fn room(&self) -> usize {
        MOST_BYTES - self.bytes
    }

    /// The value, if it was kept; it is not any more.
    pub(super) fn take(&mut self, sequence: u64) -> Option<Bytes> {
        let value = self.values.remove(&sequence)?;
        self.bytes -= value.len();
        Some(value)
    }
}
