//! The keys of the store, and what they say.
//!
//! Numbers are big-endian, so that keys sort as their numbers do. The keys of messages, schedules, outcome records and
//! dead letters say all that the indexes in memory need: opening a store reads keys and no bodies.

use bytes::Bytes;
use wf_schema::{BatchId, Lane, Millis, Priority, Queue, RunId};

use super::lanes::Entry;
use crate::Key;

/// The letter of the runs of this broker.
pub(super) const RUN_LETTER: char = 'e';

/// What a message is called within the dedup window: a hash of its id.
pub(super) type IdHash = u128;

/// `Space::Meta`: the id of the store.
pub(super) const STORE_ID: &[u8] = b"store";
/// `Space::Meta`: up to where the sequence is taken.
pub(super) const SEQUENCE: &[u8] = b"sequence";
/// `Space::Meta`: where the sequence stood when the store was opened the last times.
pub(super) const OPENS: &[u8] = b"opens";
/// `Space::Meta`: how many records and bytes the outcome log has.
pub(super) const OUTCOME_SIZE: &[u8] = b"outcomes";
/// `Space::Meta`: how many dead letters were dropped to make room.
pub(super) const DEAD_DROPPED: &[u8] = b"dead-dropped";

/// A key of the store that is not of the form it should be: the store is damaged.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("an entry of {0} cannot be read")]
pub(super) struct Garbled(pub(super) &'static str);

/// Takes fields off the front of a key.
struct Fields<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Fields<'a> {
    fn of(what: &'static str, key: &'a [u8]) -> Self {
        Self { rest: key, what }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Garbled> {
        let (field, rest) = self.rest.split_first_chunk().ok_or(Garbled(self.what))?;
        self.rest = rest;
        Ok(*field)
    }

    fn u64(&mut self) -> Result<u64, Garbled> {
        self.take().map(u64::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, Garbled> {
        self.take().map(u32::from_be_bytes)
    }

    fn batch(&mut self) -> Result<BatchId, Garbled> {
        self.take().map(|id| u128::from_be_bytes(id).into())
    }

    fn run(&mut self) -> Result<RunId, Garbled> {
        let [letter] = self.take()?;
        Ok(RunId::new(letter.into(), self.u64()?))
    }

    fn lane(&mut self) -> Result<Lane, Garbled> {
        let [len] = self.take()?;
        let (queue, rest) = self.rest.split_at_checked(len.into()).ok_or(Garbled(self.what))?;
        self.rest = rest;
        let [priority] = self.take()?;
        let priority = Priority::ALL.get(usize::from(priority)).ok_or(Garbled(self.what))?;
        Ok(Lane::new(queue_named(queue, self.what)?, *priority))
    }
}

fn queue_named(name: &[u8], what: &'static str) -> Result<Queue, Garbled> {
    std::str::from_utf8(name).ok().and_then(|name| Queue::new(name).ok()).ok_or(Garbled(what))
}

fn push_lane(key: &mut Vec<u8>, lane: &Lane) {
    let queue = lane.queue.as_str().as_bytes();
    // A queue's name has at most 64 bytes.
    key.push(queue.len() as u8);
    key.extend_from_slice(queue);
    key.push(match lane.priority {
        Priority::High => 0,
        Priority::Normal => 1,
        Priority::Low => 2,
    });
}

fn push_run(key: &mut Vec<u8>, run: RunId) {
    // The letter is not readable from a run but through its text.
    key.push(run.to_string().as_bytes().first().copied().unwrap_or(b'x'));
    key.extend_from_slice(&run.sequence().to_be_bytes());
}

/// `Space::Messages`: lane, sequence, when it was stored, size of its body.
pub(super) fn message(lane: &Lane, entry: &Entry) -> Vec<u8> {
    let mut key = Vec::with_capacity(lane.queue.as_str().len() + 22);
    push_lane(&mut key, lane);
    key.extend_from_slice(&entry.sequence.to_be_bytes());
    key.extend_from_slice(&entry.stored_at.to_be_bytes());
    key.extend_from_slice(&entry.size.to_be_bytes());
    key
}

/// `Space::Messages`: what all messages of a lane start with.
pub(super) fn messages_of(lane: &Lane) -> Vec<u8> {
    let mut key = Vec::with_capacity(lane.queue.as_str().len() + 2);
    push_lane(&mut key, lane);
    key
}

/// Reads [`message`] back, with `delivered` as it is not in the key.
pub(super) fn read_message(key: &[u8], delivered: u32) -> Result<(Lane, Entry), Garbled> {
    let mut fields = Fields::of("messages", key);
    let lane = fields.lane()?;
    Ok((lane, Entry { sequence: fields.u64()?, stored_at: fields.u64()?, size: fields.u32()?, delivered }))
}

/// `Space::Ids`: when it was stored, the id's hash.
pub(super) fn id(stored_at: Millis, id: IdHash) -> Vec<u8> {
    [stored_at.to_be_bytes().as_slice(), &id.to_be_bytes()].concat()
}

/// Reads [`id`] back.
pub(super) fn read_id(key: &[u8]) -> Result<(Millis, IdHash), Garbled> {
    let mut fields = Fields::of("ids", key);
    Ok((fields.u64()?, fields.take().map(u128::from_be_bytes)?))
}

/// `Space::Later`: due time, size of the body, lane, the schedule's key.
pub(super) fn later(due: Millis, size: u32, lane: &Lane, name: &Key) -> Vec<u8> {
    let mut key = Vec::with_capacity(lane.queue.as_str().len() + name.as_str().len() + 14);
    key.extend_from_slice(&due.to_be_bytes());
    key.extend_from_slice(&size.to_be_bytes());
    push_lane(&mut key, lane);
    key.extend_from_slice(name.as_str().as_bytes());
    key
}

/// Reads [`later`] back.
pub(super) fn read_later(key: &[u8]) -> Result<(Millis, u32, Lane, Key), Garbled> {
    let mut fields = Fields::of("later", key);
    Ok((fields.u64()?, fields.u32()?, fields.lane()?, named(fields.rest, "later")?))
}

/// `Space::Crons` and `Space::Records`: the key itself. Reads it back.
pub(super) fn named(key: &[u8], what: &'static str) -> Result<Key, Garbled> {
    std::str::from_utf8(key).ok().and_then(|text| Key::new(text).ok()).ok_or(Garbled(what))
}

/// `Space::Pauses`: the queue itself. Reads it back.
pub(super) fn queue(key: &[u8]) -> Result<Queue, Garbled> {
    queue_named(key, "pauses")
}

/// `Space::Outcomes`: what all records of a batch start with.
pub(super) fn outcomes_of(batch: BatchId) -> [u8; 16] {
    batch.as_u128().to_be_bytes()
}

/// `Space::Outcomes`: what all records of a run start with.
pub(super) fn outcomes_of_run(batch: BatchId, run: RunId) -> Vec<u8> {
    let mut key = Vec::with_capacity(33);
    key.extend_from_slice(&outcomes_of(batch));
    push_run(&mut key, run);
    key
}

/// `Space::Outcomes`: batch, run, version.
pub(super) fn outcome(batch: BatchId, run: RunId, version: u64) -> Vec<u8> {
    let mut key = outcomes_of_run(batch, run);
    key.extend_from_slice(&version.to_be_bytes());
    key
}

/// Reads [`outcome`] back.
pub(super) fn read_outcome(key: &[u8]) -> Result<(BatchId, RunId, u64), Garbled> {
    let mut fields = Fields::of("outcomes", key);
    Ok((fields.batch()?, fields.run()?, fields.u64()?))
}

/// What `Space::Ages` says of an outcome record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Age {
    pub(super) version: u64,
    pub(super) stored_at: Millis,
    pub(super) size: u32,
    pub(super) batch: BatchId,
    pub(super) run: RunId,
}

impl Age {
    /// `Space::Ages`: version, when it was stored, size, batch, run. Versions are of one sequence, so they sort by age.
    pub(super) fn key(&self) -> Vec<u8> {
        let mut key = Vec::with_capacity(45);
        key.extend_from_slice(&self.version.to_be_bytes());
        key.extend_from_slice(&self.stored_at.to_be_bytes());
        key.extend_from_slice(&self.size.to_be_bytes());
        key.extend_from_slice(&outcomes_of(self.batch));
        push_run(&mut key, self.run);
        key
    }

    /// Reads [`Age::key`] back.
    pub(super) fn read(key: &[u8]) -> Result<Self, Garbled> {
        let mut fields = Fields::of("ages", key);
        Ok(Self {
            version: fields.u64()?,
            stored_at: fields.u64()?,
            size: fields.u32()?,
            batch: fields.batch()?,
            run: fields.run()?,
        })
    }
}

/// `Space::Expiries`: when the record has outlived its time, its key.
pub(super) fn expiry(at: Millis, name: &Key) -> Vec<u8> {
    [at.to_be_bytes().as_slice(), name.as_str().as_bytes()].concat()
}

/// Reads [`expiry`] back.
pub(super) fn read_expiry(key: &[u8]) -> Result<(Millis, Key), Garbled> {
    let mut fields = Fields::of("expiries", key);
    Ok((fields.u64()?, named(fields.rest, "expiries")?))
}

/// What `Space::Dead` says of a dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Grave {
    pub(super) position: u64,
    pub(super) at: Millis,
    pub(super) size: u32,
    pub(super) queue: Queue,
}

impl Grave {
    /// `Space::Dead`: position, when it was buried, size, queue.
    pub(super) fn key(&self) -> Vec<u8> {
        let mut key = Vec::with_capacity(self.queue.as_str().len() + 20);
        key.extend_from_slice(&self.position.to_be_bytes());
        key.extend_from_slice(&self.at.to_be_bytes());
        key.extend_from_slice(&self.size.to_be_bytes());
        key.extend_from_slice(self.queue.as_str().as_bytes());
        key
    }

    /// Reads [`Grave::key`] back.
    pub(super) fn read(key: &[u8]) -> Result<Self, Garbled> {
        let mut fields = Fields::of("dead", key);
        let (position, at, size) = (fields.u64()?, fields.u64()?, fields.u32()?);
        Ok(Self { position, at, size, queue: queue_named(fields.rest, "dead")? })
    }
}

/// A number as a value of `Space::Meta`.
pub(super) fn number(value: u64) -> Bytes {
    Bytes::copy_from_slice(&value.to_be_bytes())
}

/// Reads numbers of `Space::Meta` back.
pub(super) fn read_numbers<const N: usize>(value: &[u8]) -> Result<[u64; N], Garbled> {
    let mut fields = Fields::of("meta", value);
    let mut numbers = [0; N];
    for number in &mut numbers {
        *number = fields.u64()?;
    }
    Ok(numbers)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn keys_read_back_and_sort_by_their_numbers() {
        let lane = Lane::new(Queue::new("mail").unwrap(), Priority::Low);
        let entry = Entry { sequence: 255, stored_at: 7, size: 16_384, delivered: 3 };
        assert_eq!(read_message(&message(&lane, &entry), 3).unwrap(), (lane.clone(), entry));
        assert!(message(&lane, &entry) < message(&lane, &Entry { sequence: 256, ..entry }));

        let name = Key::new("retry.1").unwrap();
        assert_eq!(read_later(&later(5, 9, &lane, &name)).unwrap(), (5, 9, lane, name.clone()));
        assert_eq!(read_expiry(&expiry(5, &name)).unwrap(), (5, name));
        assert_eq!(read_id(&id(5, 1 << 100)).unwrap(), (5, 1 << 100));

        let (batch, run) = (BatchId::new(), RunId::new('j', 17));
        assert_eq!(read_outcome(&outcome(batch, run, 4)).unwrap(), (batch, run, 4));
        let age = Age { version: 4, stored_at: 5, size: 6, batch, run };
        assert_eq!(Age::read(&age.key()).unwrap(), age);
        let grave = Grave { position: 1, at: 2, size: 3, queue: Queue::default() };
        assert_eq!(Grave::read(&grave.key()).unwrap(), grave);
    }

    #[test]
    fn garbled_keys_are_errors() {
        assert!(read_message(&[200, 1, 2], 0).is_err());
        assert!(read_message(&[], 0).is_err());
        assert!(read_later(&[0; 30],).is_err());
        assert!(Grave::read(&[0; 20]).is_err());
        assert!(read_numbers::<2>(&[0; 15]).is_err());
    }
}
