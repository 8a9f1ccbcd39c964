//! What the tests stand on: a broker that does as it is told, and HTTP in front of it.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod http;
mod puppet;

#[allow(unused_imports, reason = "each test has its own needs")]
pub use puppet::{Fault, Op, Puppet};
