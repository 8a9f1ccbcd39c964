//! Dead letters: jobs that will not be tried again by themselves, and messages that are no jobs at all.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{Batch, Failure, Lane, Limits, Millis, WireError, frame};

/// What a dead letter has beside the message that died, at most, in bytes.
const BESIDE: usize = 64 * 1024;

/// A dead letter: what died, where, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// The lane it was taken from.
    pub lane: Lane,
    /// When it died.
    pub at: Millis,
    /// The executor that gave it up.
    pub executor: String,
    /// What is left of it.
    pub remains: Remains,
}

/// What is left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Remains {
    /// Jobs, as an enveloped batch: each with its attempts and with its failures as history, the last of which is why
    /// it died.
    Jobs(Bytes),
    /// A message, or a part of one, that could not be read as jobs: what is wrong, and the bytes as they came.
    Raw {
        /// Why it could not be read.
        failure: Failure,
        /// The bytes as they came.
        bytes: Bytes,
    },
}

impl DeadLetter {
    /// The letter as one message.
    pub fn encode(&self) -> Bytes {
        frame::seal(&frame::write(self, vec![frame::Content::DeadLetter as u8]))
    }

    /// Reads an enveloped dead letter.
    ///
    /// # Errors
    /// When the message is not a whole dead letter of a version this program knows, within `limits`.
    pub fn decode(message: &Bytes, limits: &Limits) -> Result<Self, WireError> {
        // What died may have been as large as a message can be: its letter is a little larger.
        let limits = Limits { raw_bytes: limits.raw_bytes.saturating_add(BESIDE), ..*limits };
        frame::read(&frame::open(message, frame::Content::DeadLetter, &limits)?, "a dead letter")
    }

    /// The jobs that died, if they could be read at all.
    ///
    /// # Errors
    /// When the batch inside is damaged.
    pub fn jobs(&self, limits: &Limits) -> Result<Option<Batch>, WireError> {
        match &self.remains {
            Remains::Jobs(message) => Batch::decode(message, limits).map(Some),
            Remains::Raw { .. } => Ok(None),
        }
    }
}
