//! A process of its own, started by a benchmark: an executor, or an ingest. It says on standard output how it is, a
//! line each, and ends when its standard input does.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;
use tokio_util::sync::CancellationToken;
use wf_ingest::{HttpState, Server};
use work_factory::{Factory, settings};

use crate::work::{self, Check, Totals};
use crate::yard;

/// How often an executor says how much is done.
const TELL: Duration = Duration::from_millis(5);

/// What a node is told.
#[derive(Args, Clone, Debug)]
pub(crate) struct NodeArgs {
    role: Role,
    url: String,
    profile: String,
    /// Settings, as `key=value`.
    set: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    Executor,
    Ingest,
}

/// What a node says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Said {
    /// It works; an ingest says where.
    Ready(Option<std::net::SocketAddr>),
    /// So many jobs were settled so far.
    Done(u64),
    /// The last word: what its handlers did.
    Totals(Totals),
}

/// Runs the node until standard input ends.
pub(crate) async fn node(args: &NodeArgs) -> anyhow::Result<()> {
    let pairs: Vec<(&str, &str)> =
        args.set.iter().map(|pair| pair.split_once('=').context("settings are key=value")).collect::<Result<_, _>>()?;
    let config = yard::config(&args.url, &args.profile, &pairs)?;
    let factory = Box::pin(Factory::with(config.clone())).await?;
    let over = CancellationToken::new();
    let end = over.clone();
    tokio::spawn(async move {
        // Whatever comes instead of an end means the same.
        let _ended = tokio::io::stdin().read_u8().await;
        end.cancel();
    });
    match args.role {
        Role::Executor => execute(&factory, over).await?,
        Role::Ingest => {
            let producer = factory.producer();
            let state = HttpState::new(producer.clone(), settings::http(&config));
            let server = Server::bind(([127, 0, 0, 1], 0).into(), state).await?;
            say(&Said::Ready(Some(server.local_addr())))?;
            server.serve(over).await;
            producer.close().await?;
        }
    }
    Ok(factory.close().await?)
}

async fn execute(factory: &Factory, over: CancellationToken) -> anyhow::Result<()> {
    let check = Arc::new(Check::default());
    let executor = factory.executor(work::registry(&check))?;
    say(&Said::Ready(None))?;
    let mut told = 0;
    while over.run_until_cancelled(tokio::time::sleep(TELL)).await.is_some() {
        let done = executor.stats().completed;
        if done > told {
            told = done;
            say(&Said::Done(done))?;
        }
    }
    executor.drain(Duration::from_secs(5)).await;
    say(&Said::Totals(check.totals()))
}

fn say(said: &Said) -> anyhow::Result<()> {
    let mut line = serde_json::to_vec(said)?;
    line.push(b'\n');
    let mut out = std::io::stdout().lock();
    out.write_all(&line)?;
    Ok(out.flush()?)
}
