//! Marks: which jobs a writer is about to begin.

use serde::{Deserialize, Serialize};

/// Which jobs of the run the writer of a record begins once the record stands.
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
}
