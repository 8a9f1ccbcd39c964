//! What is checked. The names are stable: scripts choose by them.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

macro_rules! checks {
    ($($(#[doc = $doc:literal])+ $Check:ident $name:literal;)+) => {
        /// What is checked, in the order in which it is told.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(rename_all = "lowercase")]
        pub enum Check {$(
            $(#[doc = $doc])+
            $Check,
        )+}

        impl Check {
            /// All checks, in the order in which they are told.
            pub const ALL: &[Self] = &[$(Self::$Check),+];

            /// The check's name.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$Check => $name,)+
                }
            }
        }
    };
}

checks! {
    /// The configuration of this node.
    Config "config";
    /// The broker inside the process: whether it can be opened.
    Store "store";
    /// The NATS server: whether it is reached, and its version.
    Server "server";
    /// What the account may use of JetStream.
    Account "account";
    /// The largest message that the server takes.
    Payload "payload";
    /// Whether the factory is set up.
    Setup "setup";
    /// Whether each stream is as the factory's settings say.
    Streams "streams";
    /// How many copies of accepted jobs there are.
    Replicas "replicas";
    /// How full the streams and lanes are.
    Capacity "capacity";
    /// The consumers of this node's queues.
    Consumers "consumers";
    /// Whether somebody asks for everything that waits.
    Lanes "lanes";
    /// Whether what was accepted is on disk.
    Durability "durability";
    /// The disk under the broker inside the process.
    Disk "disk";
    /// The broker's clock against this machine's.
    Clock "clock";
    /// How long a round trip takes.
    Link "link";
    /// How much the link carries each way.
    Rate "rate";
    /// Whether one connection fills the link.
    Connections "connections";
    /// The profile that fits the link.
    Profile "profile";
    /// Whether the windows hold what the link holds.
    Windows "windows";
    /// This machine's network settings.
    Host "host";
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A text that names no check.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no check of that name: expected one of {}", Check::ALL.iter().map(|check| check.as_str()).collect::<Vec<_>>().join(", "))]
pub struct UnknownCheck;

impl FromStr for Check {
    type Err = UnknownCheck;

    fn from_str(text: &str) -> Result<Self, UnknownCheck> {
        Self::ALL.iter().copied().find(|check| check.as_str() == text).ok_or(UnknownCheck)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_and_are_those_of_the_json() {
        for &check in Check::ALL {
            assert_eq!(check.as_str().parse(), Ok(check));
            assert_eq!(serde_json::to_value(check).ok(), Some(check.as_str().into()));
        }
        assert!("weather".parse::<Check>().is_err());
    }
}
