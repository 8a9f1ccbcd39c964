//! What became of a job in a run, before it is recorded.

use std::fmt;
use std::ops::Deref;

use bytes::Bytes;
use wf_schema::{Failure, Millis, State};

/// The outcome of the job at one place of a [`crate::intake::Work`].
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) place: u32,
    pub(crate) end: End,
}

/// How it ended. Small for the many that complete, boxed for the few that do not.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum End {
    /// With this result, empty if nobody wants it.
    Completed(Answer),
    /// In another way.
    Otherwise(Box<Otherwise>),
}

/// A result as it waits for its record. A short one is copied, so that the memory that it came in is free for the next
/// job's: thousands of them at once are what makes an allocator slow.
#[derive(Clone, PartialEq)]
pub(crate) enum Answer {
    Short(u8, [u8; SHORT]),
    Long(Bytes),
}

/// The most bytes of a short result: as many as cost no more room than a long one.
const SHORT: usize = 23;

impl From<Bytes> for Answer {
    fn from(bytes: Bytes) -> Self {
        let mut short = [0; SHORT];
        match short.get_mut(..bytes.len()) {
            Some(room) => {
                room.copy_from_slice(&bytes);
                Self::Short(bytes.len() as u8, short)
            }
            None => Self::Long(bytes),
        }
    }
}

impl Deref for Answer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Short(length, bytes) => bytes.get(..usize::from(*length)).unwrap_or_default(),
            Self::Long(bytes) => bytes,
        }
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Answer").field(&&**self).finish()
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Otherwise {
    pub(crate) state: State,
    pub(crate) failure: Option<Failure>,
    pub(crate) retry_at: Option<Millis>,
}

impl Outcome {
    pub(crate) fn completed(place: usize, result: Bytes) -> Self {
        Self { place: place as u32, end: End::Completed(result.into()) }
    }

    pub(crate) fn otherwise(place: usize, state: State, failure: Option<Failure>, retry_at: Option<Millis>) -> Self {
        Self { place: place as u32, end: End::Otherwise(Box::new(Otherwise { state, failure, retry_at })) }
    }

    pub(crate) fn state(&self) -> State {
        match &self.end {
            End::Completed(_) => State::Completed,
            End::Otherwise(otherwise) => otherwise.state,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_what_it_was_made_of() {
        for length in [0, 1, SHORT - 1, SHORT, SHORT + 1, 1_000] {
            let bytes = Bytes::from(vec![7; length]);
            assert_eq!(&*Answer::from(bytes.clone()), &*bytes);
        }
        assert!(size_of::<Answer>() <= size_of::<Bytes>());
    }
}
