//! A commit as fjall 3 writes it into a journal.
//!
//! ```text
//! start: 1 | changes u32 | number u64
//! each change: 2 | kind u8 | compression u8 | keyspace u64 | key length u16 | value length u32 | length here u32 | key | value
//!          or: 4 | keyspace u64
//! end: 3 | xxh3 of the changes u64 | "FJL" 3
//! ```
//!
//! Numbers are little-endian. fjall itself ends its reading at the first that it cannot read, and takes off the journal
//! what is behind: whether that may be done is decided [before](super::journal).

use std::io::{self, Read};

use xxhash_rust::xxh3::Xxh3;

use super::UNSYNCED;

const START: u8 = 1;
const CHANGE: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;
/// What a commit ends with.
pub(super) const TRAILER: [u8; 4] = *b"FJL\x03";

/// A whole commit.
#[derive(Debug)]
pub(super) struct Commit {
    /// Later commits have higher ones.
    pub(super) number: u64,
    /// How many bytes it takes.
    pub(super) size: u64,
    /// Whether those before it may not have been on disk yet when it was made.
    pub(super) unsynced: bool,
}

/// Why there is no whole commit.
#[derive(Debug)]
pub(super) enum Flaw {
    /// It is not there to its end.
    Unfinished,
    /// It is none, or not as it was written.
    Garbled,
    /// It cannot be read.
    Io(io::Error),
}

impl Commit {
    /// Reads one.
    pub(super) fn read(from: &mut impl Read) -> Result<Self, Flaw> {
        let mut from = Counted { from, size: 0, sum: Xxh3::new() };
        let [START] = from.take()? else { return Err(Flaw::Garbled) };
        let changes = u32::from_le_bytes(from.take()?);
        let number = u64::from_le_bytes(from.take()?);
        from.sum = Xxh3::new();
        let mut unsynced = false;
        for _ in 0..changes {
            match from.take()? {
                [CHANGE] => {
                    let [_kind, _compression] = from.take()?;
                    let _keyspace: [u8; 8] = from.take()?;
                    let key = u16::from_le_bytes(from.take()?);
                    let [_length, here]: [u32; 2] = [u32::from_le_bytes(from.take()?), u32::from_le_bytes(from.take()?)];
                    if usize::from(key) == UNSYNCED.len() {
                        unsynced |= from.take()? == UNSYNCED;
                    } else {
                        from.pass(key.into())?;
                    }
                    from.pass(here.into())?;
                }
                [CLEAR] => from.pass(8)?,
                _ => return Err(Flaw::Garbled),
            }
        }
        let sum = from.sum.digest();
        let [END] = from.take()? else { return Err(Flaw::Garbled) };
        let whole = u64::from_le_bytes(from.take()?) == sum && from.take()? == TRAILER;
        if whole { Ok(Self { number, size: from.size, unsynced }) } else { Err(Flaw::Garbled) }
    }
}

/// Counts and sums up what is read.
struct Counted<'a, R> {
    from: &'a mut R,
    size: u64,
    sum: Xxh3,
}

impl<R: Read> Counted<'_, R> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Flaw> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn pass(&mut self, mut bytes: u64) -> Result<(), Flaw> {
        let mut piece = [0; 4096];
        while bytes > 0 {
            let length = bytes.min(piece.len() as u64);
            self.fill(&mut piece[..length as usize])?;
            bytes -= length;
        }
        Ok(())
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), Flaw> {
        self.from.read_exact(bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => Flaw::Unfinished,
            _ => Flaw::Io(error),
        })?;
        self.sum.update(bytes);
        self.size += bytes.len() as u64;
        Ok(())
    }
}
