//! A nats-server and a delaying link, for tests: of this crate, and of those that stand on it.
//!
//! Everything here panics when it cannot do as asked: it is part of a test.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cluster;
mod fetch;
mod leaf;
mod proxy;
mod server;

pub use cluster::TestCluster;
pub use fetch::nats_server;
pub use leaf::TestLeaf;
pub use proxy::{Conditions, DelayProxy, Stalls, Way};
pub use server::{ServerOptions, StoreCopy, TestServer};
