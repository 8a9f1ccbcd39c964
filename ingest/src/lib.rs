//! Takes jobs from people and publishes them as batches.
//!
//! From the bottom up: a [`Publisher`] puts batches into the broker, pipelined within a [`Window`]; a [`Producer`]
//! gathers the jobs of many callers into batches, and answers each once its batch is durable; a [`Server`] takes jobs
//! over HTTP and hands them to a producer. Everything is bounded, and who finds no room is told when to come back.

mod batcher;
mod breaker;
mod envelope;
mod error;
mod group;
mod http;
mod options;
mod outcome;
mod parcel;
mod producer;
mod publisher;
mod receipt;
mod run_times;
mod schedule;
mod spool;
mod tally;

pub use error::{EnqueueError, PublishError};
pub use http::{HttpState, ServeError, Server};
pub use options::{BatchOptions, HttpOptions, Patience, ProducerOptions, RunTimes};
pub use outcome::{Outcome, outcome, wait_for_outcome};
pub use producer::{Pace, PaceSetter, Producer, Submitted};
pub use publisher::{Again, Fate, Published, Publisher, PublisherStats, Sending};
pub use receipt::{Receipt, StoredIn};
pub use run_times::MeasuredRunTimes;
#[doc(hidden)]
pub use spool::{Change as SpoolChange, Space as SpoolSpace, Store as SpoolStore};
pub use spool::{Spool, SpoolError, SpoolOptions, SpoolStats};
pub use tally::IdRange;
pub use wf_broker::Window;
