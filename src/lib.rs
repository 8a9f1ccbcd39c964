//! A distributed job factory: jobs travel in compressed, pipelined batches, over NATS JetStream or a durable broker
//! inside the process. Distance costs latency once and throughput nothing.
//!
//! This crate is the program `wf` and the one door for Rust programs: [`Factory`] connects to a broker, gives
//! [`Producer`]s that enqueue jobs and [`Executor`]s that run them through handlers of your own.
//!
//! ```
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use work_factory::{Factory, Job, JobFailure, Registry};
//!
//! async fn greet(name: String) -> Result<String, JobFailure> {
//!     Ok(format!("Hello, {name}!"))
//! }
//!
//! let factory = Factory::connect("memory://").await?;
//! let executor = factory.executor(Registry::new().register("greet", greet))?;
//! let producer = factory.producer();
//!
//! let id = producer.enqueue(Job::new("greet", &"Ada")?.store_result()).await?;
//! let outcome = factory.outcome(id, std::time::Duration::from_secs(10)).await?;
//! assert_eq!(outcome.map(|o| o.state.as_str()), Some("completed"));
//!
//! executor.drain(std::time::Duration::from_secs(5)).await;
//! # Ok(())
//! # }
//! ```

pub mod connect;
pub mod doctor;
pub mod enqueue;
mod factory;
pub mod feed;
pub mod progress;
pub mod run;
pub mod settings;
pub mod shutdown;
pub mod tuner;
mod unserved;

pub use factory::{Factory, FactoryError};
pub use tuner::{Tuned, Tuner, Tuning};
pub use wf_broker::Broker;
pub use wf_executor::{Executor, ExecutorOptions, ExecutorStats, JobContext, JobFailure, Registry, stock};
pub use wf_ingest::{Producer, ProducerOptions};
pub use wf_schema::{Backoff, BatchId, Job, JobId, Lane, Policy, Priority, Queue, State};
