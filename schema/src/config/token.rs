//! Names that become parts of subjects and keys at the broker.

use std::fmt;

use super::setting::Setting;

macro_rules! token {
    ($(#[$doc:meta])+ $type:ident: up to $max:literal of $characters:literal, $fits:expr) => {
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
            const EXPECTED: &'static str = concat!("1 to ", $max, " characters of ", $characters);

            fn parse(text: &str) -> Option<Self> {
                let fits: fn(u8) -> bool = $fits;
                ((1..=$max).contains(&text.len()) && text.bytes().all(fits)).then(|| Self(text.to_owned()))
            }

            fn shown(&self) -> String {
                self.0.clone()
            }
        }
    };
}

token! {
    /// The first token of every subject of a factory; in capitals, the first part of its streams' names.
    Prefix: up to 32 of "a-z 0-9 _ -", |b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b)
}
token! {
    /// The first token of the subjects at which a node's connections get their answers.
    InboxPrefix: up to 64 of "A-Z a-z 0-9 _", |b| b.is_ascii_alphanumeric() || b == b'_'
}
token! {
    /// What a node calls itself.
    NodeName: up to 64 of "A-Z a-z 0-9 _ -", |b| b.is_ascii_alphanumeric() || b"_-".contains(&b)
}
token! {
    /// The name of a JetStream domain.
    DomainName: up to 64 of "A-Z a-z 0-9 _ -", |b| b.is_ascii_alphanumeric() || b"_-".contains(&b)
}
token! {
    /// The name of a cluster of servers.
    ClusterName: up to 64 of "A-Z a-z 0-9 _ - .", |b| b.is_ascii_alphanumeric() || b"_-.".contains(&b)
}
token! {
    /// Tags of servers, with commas between them.
    ServerTags: up to 200 of "A-Z a-z 0-9 _ - . : ,", |b| b.is_ascii_alphanumeric() || b"_-.:,".contains(&b)
}

impl ServerTags {
    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.split(',').filter(|tag| !tag.is_empty())
    }
}
