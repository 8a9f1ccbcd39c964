//! A message as the store has it: a header, then the body as it came.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use wf_schema::{BatchId, Millis};

use super::keys::Garbled;
use crate::{Fired, Key};

/// What is kept beside the body.
#[derive(Serialize, Deserialize)]
pub(super) struct Header<'a> {
    /// What it was called when it was stored.
    pub(super) id: &'a str,
    /// The key and tick of the cron that it is a firing of.
    pub(super) fired: Option<(&'a str, Millis)>,
}

const GARBLED: Garbled = Garbled("messages");

/// The value of a message: `header length u16 LE | header | body`.
pub(super) fn value(header: &Header<'_>, body: &[u8]) -> Bytes {
    // Ids and keys have at most 200 bytes: a header is far shorter than its length can say.
    let header = postcard::to_stdvec(header).unwrap_or_default();
    let mut value = BytesMut::with_capacity(2 + header.len() + body.len());
    value.put_u16_le(header.len() as u16);
    value.put_slice(&header);
    value.put_slice(body);
    value.freeze()
}

/// A message read back.
pub(super) struct Opened {
    pub(super) id: Arc<str>,
    pub(super) body: Bytes,
    pub(super) fired: Option<Fired>,
    pub(super) fallback_id: BatchId,
}

/// Reads [`value`] back. The names that follow from it are the same whenever it is read.
pub(super) fn open(value: &Bytes, store: BatchId, sequence: u64, stored_at: Millis) -> Result<Opened, Garbled> {
    let (len, rest) = value.split_first_chunk().ok_or(GARBLED)?;
    let len = usize::from(u16::from_le_bytes(*len));
    let header: Header<'_> = postcard::from_bytes(rest.get(..len).ok_or(GARBLED)?).map_err(|_| GARBLED)?;
    let fired = match header.fired {
        Some((key, tick)) => Some(Fired { key: Key::new(key).map_err(|_| GARBLED)?, tick }),
        None => None,
    };
    let fallback_id = match &fired {
        Some(fired) => BatchId::derived(fired.tick, &[b"cron", fired.key.as_str().as_bytes()]),
        None => BatchId::derived(stored_at, &[&store.as_u128().to_be_bytes(), &sequence.to_be_bytes(), header.id.as_bytes()]),
    };
    Ok(Opened { id: header.id.into(), body: value.slice(2 + len..), fired, fallback_id })
}

/// What the message was called when it was stored.
pub(super) fn name(value: &[u8]) -> Result<&str, Garbled> {
    let (len, rest) = value.split_first_chunk().ok_or(GARBLED)?;
    let header: Header<'_> =
        postcard::from_bytes(rest.get(..usize::from(u16::from_le_bytes(*len))).ok_or(GARBLED)?).map_err(|_| GARBLED)?;
    Ok(header.id)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_message_reads_back() {
        let store = BatchId::new();
        let opened = open(&value(&Header { id: "m-1", fired: None }, b"body"), store, 7, 1_000).unwrap();
        assert_eq!((&*opened.id, opened.body.as_ref(), opened.fired), ("m-1", b"body".as_slice(), None));
        assert_eq!(opened.fallback_id.millis(), 1_000);

        let tick = value(&Header { id: "x", fired: Some(("nightly", 5)) }, b"");
        let (one, other) = (open(&tick, store, 7, 1_000).unwrap(), open(&tick, store, 8, 2_000).unwrap());
        assert_eq!(one.fallback_id, other.fallback_id, "a tick is the same tick however often it is stored");
        assert_eq!(one.fired.unwrap().tick, 5);
    }

    #[test]
    fn garbled_messages_are_errors() {
        for bytes in [&b""[..], b"\x01", b"\xff\xff1", b"\x02\x00\xff\xff"] {
            assert!(open(&Bytes::copy_from_slice(bytes), BatchId::new(), 1, 1).is_err());
        }
    }
}
