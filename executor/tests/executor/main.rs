//! Whole executors over a broker in memory.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod outcomes;
mod running;
mod sharing;
mod stopping;
mod yard;
