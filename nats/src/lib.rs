//! The broker contract over NATS JetStream.
//!
//! [`setup`] makes the layout (streams, buckets, the factory's settings), once for a factory; [`NatsBroker::connect`]
//! binds to it. Everything that travels is pipelined: publishes, acknowledgements and requests are sent without
//! waiting for the ones before, answered one by one, and sent again when a connection was lost before the answer came.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use wf_nats::{FactorySettings, NatsBroker, NatsOptions, OnDifference, setup};
//!
//! let options = NatsOptions::new(["nats://127.0.0.1:4222"])?;
//! setup(&options, &FactorySettings::default(), OnDifference::Refuse).await?;
//! let broker = NatsBroker::connect(options).await?;
//! # Ok(()) }
//! ```

mod acked;
mod api;
mod broker;
mod checkup;
mod clock;
mod connect;
mod connection;
mod consume;
mod control;
mod counters;
mod dead;
mod doubt;
mod exchange;
mod factory;
mod home;
mod lane_consumers;
mod layout;
mod lease;
mod link;
mod options;
mod orphans;
mod outcome_log;
mod publish;
mod pull;
mod records;
mod schedule;
mod setup;
mod source;
mod stale_logs;
#[cfg(feature = "testing")]
pub mod testing;
mod trace;
mod unserved;
mod uptime;

pub use broker::NatsBroker;
pub use checkup::{
    AccountFacts, Checkup, CheckupError, ClockReading, ConsumerFacts, Direction, LaneFacts, LayoutFacts, Rate, RatePlan, Replica,
    ServerFacts, ServerVars, StoreTimes, StreamFacts, StreamRole, SyncPolicy, Usage,
};
pub use connect::{ConnectError, Tried};
pub use counters::Counts;
pub use factory::FactorySettings;
pub use options::{LinkSettings, NatsOptions, OptionsError};
pub use setup::{Difference, OnDifference, SetupError, SetupReport, setup, setup_lanes};
