//! How an entry looks on disk: a small record that says what it is, and apart from it the message itself, which is
//! written once and never again.

use bytes::Bytes;
use wf_schema::{BatchId, Lane, Millis};

use crate::envelope::Envelope;

/// The version of the record.
const VERSION: u8 = 2;
/// Bits of a record's flags.
const SENT: u8 = 1;
const LATER: u8 = 2;
/// What a record has before the message's id: version, flags, jobs, size, checksum, stored, due, sent, remembered.
const HEAD: usize = 2 + 4 + 4 + 4 + 8 + 8 + 8 + 4;

/// Where an entry stands: its lane and its number. Numbers grow with time, over all lanes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Slot {
    pub(super) lane: Lane,
    pub(super) number: u64,
}

/// What is known of an entry without reading its message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// The broker was given it, and has not confirmed it: it may be stored there.
    pub(super) sent: bool,
    pub(super) jobs: u32,
    /// The message's size in bytes, and its CRC-32C.
    pub(super) size: u32,
    pub(super) crc: u32,
    /// When it was put here.
    pub(super) at: Millis,
    pub(super) due: Option<Millis>,
    /// When the broker was first given it, at the earliest; 0 as long as it was not.
    pub(super) sent_at: Millis,
    /// For how many seconds the broker remembers the end of its run.
    pub(super) remember: u32,
    pub(super) id: String,
}

/// Why an entry cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Damage {
    #[error("its key is no lane and number")]
    Key,
    #[error("its record does not match its checksum")]
    Record,
    #[error("its record is of version {0}, which is not known here")]
    Version(u8),
    #[error("its message is missing, or cannot be read")]
    Missing,
    #[error("its message does not match its checksum")]
    Message,
}

impl Slot {
    /// The key of its record: entries of a lane stand together, in order.
    pub(super) fn key(&self) -> Vec<u8> {
        let mut key = prefix(&self.lane);
        key.extend_from_slice(&self.number.to_be_bytes());
        key
    }

    /// The key of its message.
    pub(super) fn message_key(&self) -> Vec<u8> {
        self.number.to_be_bytes().to_vec()
    }

    pub(super) fn read(key: &[u8]) -> Result<Self, Damage> {
        let split = key.len().checked_sub(9).filter(|at| key.get(*at) == Some(&0)).ok_or(Damage::Key)?;
        let lane = std::str::from_utf8(&key[..split]).ok().and_then(|lane| lane.parse().ok()).ok_or(Damage::Key)?;
        let number = key[split + 1..].try_into().map(u64::from_be_bytes).map_err(|_| Damage::Key)?;
        Ok(Self { lane, number })
    }
}

/// What the keys of all records of `lane` start with. No lane has the byte in its name that ends it.
pub(super) fn prefix(lane: &Lane) -> Vec<u8> {
    let mut key = lane.to_string().into_bytes();
    key.push(0);
    key
}

impl Record {
    pub(super) fn of(envelope: &Envelope, sent: bool, at: Millis) -> Self {
        Self {
            sent,
            jobs: envelope.jobs,
            size: u32::try_from(envelope.size()).unwrap_or(u32::MAX),
            crc: crc32c::crc32c(&envelope.bytes),
            at,
            due: envelope.due,
            sent_at: if sent { envelope.made_at } else { 0 },
            remember: envelope.remember,
            id: envelope.id.to_string(),
        }
    }

    /// The same, given to the broker at `at`, if not before.
    pub(super) fn marked(self, at: Millis) -> Self {
        Self { sent: true, sent_at: if self.sent { self.sent_at } else { at }, ..self }
    }

    /// What is known of an entry whose record cannot be read.
    pub(super) fn unreadable() -> Self {
        Self { sent: false, jobs: 0, size: 0, crc: 0, at: 0, due: None, sent_at: 0, remember: 0, id: String::new() }
    }

    /// What it counts for in the spool's size: the message, and what is written beside it.
    pub(super) fn weight(&self) -> u64 {
        weight(self.size as usize)
    }

    pub(super) fn write(&self) -> Bytes {
        let mut out = Vec::with_capacity(HEAD + self.id.len() + 4);
        out.push(VERSION);
        out.push((u8::from(self.sent) * SENT) | (u8::from(self.due.is_some()) * LATER));
        out.extend_from_slice(&self.jobs.to_le_bytes());
        out.extend_from_slice(&self.size.to_le_bytes());
        out.extend_from_slice(&self.crc.to_le_bytes());
        out.extend_from_slice(&self.at.to_le_bytes());
        out.extend_from_slice(&self.due.unwrap_or(0).to_le_bytes());
        out.extend_from_slice(&self.sent_at.to_le_bytes());
        out.extend_from_slice(&self.remember.to_le_bytes());
        out.extend_from_slice(self.id.as_bytes());
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out.into()
    }

