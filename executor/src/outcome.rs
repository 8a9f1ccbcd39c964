//! What became of a job in a run, before it is recorded.

use std::fmt;
use std::ops::{Deref, Range};

use bytes::Bytes;
use wf_schema::{Failure, Millis, State};

/// The jobs of a run that have ended and are not committed yet. Those of which nobody wants to hear more than that they
/// completed are mostly all of them, and neighbours: they cost no more than a range.
#[derive(Debug, Default)]
pub(crate) struct Done {
    plain: Vec<Range<u32>>,
    others: Vec<Outcome>,
}

impl Done {
    /// The job at `place` has completed, and nobody wants its result.
    pub(crate) fn completed(&mut self, place: usize) {
        let place = place as u32;
        match self.plain.last_mut() {
            Some(last) if last.end == place => last.end += 1,
            _ => self.plain.push(place..place + 1),
        }
    }

    pub(crate) fn push(&mut self, outcome: Outcome) {
        self.others.push(outcome);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.plain.is_empty() && self.others.is_empty()
    }

    /// How many have completed, if that is all there is to say.
    pub(crate) fn plain(&self) -> Option<u64> {
        self.others.is_empty().then(|| self.plain.iter().map(|range| range.len() as u64).sum())
    }

    /// All of them, one by one.
    pub(crate) fn into_outcomes(self) -> Vec<Outcome> {
        let plain = self.plain.into_iter().flatten().map(|place| Outcome::completed(place as usize, Bytes::new()));
        plain.chain(self.others).collect()
    }
}

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
    fn neighbours_that_complete_are_a_range() {
        let mut done = Done::default();
        assert!(done.is_empty());
        [0, 1, 2, 7, 4, 5].into_iter().for_each(|place| done.completed(place));
        assert_eq!((done.plain(), done.plain.len()), (Some(6), 3));
        done.push(Outcome::completed(6, Bytes::from_static(b"1")));
        assert_eq!(done.plain(), None);
        let places: Vec<u32> = done.into_outcomes().iter().map(|outcome| outcome.place).collect();
        assert_eq!(places, [0, 1, 2, 7, 4, 5, 6]);
    }

    #[test]
    fn an_answer_says_what_it_was_made_of() {
        for length in [0, 1, SHORT - 1, SHORT, SHORT + 1, 1_000] {
            let bytes = Bytes::from(vec![7; length]);
            assert_eq!(&*Answer::from(bytes.clone()), &*bytes);
        }
        assert!(size_of::<Answer>() <= size_of::<Bytes>());
    }
}
