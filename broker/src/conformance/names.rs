//! Names and messages that no other case uses.

use bytes::Bytes;
use wf_schema::{BatchId, Lane, Priority, Queue};

use crate::{Key, Message};

/// A queue of this case only.
pub(super) fn queue() -> Queue {
    Queue::new(&format!("q-{}", BatchId::new())).unwrap()
}

/// The normal lane of a queue of this case only.
pub(super) fn lane() -> Lane {
    Lane::new(queue(), Priority::Normal)
}

/// A key of this case only.
pub(super) fn key(what: &str) -> Key {
    Key::new(&format!("{what}.{}", BatchId::new())).unwrap()
}

/// A message of its own id.
pub(super) fn message(lane: &Lane, bytes: impl Into<Bytes>) -> Message {
    Message { lane: lane.clone(), id: BatchId::new().to_string().into(), bytes: bytes.into() }
}

/// `count` messages of their own ids, which say `0000` and so on: [`texts`].
pub(super) fn messages(lane: &Lane, count: usize) -> Vec<Message> {
    texts(count).into_iter().map(|text| message(lane, text)).collect()
}

/// What [`messages`] say, in order.
pub(super) fn texts(count: usize) -> Vec<Bytes> {
    (0..count).map(|n| format!("{n:04}").into()).collect()
}

/// `size` bytes that do not compress and differ from call to call.
pub(super) fn noise(size: usize) -> Bytes {
    std::iter::repeat_with(|| fastrand::u8(..)).take(size).collect()
}
