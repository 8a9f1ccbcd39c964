//! What a broker's tests bring along: the broker itself, on a store that outlives it.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;

use crate::Broker;

/// A broker's store, and the means to reach it and to break it. Panics when it cannot do as asked: a rig is part of
/// a test.
///
/// The constructor that is handed to the macros is called once a case. Cases use queues, keys and batches of their
/// own, so rigs may share one store, except those of [`conformance_restart_tests!`](crate::conformance_restart_tests)
/// and [`conformance_reconnect_tests!`](crate::conformance_reconnect_tests): those cases kill it.
///
/// How the broker is to be set up, so that the cases are quick and can fill a lane:
/// - a lease of one second (two at most);
/// - lanes that are full with 600 to 2,000 messages, as [`Rig::fill`] says, and no fuller store beside them;
/// - a [`max_message`](crate::Publish::max_message) of 128 KiB or more, which an empty lane takes;
/// - a deduplication window of a minute or more;
/// - a store of dead letters of 1 to 4 MiB, for each rig its own.
/// - no more outcomes kept than [`Rig::outcomes`] says: 200 to 2,000.
pub trait Rig: Send + Sync + 'static {
    /// Opens the store as another node would: a connection of its own where there are connections, the same broker
    /// again where one process is all it serves. Settings and layout are made by then.
    fn open(&self) -> BoxFuture<'_, Arc<dyn Broker>>;

    /// When a lane is full.
    fn fill(&self) -> Fill;

    /// How many outcomes are kept for readers.
    fn outcomes(&self) -> usize;

    /// Stops the broker as abruptly as can be (kill -9 where it is a process), keeps it away for `down`, and starts
    /// it on the same store. Done when it can be reached again.
    ///
    /// The cases of [`conformance_restart_tests!`](crate::conformance_restart_tests) have dropped everything that
    /// came from [`Rig::open`] by then, those of
    /// [`conformance_reconnect_tests!`](crate::conformance_reconnect_tests) have not.
    fn restart(&self, down: Duration) -> BoxFuture<'_, ()>;
}

/// When a lane is full.
#[derive(Clone, Copy, Debug)]
pub struct Fill {
    /// A lane takes this many messages of `bytes` each, and not one more.
    pub messages: usize,
    /// The size of each in bytes; small.
    pub bytes: usize,
}
