//! A flag that can be waited for.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use tokio::sync::Notify;

/// Up or down. Waiters are woken in the order they came, so that what follows is the same whenever a history is played
/// again; `tokio::sync::watch` wakes them in a random one.
#[derive(Debug, Default)]
pub(super) struct Flag {
    up: AtomicBool,
    changed: Notify,
}

impl Flag {
    pub(super) fn is_up(&self) -> bool {
        self.up.load(SeqCst)
    }

    /// Puts it up or down: whether it was not so before.
    pub(super) fn set(&self, up: bool) -> bool {
        let changed = self.up.swap(up, SeqCst) != up;
        if changed {
            self.changed.notify_waiters();
        }
        changed
    }

    /// Waits until it is `up`, or down.
    pub(super) async fn wait(&self, up: bool) {
        loop {
            // First in line, then look: a change in between is not missed.
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if self.is_up() == up {
                return;
            }
            changed.await;
        }
    }
}
