//! The thread that consuming connections live on.
//!
//! What keeps a delivery its owner's is sent over them, so nothing that a program does on its own runtime may hold
//! them up: a handler that blocks every worker there for longer than a lease would else lose all that its node holds.

use std::io;

use tokio::runtime::{Builder, Handle, Runtime};

/// A runtime of one thread. Ends with the last connection that lives on it.
pub(crate) struct Home(Option<Runtime>);

impl Home {
    /// Starts the thread.
    pub(crate) fn start() -> io::Result<Self> {
        Builder::new_multi_thread().worker_threads(1).thread_name("wf-nats").enable_all().build().map(|home| Self(Some(home)))
    }

    /// Where to spawn what is to live there. `None` only while it is dropped.
    pub(crate) fn handle(&self) -> Option<&Handle> {
        self.0.as_ref().map(Runtime::handle)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if let Some(home) = self.0.take() {
            // Waiting for it would block, which an async caller must not; and it may be this very thread.
            home.shutdown_background();
        }
    }
}
