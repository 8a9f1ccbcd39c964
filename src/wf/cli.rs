//! The command line: what can be said, and what it means.

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use crate::flags::Flags;
use wf_schema::config::Span;
use work_factory::doctor::{Check, Monitor};

/// Runs jobs across machines that are far apart: they travel in compressed, pipelined batches, over NATS JetStream or
/// a durable broker inside this process.
///
/// Exit codes: 0 all well, 1 failed or some jobs did not complete, 2 wrong usage or configuration, 3 the broker cannot
/// be reached.
#[derive(Debug, Parser)]
#[command(name = "wf", version, max_term_width = 100, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) global: Global,
}

/// What every command takes.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// The configuration file (default: `WF_CONFIG`, then wf.toml if there is one).
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// How to print what the command has to say.
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
    /// Say nothing but results and errors.
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// The configuration given on the command line.
    #[command(flatten)]
    pub(crate) flags: Flags,
}

/// A form of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// Aligned text for people.
    Table,
    /// JSON for machines.
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a file of jobs to its end and write one outcome for each.
    Run(RunArgs),
    /// Take jobs over HTTP and run them, in one process.
    Serve,
    /// Take jobs over HTTP; executors elsewhere run them.
    Ingest,
    /// Run jobs that were enqueued elsewhere.
    Executor,
    /// Enqueue a file of jobs.
    Enqueue(EnqueueArgs),
    /// Look at the configuration.
    Config {
        #[command(subcommand)]
        command: Option<ConfigCommand>,
    },
    /// Look after the broker.
    Broker {
        #[command(subcommand)]
        command: BrokerCommand,
    },
    /// Ask how the broker and the link to it are, and what to change.
    Doctor(DoctorArgs),
    /// Print completions for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the version.
    Version,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The jobs, one JSON object a line; `-` is standard input.
    pub(crate) file: PathBuf,
    /// Where outcomes are written, one JSON object a line (default: standard output). Earlier results there are
    /// replaced; a file with anything else in it is refused.
    #[arg(long, value_name = "FILE")]
    pub(crate) results: Option<PathBuf>,
    /// Go on with a run of the same file that did not finish.
    #[arg(long, action = ArgAction::SetTrue, conflicts_with = "fresh")]
    pub(crate) resume: bool,
    /// Begin anew, forgetting a run of the same file that did not finish. Jobs it has enqueued still run.
    #[arg(long, action = ArgAction::SetTrue)]
    pub(crate) fresh: bool,
}

#[derive(Debug, Args)]
pub(crate) struct EnqueueArgs {
    /// The jobs, one JSON object a line; `-` is standard input.
    pub(crate) file: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Only these checks, separated by commas (see docs/networks.md).
    #[arg(long, value_name = "CHECKS", value_delimiter = ',')]
    pub(crate) only: Vec<Check>,
    /// Where a server tells its settings: its monitoring, http://HOST:8222, or a user of the system account,
    /// nats://USER:PASSWORD@HOST:4222. May be given for each server.
    #[arg(long, value_name = "URL")]
    pub(crate) monitor: Vec<Monitor>,
    /// Leave out what the link carries: measuring it fills the link for some seconds.
    #[arg(long)]
    pub(crate) no_rate: bool,
    /// How long it may take in all.
    #[arg(long, value_name = "TIME", default_value = "1 min")]
    pub(crate) timeout: Span,
    /// Exit with 1 for warnings too.
    #[arg(long)]
    pub(crate) strict: bool,
}

#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print every setting, with its unit and where it came from.
    Show,
    /// Print only the settings that differ from their defaults.
    Diff,
    /// Check the configuration and say nothing if it is right.
    Check,
}

#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum BrokerCommand {
    /// Make the streams and settings that a factory needs. Safe to repeat, and for many at once.
    Setup {
        /// Change what stands otherwise, instead of refusing. Nodes that run keep their lease until they connect anew.
        #[arg(long)]
        update: bool,
    },
}
