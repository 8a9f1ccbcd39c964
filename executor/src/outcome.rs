//! What became of a job in a run, before it is recorded.

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
    Completed(Bytes),
    /// In another way.
    Otherwise(Box<Otherwise>),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Otherwise {
    pub(crate) state: State,
    pub(crate) failure: Option<Failure>,
    pub(crate) retry_at: Option<Millis>,
}

impl Outcome {
    pub(crate) fn completed(place: usize, result: Bytes) -> Self {
        Self { place: place as u32, end: End::Completed(result) }
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
