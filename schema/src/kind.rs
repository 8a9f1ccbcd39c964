//! The kind of a job: which handler runs it.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::name::{NameError, checked};

/// The longest kind, in bytes.
pub const MAX_KIND_LEN: usize = 128;

/// The characters a kind may have beside ASCII letters and digits.
const ALSO: &str = "_-.:/";

/// A kind of job: 1 to 128 of `A-Z a-z 0-9 _ - . : /`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Kind(Arc<str>);

impl Kind {
    /// The kind called `name`.
    ///
    /// # Errors
    /// When the name is empty, too long, or has another character than those allowed.
    pub fn new(name: &str) -> Result<Self, NameError> {
        checked("kind", name, MAX_KIND_LEN, ALSO).map(Self)
    }

    /// Whether `name` may be a kind, without keeping it.
    ///
    /// # Errors
    /// As [`Kind::new`].
    pub fn check(name: &str) -> Result<(), NameError> {
        crate::name::check("kind", name, MAX_KIND_LEN, ALSO)
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Kind {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Kind {
    type Error = NameError;

    fn try_from(name: String) -> Result<Self, NameError> {
        Self::new(&name)
    }
}

impl From<Kind> for String {
    fn from(kind: Kind) -> Self {
        kind.0.as_ref().to_owned()
    }
}

impl FromStr for Kind {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        Self::new(name)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}
