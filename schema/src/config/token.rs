//! Names that become parts of subjects and keys at the broker.

use std::fmt;

use super::setting::Setting;

/// Whether `text` has 1 to `max` characters of `A-Z a-z 0-9 _ -`.
fn is_token(text: &str, max: usize) -> bool {
    (1..=max).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
}

macro_rules! token {
    ($(#[$doc:meta])+ $type:ident up to $max:literal) => {
        $(#[$doc])+
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub struct $type(String);

        impl $type {
            /// The name.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl Setting for $type {
            const EXPECTED: &'static str = concat!("1 to ", $max, " characters of A-Z a-z 0-9 _ -");

            fn parse(text: &str) -> Option<Self> {
                is_token(text, $max).then(|| Self(text.to_owned()))
            }

            fn shown(&self) -> String {
                self.0.clone()
            }
        }
    };
}

token! {
    /// The first token of every subject of a factory, and the first part of its streams' names.
    Prefix up to 32
}
token! {
    /// What a node calls itself.
    NodeName up to 64
}
