//! Jobs, batches, outcomes: what they are, how they look on the wire and in JSON, and how a factory is configured.
//! No network.
//!
//! A *job* is a kind, its args and a policy. Jobs of one *lane* (queue and priority) travel together as a *batch*: one
//! compressed message. What became of each attempt, its *outcome*, travels back in batches too, as a *record*.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use wf_schema::{Batch, BatchBuilder, BatchId, Format, Header, Job, Limits};
//!
//! let limits = Limits::default();
//! let job = Job::from_json(br#"{"kind": "math_add", "args": {"a": 2, "b": 3}}"#, &limits)?;
//!
//! let mut open = BatchBuilder::new(Header::new(BatchId::new(), Format::Json));
//! open.push(&job)?;
//! let message = open.encode();
//!
//! let batch = Batch::decode(&message, &limits)?;
//! let read = batch.get(0).ok_or("empty")?;
//! assert_eq!((read.kind().as_str(), read.args()), ("math_add", &br#"{"a": 2, "b": 3}"#[..]));
//! # Ok(())
//! # }
//! ```

mod batch;
mod column;
pub mod config;
mod dead;
mod form;
mod frame;
mod id;
mod job;
mod kind;
mod lane;
mod limits;
mod name;
mod outcome;
mod policy;
mod record;
mod run_times;
#[doc(hidden)]
pub mod stand_in;
mod table;
mod time;

pub use batch::{BadItem, Batch, BatchBuilder, Header, JobView, JsonBatch, PushError};
pub use dead::{DeadLetter, Remains};
pub use frame::{OLDEST, VERSION, WireError};
pub use id::{BatchId, IdError, JobId, RunId};
pub use job::{Format, Job, JobError};
pub use kind::{Kind, MAX_KIND_LEN};
pub use lane::{Lane, MAX_QUEUE_LEN, Priority, Queue};
pub use limits::Limits;
pub use name::NameError;
pub use outcome::{Failure, PastFailure, State};
pub use policy::{Backoff, Policy};
pub use record::{Mark, OutcomeView, Record, RecordBuilder, RecordHeader};
pub use run_times::{RunTime, RunTimes};
pub use time::{Millis, follow_clock, now};
