//! How much an executor fetches ahead, to be changed while it works.

use std::sync::{Arc, Weak};

use crate::Executor;
use crate::node::Node;
use crate::options::PREFETCH_BYTES;

/// Sets how much an executor fetches ahead, as long as that is there; does not keep it there.
#[derive(Clone)]
pub struct Prefetch(Weak<Node>);

impl Prefetch {
    /// As [`Executor::prefetch_bytes`]: whether the executor is still there.
    pub fn set_bytes(&self, bytes: usize) -> bool {
        self.0.upgrade().map(|node| node.prefetch_bytes(bytes)).is_some()
    }
}

impl Executor {
    /// Changes the bytes of messages fetched or asked for, over all lanes: moved to 64 KiB, or 1 GiB, if it is outside
    /// of that. What was fetched or asked for already still comes.
    pub fn prefetch_bytes(&self, bytes: usize) {
        self.node.prefetch_bytes(bytes);
    }

    /// What changes it, for whoever follows the link.
    pub fn prefetch(&self) -> Prefetch {
        Prefetch(Arc::downgrade(&self.node))
    }
}

impl Node {
    fn prefetch_bytes(&self, bytes: usize) {
        self.account(|credit| credit.resize(bytes.clamp(*PREFETCH_BYTES.start(), *PREFETCH_BYTES.end())));
    }
}
