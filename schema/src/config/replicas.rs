//! How many copies of a message a cluster keeps.

use super::setting::Setting;

/// On how many servers each message is stored: 1, 3 or 5, for an even number survives no more failures than the odd
/// one below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Replicas(u8);

impl Replicas {
    /// The number.
    pub fn get(self) -> u8 {
        self.0
    }
}

impl Setting for Replicas {
    const EXPECTED: &'static str = "1, 3 or 5";

    fn parse(text: &str) -> Option<Self> {
        text.parse().ok().filter(|servers| [1, 3, 5].contains(servers)).map(Self)
    }

    fn shown(&self) -> String {
        self.0.to_string()
    }
}
