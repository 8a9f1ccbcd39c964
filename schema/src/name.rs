//! Names that people choose: what they may contain, and what a wrong one is told.

use std::sync::Arc;

/// A name that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} `{text}` is not valid: expected {expected}")]
pub struct NameError {
    what: &'static str,
    text: String,
    expected: String,
}

impl NameError {
    pub(crate) fn new(what: &'static str, text: &str, expected: impl Into<String>) -> Self {
        // What came from outside is cut before it is shown back.
        Self { what, text: text.chars().take(80).collect(), expected: expected.into() }
    }
}

/// Refuses `text` unless it has 1 to `max` bytes, all ASCII letters, digits or one of `also`.
pub(crate) fn check(what: &'static str, text: &str, max: usize, also: &str) -> Result<(), NameError> {
    let fits =
        !text.is_empty() && text.len() <= max && text.bytes().all(|b| b.is_ascii_alphanumeric() || also.as_bytes().contains(&b));
    if fits { Ok(()) } else { Err(NameError::new(what, text, format!("1 to {max} characters of A-Z a-z 0-9 {also}"))) }
}

/// `text`, if [`check`] lets it pass.
pub(crate) fn checked(what: &'static str, text: &str, max: usize, also: &str) -> Result<Arc<str>, NameError> {
    check(what, text, max, also).map(|()| text.into())
}
