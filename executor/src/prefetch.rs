//! How much an executor fetches ahead, to be changed while it works.

use std::sync::{Arc, Weak};

use crate::node::Node;
use crate::{Executor, ExecutorOptions};

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
    /// What changes it, for whoever follows the link.
    pub fn prefetch(&self) -> Prefetch {
        Prefetch(Arc::downgrade(&self.node))
    }
}

impl Node {
    pub(crate) fn prefetch_bytes(&self, bytes: usize) {
        self.account(|credit, _| credit.set_bytes(ExecutorOptions::within_prefetch(bytes)));
    }
}
