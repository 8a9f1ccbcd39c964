//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::faults::FaultsArgs;
use crate::faults::node::FaultNodeArgs;
use crate::link::LinkArgs;
use crate::node::NodeArgs;
use crate::simulate::SimulateArgs;

/// End-to-end benchmarks of Work Factory.
///
/// Every benchmark starts what it needs (nats-server, links, processes), checks that each job was done, and prints a
/// table: medians and spreads of all rounds, then the ratios that are its result.
#[derive(Debug, Parser)]
#[command(name = "wf-bench", version, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) bench: Bench,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// Jobs per second over the round-trip time, by profile, with ingest and executors far from the broker.
    Sweep(Options),
    /// Jobs per second over the round-trip time, beside the design we replace and beside Faktory (needs `faktory` and
    /// `redis-server` in the PATH, or WF_FAKTORY).
    Old(Options),
    /// From the call to the handler's first line, by round-trip time: idle, and at a steady rate.
    Latency(Options),
    /// Single jobs and bulk bodies over HTTP, beside a bare handler and beside parsing alone.
    Http(Options),
    /// The pipeline beside a bare loop on the same client, synced and not, and with outcomes stored.
    Ceiling(Options),
    /// Jobs that take their time, on four executor processes.
    Slow(Options),
    /// Memory of each process while ten million jobs pile up and are drained.
    Backlog(Options),
    /// Kill, cut, stop and fill what there is while jobs flow, and count what was lost, repeated or stuck.
    Faults(FaultsArgs),
    /// Play whole factories through histories of misfortunes, in simulated time, and check every promise.
    Simulate(SimulateArgs),
    /// The link emulator alone: measured, or as a relay to what you like.
    Link(LinkArgs),
    /// A process of a benchmark.
    #[command(hide = true)]
    Node(NodeArgs),
    /// A process of a round of faults.
    #[command(hide = true)]
    FaultNode(FaultNodeArgs),
}

/// What all benchmarks understand.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Also write the report there, as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Also draw it there, as SVG, where there is something to draw.
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
    /// How often each side is measured.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: Option<u32>,
    /// Little of everything: shows that it works, and no more.
    #[arg(long)]
    pub(crate) small: bool,
    /// Only the sides whose name contains this; may be given more than once.
    #[arg(long, value_name = "TEXT")]
    pub(crate) only: Vec<String>,
}

impl Options {
    /// How often each side is measured; `usual` unless somebody said otherwise.
    pub(crate) fn rounds(&self, usual: u32) -> u32 {
        self.rounds.unwrap_or(if self.small { 1 } else { usual })
    }

    /// `small` in the small form, else `full`.
    pub(crate) fn sized<T>(&self, full: T, small: T) -> T {
        if self.small { small } else { full }
    }

    /// Whether the side called `name` is wanted.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|part| name.contains(part.as_str()))
    }
}
