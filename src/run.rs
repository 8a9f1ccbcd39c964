//! Running a file of jobs to its end: publish them, run them, write one outcome for each.
//!
//! ```text
//! input -> Cutter -> Journal (planned) -> Publisher -> broker -> Executor -> outcome log
//!                       ^                                                        |
//!                       |                                                        v
//!                    settled <----------------- Results <------------------- Collector
//! ```
//!
//! Everything that must survive a crash is at the broker: the jobs, their outcomes and the journal.

mod bits;
mod collector;
mod counts;
mod destination;
mod journal;
mod line;
mod lost;
mod pipeline;
mod results;
mod summary;

pub use counts::{Counts, Unknown};
pub use destination::{Destination, ResultsError};
pub use journal::{Earlier, JournalError};
#[doc(hidden)]
pub use pipeline::run_here;
pub use pipeline::{RunError, RunOptions, run};
#[doc(hidden)]
pub use results::Outlet;
pub use summary::Summary;
