//! What this node has acknowledged lately.
//!
//! A server confirms an acknowledgement before it is on disk, whatever it is told to sync: one that is killed just
//! then delivers the message once more, although its owner was told that it is gone. If it comes back here, it is
//! acknowledged again and nobody is bothered with it.

use std::collections::{HashSet, VecDeque};

use parking_lot::Mutex;

use crate::consume::Origin;

/// Acknowledgements that are remembered: more than can be unconfirmed at a time.
const REMEMBERED: usize = 32_768;

/// A stored message: its stream, its sequence there, and when it was stored, so that a stream that was made anew has
/// none of the old one's.
type Identity = (bool, u64, u64);

/// The messages that were acknowledged lately.
#[derive(Default)]
pub(crate) struct AckedLately(Mutex<Acked>);

#[derive(Default)]
struct Acked {
    known: HashSet<Identity>,
    order: VecDeque<Identity>,
}

impl AckedLately {
    /// Remembers that the message from `origin` was acknowledged.
    pub(crate) fn remember(&self, origin: Origin) {
        let mut acked = self.0.lock();
        let identity = identity(origin);
        if acked.known.insert(identity) {
            acked.order.push_back(identity);
            if acked.order.len() > REMEMBERED
                && let Some(oldest) = acked.order.pop_front()
            {
                acked.known.remove(&oldest);
            }
        }
    }

    /// Whether the message from `origin` was acknowledged.
    pub(crate) fn knows(&self, origin: Origin) -> bool {
        self.0.lock().known.contains(&identity(origin))
    }
}

fn identity(origin: Origin) -> Identity {
    (origin.later, origin.sequence, origin.stored_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_are_remembered() {
        let acked = AckedLately::default();
        let origin = |sequence| Origin { later: false, delivered: 1, sequence, stored_nanos: 5 };
        (0..=REMEMBERED as u64).for_each(|sequence| acked.remember(origin(sequence)));
        assert!(!acked.knows(origin(0)) && acked.knows(origin(1)) && acked.knows(origin(REMEMBERED as u64)));
        assert!(!acked.knows(Origin { later: true, ..origin(1) }) && !acked.knows(Origin { stored_nanos: 6, ..origin(1) }));
    }
}
