//! The benches that span crates; each crate has those of its own parts beside it.
//!
//! - `cargo bench -p wf-bench --bench codec`: jobs into messages and back, beside what lz4 and serde_json take.
//! - `cargo bench -p wf-bench --bench pipeline`: from the producer's call to the acknowledged batch, in one process.
