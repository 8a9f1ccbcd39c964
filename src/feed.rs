//! Jobs out of a file or standard input: lines, cut into segments of batches, in flat memory.
//!
//! A *segment* is a stretch of the input that is planned, published and collected as a whole. Where segments end
//! depends on size and, for a pipe that pauses, on time; a resumed run is told where they ended before (a
//! [`Plan`]) and cuts them the same way, so that the same jobs get the same ids.

mod chunks;
mod cutter;
mod dispatch;
mod file_id;
mod lines;

use std::io::Read;

pub use cutter::{BadLine, CutBatch, Cutter, Due, FeedError, Plan, Segment, Span};
#[doc(hidden)]
pub use dispatch::cut_here;
pub use dispatch::{Wire, cut_ahead, publish};
pub use file_id::FileId;

/// Where the jobs come from.
pub struct Input {
    /// What it is called: the same name, the same run.
    pub name: String,
    /// Its size in bytes, if known.
    pub size: Option<u64>,
    /// Which file it is, if it is one: results must not go there.
    pub file: Option<FileId>,
    /// The lines.
    pub reader: Box<dyn Read + Send>,
}