    pub(super) fn read(bytes: &[u8]) -> Result<Self, Damage> {
        let (record, crc) = bytes.split_last_chunk::<4>().ok_or(Damage::Record)?;
        if crc32c::crc32c(record) != u32::from_le_bytes(*crc) {
            return Err(Damage::Record);
        }
        // The version first: all else may look otherwise in another.
        match record.first() {
            Some(&VERSION) => {}
            Some(&other) => return Err(Damage::Version(other)),
            None => return Err(Damage::Record),
        }
        let mut rest = record;
        let [_, flags] = take(&mut rest)?;
        Ok(Self {
            sent: flags & SENT != 0,
            jobs: u32::from_le_bytes(take(&mut rest)?),
            size: u32::from_le_bytes(take(&mut rest)?),
            crc: u32::from_le_bytes(take(&mut rest)?),
            at: Millis::from_le_bytes(take(&mut rest)?),
            due: Some(Millis::from_le_bytes(take(&mut rest)?)).filter(|_| flags & LATER != 0),
            sent_at: Millis::from_le_bytes(take(&mut rest)?),
            remember: u32::from_le_bytes(take(&mut rest)?),
            id: String::from_utf8(rest.to_vec()).map_err(|_| Damage::Record)?,
        })
    }

    /// The message, if `bytes` is what was written.
    pub(super) fn envelope(&self, lane: &Lane, bytes: Bytes) -> Result<Envelope, Damage> {
        if bytes.len() != self.size as usize || crc32c::crc32c(&bytes) != self.crc {
            return Err(Damage::Message);
        }
        // `<batch>`, or `<batch>.<first job>` of one that was split.
        let (batch, first) = self.id.split_once('.').unwrap_or((&self.id, "0"));
        let batch: BatchId = batch.parse().map_err(|_| Damage::Record)?;
        let first = first.parse().map_err(|_| Damage::Record)?;
        Ok(Envelope {
            lane: lane.clone(),
            id: self.id.as_str().into(),
            due: self.due,
            first,
            jobs: self.jobs,
            batch,
            made_at: batch.millis(),
            remember: self.remember,
            bytes,
        })
    }
}

/// What a message of `size` bytes counts for in the spool's size: about what keys and record take comes on top.
pub(super) fn weight(size: usize) -> u64 {
    size as u64 + 128
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], Damage> {
    let (taken, left) = rest.split_first_chunk::<N>().ok_or(Damage::Record)?;
    *rest = left;
    Ok(*taken)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_record_reads_as_it_was_written(sent: bool, jobs: u32, size: u32, crc: u32, at: u64, due: Option<u64>, sent_at: u64, remember: u32, id in "[0-9A-Z.]{1,40}", number: u64) {
            let record = Record { sent, jobs, size, crc, at, due, sent_at, remember, id };
            prop_assert_eq!(Record::read(&record.write()).unwrap(), record);
            let slot = Slot { lane: "mail.high".parse().unwrap(), number };
            prop_assert_eq!(Slot::read(&slot.key()).unwrap(), slot);
        }

        #[test]
        fn a_damaged_record_is_none(at in 0_usize..60, flip in 1_u8..=255, cut in 0_usize..60) {
            let record = Record { sent: true, jobs: 3, size: 9, crc: 1, at: 5, due: Some(7), sent_at: 6, remember: 8, id: "01JDB6K3Q2M8X7Z9V4T5R6W1YC".into() };
            let whole = record.write();
            let mut damaged = whole.to_vec();
            let at = at % damaged.len();
            damaged[at] ^= flip;
            prop_assert!(Record::read(&damaged).is_err());
            prop_assert!(Record::read(&whole[..cut % whole.len()]).is_err());
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = (Record::read(&bytes), Slot::read(&bytes));
        }
    }

    #[test]
    fn entries_of_a_lane_stand_together_in_order() {
        let slot = |lane: &str, number| Slot { lane: lane.parse().unwrap(), number };
        let mut keys: Vec<_> =
            [slot("a.high", 300), slot("ab.high", 1), slot("a.high", 2), slot("a.low", 0)].map(|s| s.key()).into();
        keys.sort();
        let order: Vec<_> = keys.iter().map(|key| Slot::read(key).unwrap().number).collect();
        assert_eq!(order, [2, 300, 0, 1]);
        assert!(keys[0].starts_with(&prefix(&"a.high".parse().unwrap())));
    }
}
