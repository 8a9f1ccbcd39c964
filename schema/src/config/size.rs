//! Sizes in bytes, as people write them.

use std::fmt;
use std::str::FromStr;

use super::quantity::{self, QuantityError, Unit};

/// How many bytes something takes or may take: `32 KiB`.
///
/// Reads `B`, the binary `KiB MiB GiB TiB` and the decimal `kB MB GB TB`, in any case, with or without a space; a
/// bare number is bytes. Writes the largest binary unit that needs no fraction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(u64);

const SHOWN: [Unit; 5] = [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];

const READ: [Unit; 10] = [
    ("", 1),
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

impl Size {
    pub(super) const EXPECTED: &'static str = "a size in whole bytes, e.g. `32 KiB` or `1 GiB`";

    /// `bytes` bytes.
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// The size in bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// The size in bytes, as memory is counted; all of the memory there is where that does not fit.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&quantity::show(self.0, &SHOWN))
    }
}

impl FromStr for Size {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        quantity::parse(text, &READ).map(Self).ok_or_else(|| QuantityError::new(text, Self::EXPECTED))
    }
}
