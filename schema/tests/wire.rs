//! The wire format: what is written is read, what is not whole is refused, and the bytes stay what they are.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "wire/bombs.rs"]
mod bombs;
#[path = "wire/craft.rs"]
mod craft;
#[path = "wire/damage.rs"]
mod damage;
#[path = "wire/document.rs"]
mod document;
#[path = "wire/golden.rs"]
mod golden;
#[path = "wire/json.rs"]
mod json;
#[path = "wire/round_trip.rs"]
mod round_trip;
#[path = "wire/samples.rs"]
mod samples;
#[path = "wire/size.rs"]
mod size;
#[path = "../fuzz/targets.rs"]
#[allow(unreachable_pub)]
mod targets;
