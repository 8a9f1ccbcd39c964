//! HTTP as callers see it: a real listener, a real client, a broker that does as it is told.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bulk;
mod docs;
mod hostile;
mod idempotency;
mod jobs;
mod overload;
mod server;
mod status;
#[path = "../support/mod.rs"]
mod support;
