//! Asking how a factory is: what its broker is like, what the link to it carries, and what a person should change.
//!
//! Measuring and judging are apart: what is found out stands in [`Measured`] and in facts of `wf_nats`, what is made of
//! it follows by pure functions, one file a check. Nothing is stored in a lane; what is written to the broker is one
//! small record that removes itself.

mod check;
mod disk;
mod embedded;
mod examination;
mod finding;
mod host;
mod judge;
mod measured;
mod monitor;
mod nats;
mod report;
mod round_trips;
mod steps;
mod units;
mod verdict;

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use wf_schema::config::{ConfigError, Loaded, Loader};

pub use check::{Check, UnknownCheck};
pub use finding::Finding;
pub use measured::{ClockNumbers, LinkNumbers, Measured, ProfileNames, RateNumbers, SyncNumbers, WindowNumbers};
pub use monitor::{Monitor, NoMonitor};
pub use report::{Counts, Ended, Report};
pub use round_trips::RoundTrips;
pub use verdict::Verdict;

use self::examination::Examination;
use self::steps::Steps;
use crate::progress::Show;

/// What to ask, and for how long.
#[derive(Clone, Debug)]
pub struct Questions {
    /// The checks; empty is all of them.
    pub only: Vec<Check>,
    /// Where servers tell what only their operators may know.
    pub monitors: Vec<Monitor>,
    /// Whether the link may be filled to measure what it carries.
    pub rate: bool,
    /// How long it may take in all.
    pub within: Duration,
}

/// Looks a factory over, as the configuration that `loader` has `loaded` says where it is. What is found until `stop`,
/// or until the time is over, is told.
pub async fn examine(loader: &Loader, loaded: &Loaded, questions: &Questions, show: Show, stop: &CancellationToken) -> Report {
    let began = Instant::now();
    let mut examination = Examination::new(loader, loaded, questions, Steps::new(show));
    // What it holds is let go of by being dropped, whenever that is.
    let ended = tokio::select! {
        () = Box::pin(examination.run()) => Ended::Complete,
        () = stop.cancelled() => Ended::Interrupted,
        () = tokio::time::sleep(questions.within) => Ended::TimedOut,
    };
    examination.report().ended(ended, began.elapsed())
}

/// What there is to say when the configuration cannot be used.
pub fn wrong_configuration(error: &ConfigError) -> Report {
    Report::new(None, None, vec![judge::config::wrong(error)], Measured::default())
}
