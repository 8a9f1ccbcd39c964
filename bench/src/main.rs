//! End-to-end benchmarks of Work Factory, beside the peers and ceilings it is measured against.
//!
//! `cargo run --release -p wf-bench -- NAME`, see `--help`; docs/benchmarks.md says what each measures and what came of
//! it. The sides of a comparison take turns within one run, round after round, and a ratio is taken between sides of
//! the same round: what else the machine does meets both.
//!
//! Parts of single crates have criterion benches beside them. Two that span crates are here:
//! `cargo bench -p wf-bench --bench codec` (jobs into messages and back, beside what lz4 and serde_json take) and
//! `--bench pipeline` (from the producer's call to the acknowledged batch, in one process).

mod backlog;
mod ceiling;
mod cli;
mod faults;
mod format;
mod http;
mod latency;
mod link;
mod machine;
mod node;
mod nodes;
mod old;
mod plot;
mod report;
mod rounds;
mod simulate;
mod slow;
mod sweep;
mod work;
mod yard;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Bench, Cli};

fn main() -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt().with_env_filter(filter(&cli.bench)).with_writer(std::io::stderr).init();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// `RUST_LOG`, or only what goes wrong; that a server which was killed cannot be reached is not.
fn filter(bench: &Bench) -> tracing_subscriber::EnvFilter {
    // In a simulation everything goes wrong all the time.
    let usual = if matches!(bench, Bench::Simulate(_)) { "off" } else { "error,async_nats=off" };
    tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| usual.into())
}

fn run(cli: Cli) -> anyhow::Result<()> {
    if let Bench::Simulate(args) = &cli.bench {
        // Each history has a runtime of its own.
        return simulate::simulate(args);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(async {
        match cli.bench {
            Bench::Sweep(options) => Box::pin(sweep::sweep(&options)).await,
            Bench::Old(options) => Box::pin(old::old(&options)).await,
            Bench::Latency(options) => Box::pin(latency::latency(&options)).await,
            Bench::Http(options) => Box::pin(http::http(&options)).await,
            Bench::Ceiling(options) => Box::pin(ceiling::ceiling(&options)).await,
            Bench::Slow(options) => Box::pin(slow::slow(&options)).await,
            Bench::Backlog(options) => Box::pin(backlog::backlog(&options)).await,
            Bench::Faults(args) => Box::pin(faults::faults(&args)).await,
            Bench::Simulate(_) => Ok(()),
            Bench::Link(args) => Box::pin(link::link(&args)).await,
            Bench::Node(args) => Box::pin(node::node(&args)).await,
            Bench::FaultNode(args) => Box::pin(faults::node::node(&args)).await,
        }
    });
    // Nothing that is still on its way matters once the report is written.
    runtime.shutdown_background();
    outcome
}

/// A line for whoever watches.
fn tell(line: &str) {
    use std::io::Write;
    // Nobody may be there to read it.
    let _unheard = writeln!(std::io::stderr(), "{line}");
}
