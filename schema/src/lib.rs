//! stub
#![allow(missing_docs)]
pub mod id;
mod lane;
mod name;
mod policy;
mod time;
pub use id::{BatchId, IdError, JobId, RunId};
pub use lane::{Lane, MAX_QUEUE_LEN, Priority, Queue};
pub use name::NameError;
pub use policy::{Backoff, Policy};
pub use time::{Millis, now};
