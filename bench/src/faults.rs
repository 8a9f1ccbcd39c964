//! `faults`: misfortunes of every kind, many times, and the count of what came of them.
//!
//! A round is a whole factory of real processes, with jobs that flow into it over HTTP, through the library and as plain
//! JSON over the wire. Something happens to it at moments that follow from a seed; then everything must come to its end.
//! Whatever producers were told and handlers did is in journals that survive their writers, and the verdict is given
//! over those and what the broker has on record.

mod archive;
mod caller;
mod check;
mod clock;
mod disk;
mod evidence;
mod faketime;
mod handlers;
mod journal;
mod load;
pub(crate) mod node;
mod order;
mod process;
mod round;
mod scenario;
mod setup;
mod site;
mod tally;

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, ensure};
use clap::Args;
use futures::FutureExt;
use tokio::task::JoinSet;

use crate::tell;
use round::{Keep, Outcome, play};
use scenario::Scenario;
use tally::Tally;

/// What is played, how often, and from which seed.
#[derive(Args, Clone, Debug)]
pub(crate) struct FaultsArgs {
    /// Only these scenarios; all of them if none is named. `list` lists them.
    scenarios: Vec<String>,
    /// How often each is played.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    rounds: u64,
    /// Where chance begins; each round takes the next one. A round that failed is played again with its own.
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// How many rounds are played at once.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    at_once: u8,
    /// Only what is over soon, and less of it.
    #[arg(long)]
    small: bool,
    /// Also write the report there, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Where the journals of rounds with findings are kept.
    #[arg(long, value_name = "FOLDER", default_value_os_t = std::env::temp_dir())]
    keep: PathBuf,
    /// The program that nodes are: another `wf-bench`, with a `wf` beside it, to see what an older version does.
    #[arg(long, value_name = "FILE")]
    nodes: Option<PathBuf>,
    /// Keep those of all rounds.
    #[arg(long)]
    keep_all: bool,
}

/// Plays what `args` say.
///
/// # Errors
/// When a promise was broken, a round could not be played, or a scenario is not known.
pub(crate) async fn faults(args: &FaultsArgs) -> anyhow::Result<()> {
    args.nodes.clone().into_iter().for_each(process::play_with);
    let known = scenario::all();
    if args.scenarios.iter().any(|name| name == "list") {
        known.iter().for_each(|scenario| tell(&format!("{:<22} {}", scenario.name, scenario.about)));
        return Ok(());
    }
    for name in &args.scenarios {
        ensure!(known.iter().any(|scenario| scenario.name == name), "no scenario is called {name}; `faults list` lists them");
    }
    let wanted = |scenario: &Scenario| match args.scenarios.is_empty() {
        true => scenario.small || !args.small,
        false => args.scenarios.iter().any(|name| name == scenario.name),
    };
    let scenarios: Vec<Arc<Scenario>> = known.into_iter().filter(wanted).map(Arc::new).collect();
    std::fs::create_dir_all(&args.keep).with_context(|| format!("nothing can be kept in {}", args.keep.display()))?;
    let mut tally = Tally::new(args.rounds, args.seed, args.small, args.at_once);
    let mut rounds = JoinSet::new();
    tokio::select! {
        played = play_all(&scenarios, args, &mut tally, &mut rounds) => played?,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            tally.interrupted();
        }
    }
    // Every round takes its processes along; none is left when this is done.
    rounds.shutdown().await;
    tally.finish(args.json.as_deref())
}

/// A round that is over: what was played, from which seed, and what came of it.
type Played = (Arc<Scenario>, u64, anyhow::Result<Outcome>);

async fn play_all(
    scenarios: &[Arc<Scenario>],
    args: &FaultsArgs,
    tally: &mut Tally,
    rounds: &mut JoinSet<Played>,
) -> anyhow::Result<()> {
    let mut playable = Vec::new();
    for scenario in scenarios {
        match (scenario.unavailable)() {
            Some(why) => tally.skipped(scenario, why),
            None => playable.push(scenario.clone()),
        }
    }
    let progress = tally::progress(playable.len() as u64 * args.rounds);
    let mut next = (0..args.rounds).flat_map(|round| playable.iter().map(move |scenario| (scenario.clone(), round)));
    loop {
        while rounds.len() < usize::from(args.at_once)
            && let Some((scenario, round)) = next.next()
        {
            let (seed, small) = (args.seed.wrapping_add(round), args.small);
            let keep = Keep { folder: args.keep.clone(), all: args.keep_all };
            rounds.spawn(async move {
                // Whatever fails in it fails alone, also when it panics: its parts come from tests.
                let outcome = AssertUnwindSafe(Box::pin(play(&scenario, seed, small, &keep))).catch_unwind().await;
                let outcome = outcome.unwrap_or_else(|panic| Err(anyhow::anyhow!("panicked: {}", text(&*panic))));
                (scenario, seed, outcome)
            });
        }
        let Some(played) = rounds.join_next().await else { break };
        let (scenario, seed, outcome) = played.context("the harness failed")?;
        progress.inc(1);
        progress.suspend(|| tally.add(&scenario, seed, outcome));
    }
    progress.finish_and_clear();
    Ok(())
}

fn text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}
