//! End-to-end benchmarks: `cargo run --release -p wf-bench -- NAME`.

fn main() {}
