//! What a type must do to be the value of a knob. Every source, also TOML's numbers, comes as text.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::{Size, Span};
use crate::Queue;

/// The type of a knob's value.
pub(crate) trait Setting: Sized {
    /// What a text must be to be one; ends a sentence that starts with "expected".
    const EXPECTED: &'static str;
    /// Whether it is a list, written in TOML as an array and elsewhere with commas.
    const LIST: bool = false;

    /// The value that `text` means.
    fn parse(text: &str) -> Option<Self>;

    /// The value as people read it, without secrets; where there are none, [`Setting::parse`] reads it back.
    fn shown(&self) -> String;

    /// How much it is, in the smallest unit, if it has limits.
    fn measure(&self) -> Option<u64> {
        None
    }
}

impl Setting for Size {
    const EXPECTED: &'static str = Self::EXPECTED;

    fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn shown(&self) -> String {
        self.to_string()
    }

    fn measure(&self) -> Option<u64> {
        Some(self.bytes())
    }
}

impl Setting for Duration {
    const EXPECTED: &'static str = Span::EXPECTED;

    fn parse(text: &str) -> Option<Self> {
        text.parse::<Span>().ok().map(Self::from)
    }

    fn shown(&self) -> String {
        Span::from(*self).to_string()
    }

    fn measure(&self) -> Option<u64> {
        Some(Span::from(*self).micros())
    }
}

impl Setting for u32 {
    const EXPECTED: &'static str = "a whole number, e.g. `50`";

    fn parse(text: &str) -> Option<Self> {
        super::quantity::parse(text, &[("", 1)])?.try_into().ok()
    }

    fn shown(&self) -> String {
        self.to_string()
    }

    fn measure(&self) -> Option<u64> {
        Some(u64::from(*self))
    }
}

impl Setting for SocketAddr {
    const EXPECTED: &'static str = "an IP address and a port, e.g. `127.0.0.1:8080`";

    fn parse(text: &str) -> Option<Self> {
        text.trim().parse().ok()
    }

    fn shown(&self) -> String {
        self.to_string()
    }
}

impl Setting for PathBuf {
    const EXPECTED: &'static str = "a path";

    fn parse(text: &str) -> Option<Self> {
        (!text.is_empty() && !text.contains('\0')).then(|| text.into())
    }

    fn shown(&self) -> String {
        self.display().to_string()
    }
}

impl Setting for Vec<Queue> {
    const EXPECTED: &'static str =
        "queue names, each 1 to 64 of A-Z a-z 0-9 _ - and named once, e.g. `default` or `mail,reports`";
    const LIST: bool = true;

    fn parse(text: &str) -> Option<Self> {
        let mut queues = Self::new();
        for name in text.split(',') {
            let queue = Queue::new(name.trim()).ok()?;
            if queues.contains(&queue) || queues.len() == 1_000 {
                return None;
            }
            queues.push(queue);
        }
        Some(queues)
    }

    fn shown(&self) -> String {
        self.iter().map(Queue::as_str).collect::<Vec<_>>().join(",")
    }
}

/// How a setting without a value is written.
pub(super) const UNSET: &str = "unset";

impl<T: Setting> Setting for Option<T> {
    const EXPECTED: &'static str = T::EXPECTED;
    const LIST: bool = T::LIST;

    fn parse(text: &str) -> Option<Self> {
        if text.is_empty() || text == UNSET { Some(None) } else { T::parse(text).map(Some) }
    }

    fn shown(&self) -> String {
        self.as_ref().map_or_else(|| UNSET.to_owned(), T::shown)
    }

    fn measure(&self) -> Option<u64> {
        self.as_ref().and_then(T::measure)
    }
}
