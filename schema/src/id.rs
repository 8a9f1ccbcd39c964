//! The ids of batches, jobs and runs.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

use crate::stand_in;

/// The id of a batch: a UUIDv7, written as 26 characters of Crockford base32.
///
/// Its first 48 bits are milliseconds since the Unix epoch, so ids sort by the time they were made.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchId(u128);

impl BatchId {
    /// A fresh id, made from the clock and randomness.
    pub fn new() -> Self {
        match stand_in::ask(|machine| (machine.here(), machine.random().to_le_bytes())) {
            None => Self(uuid::Uuid::now_v7().as_u128()),
            Some((millis, random)) => Self::made(millis, &random),
        }
    }

    /// The id that follows from `millis` (milliseconds since the Unix epoch) and `parts`: the same input, the
    /// same id.
    ///
    /// This is how a message that was born without an id (plain JSON, a cron tick) gets one that survives its
    /// redelivery, and how a resumed run finds the ids it used before. Each part is hashed with its length, so
    /// `["ab", "c"]` and `["a", "bc"]` differ.
    pub fn derived(millis: u64, parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Self::made(millis, &hash.finalize())
    }

    /// The id of this time with the first 10 bytes of `random`, which has more.
    fn made(millis: u64, random: &[u8]) -> Self {
        let mut ten = [0; 10];
        ten.copy_from_slice(&random[..10]);
        Self(uuid::Builder::from_unix_timestamp_millis(millis, &ten).into_uuid().as_u128())
    }

    /// When the id was made, in milliseconds since the Unix epoch.
    pub fn millis(self) -> u64 {
        (self.0 >> 80) as u64
    }

    /// The id as the number it is.
    pub fn as_u128(self) -> u128 {
        self.0
    }
}

impl From<u128> for BatchId {
    fn from(id: u128) -> Self {
        Self(id)
    }
}

impl Default for BatchId {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for BatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; ulid::ULID_LEN];
        f.pad(ulid::Ulid(self.0).array_to_str(&mut text))
    }
}

impl fmt::Debug for BatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for BatchId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let id =
            ulid::Ulid::from_string(text).map_err(|_| IdError::new("batch id", text, "26 characters of Crockford base32"))?;
        Ok(Self(id.0))
    }
}

/// The id of a job: the batch it was born in and its place there, written `<batch id>-<index>`.
///
/// A job keeps its id through retries, moves and requeues.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId {
    /// The batch the job was born in.
    pub batch: BatchId,
    /// The job's place in that batch, from 0.
    pub index: u32,
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.batch, self.index)
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for JobId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let error = || IdError::new("job id", text, "<batch id>-<index>, e.g. 01JDB6K3Q2M8X7Z9V4T5R6W1YC-42");
        let (batch, index) = text.split_once('-').ok_or_else(error)?;
        if index.is_empty() || !index.bytes().all(|b| b.is_ascii_digit()) {
            return Err(error());
        }
        Ok(Self { batch: batch.parse().map_err(|_| error())?, index: index.parse().map_err(|_| error())? })
    }
}

/// The id of a run: one delivery lineage of one message, the same over all its redeliveries.
///
/// The broker makes it, from where the message is stored: a letter for the store and the sequence there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "StoredRunId")]
pub struct RunId {
    store: char,
    sequence: u64,
}

/// A run id as it was written: what its store is called is not checked yet.
#[derive(Deserialize)]
struct StoredRunId {
    store: char,
    sequence: u64,
}

impl TryFrom<StoredRunId> for RunId {
    type Error = IdError;

    fn try_from(id: StoredRunId) -> Result<Self, IdError> {
        // It becomes part of names at the broker.
        if id.store.is_ascii_alphabetic() {
            Ok(Self { store: id.store, sequence: id.sequence })
        } else {
            Err(IdError::new("run id", &format!("{}{}", id.store, id.sequence), "a letter and a number, e.g. j17"))
        }
    }
}

impl RunId {
    /// The run of the message with `sequence` in the store called `store`, an ASCII letter.
    pub fn new(store: char, sequence: u64) -> Self {
        Self { store: if store.is_ascii_alphabetic() { store } else { 'x' }, sequence }
    }

    /// The message's sequence in its store.
    pub fn sequence(self) -> u64 {
        self.sequence
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.store, self.sequence)
    }
}

impl FromStr for RunId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let error = || IdError::new("run id", text, "a letter and a number, e.g. j17");
        let store = text.chars().next().filter(char::is_ascii_alphabetic).ok_or_else(error)?;
        Ok(Self { store, sequence: text[1..].parse().map_err(|_| error())? })
    }
}

/// A text that is not the id it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a {what}: expected {expected}")]
pub struct IdError {
    what: &'static str,
    text: String,
    expected: &'static str,
}

impl IdError {
    fn new(what: &'static str, text: &str, expected: &'static str) -> Self {
        Self { what, text: text.chars().take(80).collect(), expected }
    }
}

/// Text where people read it (JSON), plain numbers on the wire (postcard).
macro_rules! serde_as_text_or_number {
    ($type:ty, $number:ty, $into:expr, $from:expr) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    let into: fn(&$type) -> $number = $into;
                    into(self).serialize(serializer)
                }
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
                } else {
                    let from: fn($number) -> $type = $from;
                    <$number>::deserialize(deserializer).map(from)
                }
            }
        }
    };
}
// Sixteen raw bytes rather than a varint: 122 of the 128 bits are noise, which a varint only lengthens.
serde_as_text_or_number!(BatchId, [u8; 16], |id| id.0.to_be_bytes(), |bytes| BatchId(u128::from_be_bytes(bytes)));
serde_as_text_or_number!(JobId, (BatchId, u32), |id| (id.batch, id.index), |(batch, index)| JobId { batch, index });

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn ids_read_back_what_they_write() {
        let batch = BatchId::new();
        assert_eq!(batch.to_string().len(), 26);
        assert_eq!(batch.to_string().parse::<BatchId>().unwrap(), batch);
        let job = JobId { batch, index: 42 };
        assert_eq!(job.to_string().parse::<JobId>().unwrap(), job);
        let run = RunId::new('j', 17);
        assert_eq!(run.to_string(), "j17");
        assert_eq!(run.to_string().parse::<RunId>().unwrap(), run);
    }

    #[test]
    fn a_derived_id_carries_its_time_and_depends_on_every_part() {
        let id = BatchId::derived(1_795_323_672_000, &[b"ab", b"c"]);
        assert_eq!(id.millis(), 1_795_323_672_000);
        assert_eq!(id, BatchId::derived(1_795_323_672_000, &[b"ab", b"c"]));
        assert_ne!(id, BatchId::derived(1_795_323_672_000, &[b"a", b"bc"]));
    }

    #[test]
    fn wrong_ids_say_what_was_expected() {
        for text in [
            "",
            "x",
            "01JDB6K3Q2M8X7Z9V4T5R6W1YC",
            "01JDB6K3Q2M8X7Z9V4T5R6W1YC-",
            "01JDB6K3Q2M8X7Z9V4T5R6W1YC--1",
            "01JDB6K3Q2M8X7Z9V4T5R6W1YC-99999999999",
        ] {
            assert!(text.parse::<JobId>().unwrap_err().to_string().contains("<batch id>-<index>"));
        }
        assert!("ü7".parse::<RunId>().is_err());
    }
}
