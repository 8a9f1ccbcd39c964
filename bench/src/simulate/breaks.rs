//! Faults that are put back on purpose, to see that they are found.

use clap::ValueEnum;

/// A fault that was known, and mended; see the changelog.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Break {
    /// The logs of runs are dropped by retention, like copies.
    A1,
    /// A sequence alone is a message's identity.
    A2,
    /// An idempotency key whose jobs cannot be found is taken for one that was never published.
    A3,
    /// The same for the batches of a file.
    A4,
    /// One part of a batch that is found stands for all of them.
    A5,
    /// Nobody is told that outcomes are gone.
    A6,
    /// A source that is stopped leaves what is on its way to its lease.
    A7,
    /// Look-ups of redelivered batches keep their places until their turn.
    A9,
    /// What was scheduled for want of room is published to its lane once there is some.
    A14,
}

/// Those that are put back.
#[derive(Clone, Debug, Default)]
pub(crate) struct Breaks(Vec<Break>);

impl Breaks {
    pub(crate) fn new(breaks: &[Break]) -> Self {
        Self(breaks.to_vec())
    }

    pub(crate) fn has(&self, one: Break) -> bool {
        self.0.contains(&one)
    }
}
