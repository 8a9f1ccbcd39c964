//! What stores and delivers batches.
//!
//! The *contract* is a handful of small traits by role, and [`Broker`] is all of them together. The pipeline
//! (ingest, executor) knows these traits and nothing of any broker.

#[cfg(feature = "conformance")]
pub mod conformance;
mod contract;
mod embedded;
mod episode;
mod error;
mod keyspaces;
pub mod link;
mod own_folder;
mod window;

pub use contract::{
    BoxFuture, Broker, Buried, Consume, Control, Cron, DeadLetters, DeadPage, DeadStats, Delivery, DeliverySource, Entry, Fired,
    Hint, Identity, Key, KeyError, KeyedRecords, LaneStats, Lease, LogEnd, LoggedRecord, LoggedRun, Message, OutcomeLog, Publish,
    Revision, RunLog, Schedule, Scheduled, Stored, TRACE_SLACK, Trace, Traced, Traces, Unserved, Version,
};
pub use embedded::{Embedded, EmbeddedOptions, OpenError, OptionsError};
pub use episode::Episode;
pub use error::{BrokerError, Cause, Result};
pub use keyspaces::{Change, DiskError, Durability, KeyRange, KeyspaceLayout, Keyspaces, KeyspacesError, Layout, Room};
pub use own_folder::{OwnError, OwnFolder};
pub use window::{Gate, Pass, WeakGate, Window};
