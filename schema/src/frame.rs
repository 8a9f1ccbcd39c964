//! The envelope that every message travels in: what it holds, how it is compressed, whether it is whole.
//!
//! `"WF" | version u8 | codec u8 | raw_len u32 LE | crc32c u32 LE of the body | body`; the body, once decompressed,
//! is one byte that says what it is ([`Content`]) and then postcard.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::Limits;

/// The version of the wire format that is written. Every version from [`OLDEST`] to it can be read.
pub const VERSION: u8 = 2;
/// The oldest version that can be read. What came before it was never released.
pub const OLDEST: u8 = 2;

const MAGIC: [u8; 2] = *b"WF";
const HEADER: usize = 12;
/// Below this a body is sent as it is: there is nothing to gain.
const COMPRESS_ABOVE: usize = 64;
/// The most bytes that one byte of an LZ4 block can stand for.
const MOST_PACKED: usize = 255;

/// What a message holds: the first byte of its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Content {
    Batch = 1,
    Record = 2,
    DeadLetter = 3,
    MarkedRecord = 4,
}

#[derive(Clone, Copy)]
#[repr(u8)]
enum Codec {
    None = 0,
    Lz4 = 1,
}

/// Why a message cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// It does not start with `WF`, nor is it JSON.
    #[error("not a message of Work Factory: it starts with neither `WF` nor `{{` or `[`")]
    Magic,
    /// It ends early.
    #[error("the message is cut short: {have} bytes of {want}")]
    Truncated {
        /// The bytes that are there.
        have: usize,
        /// The bytes that should be there, at least.
        want: usize,
    },
    /// It was written by a newer program, or by one from before the first release.
    #[error("wire version {0} is none that this program reads ({OLDEST} to {VERSION}): upgrade readers before writers")]
    Version(u8),
    /// It is compressed in a way this program does not know.
    #[error("codec {0} is not known")]
    Codec(u8),
    /// Its body does not match its checksum.
    #[error("the checksum does not match: the message was damaged on its way")]
    Checksum,
    /// It holds more than the reader is willing to hold.
    #[error("{what} is {value}; the limit is {limit}")]
    Limit {
        /// What is too large.
        what: &'static str,
        /// How large it is.
        value: usize,
        /// The reader's limit.
        limit: usize,
    },
    /// It is whole, but what it says makes no sense.
    #[error("the message is malformed: {0}")]
    Malformed(&'static str),
    /// It holds something else than was asked for.
    #[error("the message holds content {found}, not {expected}")]
    Content {
        /// What it holds.
        found: u8,
        /// What was asked for.
        expected: u8,
    },
}

/// Appends the postcard of `value` to `to`.
pub(crate) fn write(value: &impl Serialize, to: Vec<u8>) -> Vec<u8> {
    // Writing plain structs to memory cannot fail: postcard errs only on sequences of unknown length and full buffers.
    postcard::to_extend(value, to).unwrap_or_default()
}

/// Reads the postcard of one value that is all there is in `bytes`. What it does not know, no reader may pass over: a
/// field more is a new version.
pub(crate) fn read<'a, T: Deserialize<'a>>(bytes: &'a [u8], what: &'static str) -> Result<T, WireError> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        _ => Err(WireError::Malformed(what)),
    }
}

/// Puts `body` (which starts with its [`Content`]) into an envelope, compressed if that makes it smaller.
///
/// The builders keep every body far below 4 GiB, so its length fits its field.
pub(crate) fn seal(body: &[u8]) -> Bytes {
    let mut message = packed(body).unwrap_or_else(|| {
        let mut message = Vec::with_capacity(HEADER + body.len());
        message.resize(HEADER, 0);
        message.extend_from_slice(body);
        message[3] = Codec::None as u8;
        message
    });
    let crc = crc32c::crc32c(&message[HEADER..]);
    message[..2].copy_from_slice(&MAGIC);
    message[2] = VERSION;
    message[4..8].copy_from_slice(&(body.len() as u32).to_le_bytes());
    message[8..12].copy_from_slice(&crc.to_le_bytes());
    // Gives back what the compressor could have needed: messages wait in windows that count their bytes.
    Bytes::from(message)
}

/// `body` compressed, behind room for the header; `None` if that would not make it smaller.
fn packed(body: &[u8]) -> Option<Vec<u8>> {
    if body.len() <= COMPRESS_ABOVE {
        return None;
    }
    let mut message = vec![0; HEADER + lz4_flex::block::get_maximum_output_size(body.len())];
    message[3] = Codec::Lz4 as u8;
    let size = lz4_flex::block::compress_into(body, &mut message[HEADER..]).ok()?;
    message.truncate(HEADER + size);
    (size < body.len()).then_some(message)
}

/// The body of `message`, decompressed and without its content byte. Shares the message's memory if it was not
/// compressed. Allocates at most `limits.raw_bytes`.
pub(crate) fn open(message: &Bytes, expected: Content, limits: &Limits) -> Result<Bytes, WireError> {
    open_one_of(message, &[expected], limits).map(|(_, body)| body)
}

/// The same for a message that may hold any of `expected`, the first of which it is said to lack: which it is.
pub(crate) fn open_one_of(message: &Bytes, expected: &[Content], limits: &Limits) -> Result<(Content, Bytes), WireError> {
    if !is_framed(message) {
        return Err(WireError::Magic);
    }
    if message.len() < HEADER {
        return Err(WireError::Truncated { have: message.len(), want: HEADER });
    }
    let word = |at: usize| u32::from_le_bytes([message[at], message[at + 1], message[at + 2], message[at + 3]]);
    if !(OLDEST..=VERSION).contains(&message[2]) {
        return Err(WireError::Version(message[2]));
    }
    let raw_len = word(4) as usize;
    if raw_len > limits.raw_bytes {
        return Err(WireError::Limit { what: "the size of the decompressed body", value: raw_len, limit: limits.raw_bytes });
    }
    let body = message.slice(HEADER..);
    // The checksum comes before the decompressor, so that damage is called damage.
    if crc32c::crc32c(&body) != word(8) {
        return Err(WireError::Checksum);
    }
    let body = match message[3] {
        0 if body.len() == raw_len => body,
        0 => return Err(WireError::Truncated { have: body.len(), want: raw_len }),
        1 => {
            // No message gets more memory than LZ4 could fill from its bytes.
            if raw_len > body.len().saturating_mul(MOST_PACKED) {
                return Err(WireError::Truncated { have: body.len(), want: raw_len / MOST_PACKED });
            }
            let raw = lz4_flex::block::decompress(&body, raw_len).map_err(|_| WireError::Malformed("lz4"))?;
            if raw.len() != raw_len {
                return Err(WireError::Truncated { have: raw.len(), want: raw_len });
            }
            Bytes::from(raw)
        }
        codec => return Err(WireError::Codec(codec)),
    };
    let &found = body.first().ok_or(WireError::Malformed("empty body"))?;
    match expected.iter().find(|expected| **expected as u8 == found) {
        Some(content) => Ok((*content, body.slice(1..))),
        None => Err(WireError::Content { found, expected: expected.first().map_or(0, |first| *first as u8) }),
    }
}

/// Whether `message` claims to be an envelope.
pub(crate) fn is_framed(message: &[u8]) -> bool {
    message.starts_with(&MAGIC)
}
