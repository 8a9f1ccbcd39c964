//! A node that pulls batches and runs their jobs through handlers.
//!
//! A [`Registry`] says which handler runs which kind, an [`Executor`] serves queues with it. Jobs are settled one by
//! one and acknowledged a batch at a time; what became of them is recorded before anybody hears of it, in the order
//! that `settle` keeps.
//!
//! ```
//! use std::sync::Arc;
//!
//! use serde::Deserialize;
//! use wf_broker::Broker;
//! use wf_executor::{Executor, ExecutorError, ExecutorOptions, JobFailure, Registry};
//!
//! #[derive(Deserialize)]
//! struct Greeting {
//!     name: String,
//! }
//!
//! fn serve(broker: Arc<dyn Broker>, options: ExecutorOptions) -> Result<Executor, ExecutorError> {
//!     let registry = Registry::new().register("greet", |greeting: Greeting| async move {
//!         Ok::<_, JobFailure>(format!("Hello, {}!", greeting.name))
//!     });
//!     Executor::start(broker, registry, options)
//! }
//! ```

mod attempt;
mod bury;
mod charge;
mod context;
mod credit;
mod desk;
mod distance;
mod drain;
mod error;
mod executor;
mod failure;
mod function;
mod hand;
mod handler;
mod intake;
mod lane_loop;
#[cfg(test)]
mod model;
mod node;
mod options;
mod outcome;
mod pack;
mod patience;
mod prefetch;
mod publication;
mod quiet;
mod registry;
mod renew;
mod retry;
mod row;
mod run;
mod run_times;
mod settle;
mod stats;
pub mod stock;
mod surplus;
mod suspicion;

pub use context::JobContext;
pub use drain::DrainReport;
pub use error::ExecutorError;
pub use executor::Executor;
pub use failure::JobFailure;
pub use function::Function;
pub use handler::{Args, Attempt, Handler};
#[doc(hidden)]
pub use options::KnownFault;
pub use options::{ExecutorOptions, OptionError};
pub use prefetch::Prefetch;
pub use registry::Registry;
pub use stats::ExecutorStats;
