//! The program, end to end: real processes, real servers, killed and cut off where it hurts.
//!
//! One test binary, so that all of it is linked once and runs at once. Nothing here looks inside of the program: what
//! counts is its command line, its HTTP, its files, and what it leaves at the broker.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod bad_days;
mod configuration;
mod distance;
mod doctor;
mod executors;
mod flat_memory;
mod following;
mod http;
mod knobs;
mod lives;
mod once;
mod open_runs;
mod outputs;
mod resume;
mod rollback;
mod run;
mod sharing;
mod signals;
mod spool;
#[path = "../support/support.rs"]
mod support;
