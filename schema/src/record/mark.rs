//! Marks: what a writer says about jobs beside their outcomes.

use serde::{Deserialize, Serialize};

/// Which jobs of the run the writer of a record begins once the record stands; or another way for what an earlier record
/// obliges to.
///
/// Each mark of a writer takes the place of the one before. A job that is marked and has no outcome when another writer
/// goes on with the run was with a writer who was lost: it may be why.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Mark {
    /// None: what was marked before and has no outcome was given back.
    Nothing,
    /// All that have no outcome up to this record.
    All,
    /// Those with these indexes.
    Jobs(Vec<u32>),
    /// Nothing is begun, nor given back. Of the messages that the last record with outcomes obliges to publish at once,
    /// those whose first job has one of these indexes are scheduled instead: their lane had no room, or was closed to
    /// the writer. Whoever repeats the publications must go the same way, or they would be there twice.
    Scheduled(Vec<u32>),
}
