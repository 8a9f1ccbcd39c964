//! A question that is not answered yet, and who waits for its answer.

use std::time::Instant;

use async_nats::Message;
use tokio::sync::oneshot;

use super::{Answered, NobodyThere, Part, Unanswered};
use crate::consume::Origin;

/// Who waits for the answer.
pub(super) enum Answer {
    /// One who wants one message.
    One(oneshot::Sender<Result<Answered, Unanswered>>),
    /// One who wants several.
    Many { so_far: Vec<Message>, done: oneshot::Sender<Result<Answered, Unanswered>> },
    /// Nobody; it is to be sent until it is confirmed.
    Settle,
    /// Nobody; it was confirmed before the connection was lost, and is sent again in case the server has forgotten.
    Again,
    /// Nobody, and there is none.
    None,
}

impl Answer {
    /// Gives `result` to who waits for it, if somebody still does. Whether it was a settlement.
    pub(super) fn give(self, result: Result<Answered, Unanswered>) -> bool {
        match self {
            Self::One(waiting) | Self::Many { done: waiting, .. } => {
                drop(waiting.send(result));
                false
            }
            Self::Settle => true,
            Self::Again | Self::None => false,
        }
    }
}

/// The delivery that a settlement or renewal is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct About {
    pub(crate) origin: Origin,
    /// In which generation of the link it came.
    pub(crate) generation: u64,
}

/// A question.
pub(super) struct Pending {
    pub(super) ahead: Vec<Part>,
    pub(super) last: Part,
    pub(super) nobody: NobodyThere,
    pub(super) answer: Answer,
    /// What it is about, if it is about a delivery.
    pub(super) about: Option<About>,
    /// How often it had been repeated when its message was last looked up.
    pub(super) looked_at: u32,
    /// What is to be stored once a settlement is confirmed.
    pub(super) then: Option<Part>,
    /// Whether this is what was to be stored then.
    pub(super) stores: bool,
    /// The link's generation it was last sent in.
    pub(super) sent: Option<u64>,
    pub(super) tries: u32,
    /// How often it was sent again although the link was up.
    pub(super) repetitions: u32,
    /// How often nobody was there to answer since it was asked.
    pub(super) bounced: u32,
    /// When it is to be sent again, whatever happens.
    pub(super) again_at: Option<Instant>,
}

impl Pending {
    pub(super) fn new(ahead: Vec<Part>, last: Part, nobody: NobodyThere, answer: Answer) -> Self {
        Self {
            ahead,
            last,
            nobody,
            answer,
            about: None,
            looked_at: 0,
            then: None,
            stores: false,
            sent: None,
            tries: 0,
            repetitions: 0,
            bounced: 0,
            again_at: None,
        }
    }

    /// The same, about a delivery.
    pub(super) fn about(self, about: About) -> Self {
        Self { about: Some(about), ..self }
    }

    /// The same, with something to be stored once it is confirmed.
    pub(super) fn then(self, then: Option<Part>) -> Self {
        Self { then, ..self }
    }
}
