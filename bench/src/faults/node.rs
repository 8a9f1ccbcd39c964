//! A process of a round: an executor, an ingest, both in one, or a producer. As in `wf`, SIGTERM drains it; it also
//! ends with its standard input, so that nothing outlives the one who started it.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use clap::{Args, ValueEnum};
use tokio::io::AsyncReadExt;
use tokio_util::sync::CancellationToken;
use wf_ingest::{HttpState, Server};
use wf_schema::config::Config;
use work_factory::{Executor, Factory, settings, shutdown};

use super::caller::Caller;
use super::handlers;
use super::journal::Journal;
use super::load::{Load, produce};
use crate::yard;

/// What a process is told.
#[derive(Args, Clone, Debug)]
pub(crate) struct FaultNodeArgs {
    role: Role,
    url: String,
    /// Where it writes down what happens.
    #[arg(long)]
    journal: PathBuf,
    /// Where HTTP is served.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// A producer's jobs, as JSON.
    #[arg(long, default_value = "")]
    mix: String,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Calls of a producer per second.
    #[arg(long, default_value_t = 10.0)]
    rate: f64,
    /// Settings, as `key=value`.
    set: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    Executor,
    Ingest,
    Serve,
    Producer,
}

pub(crate) async fn node(args: &FaultNodeArgs) -> anyhow::Result<()> {
    let stop = shutdown::token()?;
    let ended = stop.clone();
    tokio::spawn(async move {
        // Whatever comes instead of an end means the same.
        let _ended = tokio::io::stdin().read_u8().await;
        ended.cancel();
    });
    let pairs: Vec<(&str, &str)> =
        args.set.iter().map(|pair| pair.split_once('=').context("settings are key=value")).collect::<Result<_, _>>()?;
    let config = yard::config(&args.url, "local", &pairs)?;
    let factory = Box::pin(Factory::with(config.clone())).await?;
    let journal = Arc::new(Journal::open(&args.journal)?);
    match args.role {
        Role::Executor => {
            let executor = factory.executor(handlers::registry(&journal))?;
            ready(None)?;
            execute(executor, &stop).await?;
        }
        Role::Ingest => serve(&factory, &config, args.listen, &stop).await?,
        Role::Serve => {
            let executor = factory.executor(handlers::registry(&journal))?;
            // HTTP ends first: whoever has a 202 has it from a broker that is still open.
            let (served, executed) = tokio::join!(serve(&factory, &config, args.listen, &stop), execute(executor, &stop));
            served.and(executed)?;
        }
        Role::Producer => {
            let producer = factory.producer();
            ready(None)?;
            let name = args.journal.file_stem().and_then(|name| name.to_str()).unwrap_or("producer");
            let mix = serde_json::from_str(&args.mix).context("no mix of jobs")?;
            let load = Load { producer: name.to_owned(), mix, rate: args.rate, seed: args.seed };
            produce(&load, Caller::Library(producer.clone()), journal, stop).await?;
            producer.close().await?;
        }
    }
    Ok(factory.close().await?)
}

async fn execute(executor: Executor, stop: &CancellationToken) -> anyhow::Result<()> {
    let ended = stop.run_until_cancelled(executor.stopped()).await;
    let report = executor.drain(None).await;
    crate::tell(&format!("{report}; {:?}", executor.stats()));
    Ok(ended.unwrap_or(Ok(()))?)
}

async fn serve(factory: &Factory, config: &Config, listen: SocketAddr, stop: &CancellationToken) -> anyhow::Result<()> {
    let producer = factory.producer();
    let state = HttpState::new(producer.clone(), settings::http(config));
    let server = Server::bind(listen, state).await?;
    ready(Some(server.local_addr()))?;
    server.serve(stop.clone()).await;
    Ok(producer.close().await?)
}

/// Says that it works, and where.
fn ready(address: Option<SocketAddr>) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "ready {}", address.map(|address| address.to_string()).unwrap_or_default())?;
    Ok(out.flush()?)
}
