//! The publish window: how much may be on its way to the broker, unanswered.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How much may be on its way to the broker. The first of the two that is reached holds publishing; the bytes are
/// what should bind, the messages only guard the consumers, which too many of them starve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Bytes on the wire. A single message larger than that goes alone.
    pub bytes: usize,
    /// Messages.
    pub messages: usize,
}

impl Default for Window {
    /// That of the profile `local`: 8 MiB, 256 messages.
    fn default() -> Self {
        Self { bytes: 8 << 20, messages: 256 }
    }
}

/// Lets messages into the window in the order they came.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    size: Window,
    bytes: Arc<Semaphore>,
    messages: Arc<Semaphore>,
}

/// A place in the window, given back when dropped.
#[derive(Debug)]
pub(crate) struct Pass {
    _bytes: OwnedSemaphorePermit,
    _messages: OwnedSemaphorePermit,
}

impl Gate {
    pub(crate) fn new(window: Window) -> Self {
        // Permits of a semaphore are asked for in a u32.
        let size = Window { bytes: window.bytes.clamp(1, 1 << 31), messages: window.messages.clamp(1, 1 << 20) };
        Self { size, bytes: Arc::new(Semaphore::new(size.bytes)), messages: Arc::new(Semaphore::new(size.messages)) }
    }

    /// Waits until `messages` messages of `bytes` in all fit. What is larger than the window takes all of it.
    ///
    /// `None` never comes: the semaphores are not closed.
    pub(crate) async fn enter(&self, messages: usize, bytes: usize) -> Option<Pass> {
        let messages = messages.clamp(1, self.size.messages) as u32;
        let bytes = bytes.clamp(1, self.size.bytes) as u32;
        // Everybody takes them in this order, so no two can hold what the other waits for.
        let messages = self.messages.clone().acquire_many_owned(messages).await.ok()?;
        let bytes = self.bytes.clone().acquire_many_owned(bytes).await.ok()?;
        Some(Pass { _bytes: bytes, _messages: messages })
    }

    /// What of the window is taken.
    pub(crate) fn taken(&self) -> Window {
        Window {
            bytes: self.size.bytes - self.bytes.available_permits().min(self.size.bytes),
            messages: self.size.messages - self.messages.available_permits().min(self.size.messages),
        }
    }
}
