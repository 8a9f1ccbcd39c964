//! A simulator of whole factories: the real pipeline over a simulated broker, on one thread, in a time that waits for
//! nobody.
//!
//! One seed is one *history*: what people ask for, and everything that goes wrong meanwhile. It is played again exactly,
//! whoever plays it. Afterwards everything heals and comes to rest, and every promise of docs/guarantees.md is checked
//! against the truth, which the simulation knows.

mod breaks;
mod broker;
mod clock;
mod disk;
mod draw;
mod history;
mod job;
mod node;
mod play;
mod server;
mod strike;
mod truth;
mod world;

use std::time::Instant;

use clap::Args;

use self::breaks::{Break, Breaks};
use self::history::History;
use self::play::play;
use crate::tell;

/// What `wf-bench simulate` understands.
#[derive(Args, Clone, Debug)]
pub(crate) struct SimulateArgs {
    /// How many histories to play.
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    seeds: u64,
    /// The first seed.
    #[arg(long, value_name = "S", default_value_t = 0)]
    from: u64,
    /// Put a known fault back, and expect it to be found; may be given more than once.
    #[arg(long = "break", value_name = "FAULT")]
    breaks: Vec<Break>,
    /// Play each history twice, and compare.
    #[arg(long)]
    verify: bool,
    /// Print all that happens.
    #[arg(long)]
    print: bool,
}

pub(crate) fn simulate(args: &SimulateArgs) -> anyhow::Result<()> {
    let breaks = Breaks::new(&args.breaks);
    let began = Instant::now();
    let mut failed = 0;
    for seed in args.from..args.from + args.seeds {
        let history = History::draw(seed);
        let outcome = play(&history, &breaks, args.print)?;
        if args.print {
            tell(&history.to_string());
            outcome.text.iter().for_each(|line| tell(line));
        }
        if args.verify {
            let again = play(&history, &breaks, false)?;
            if again.sum != outcome.sum {
                tell(&format!("seed {seed} is not played again exactly"));
            }
        }
        if let Some(violation) = outcome.violations.first() {
            failed += 1;
            tell(&format!("seed {seed}: {}: {}", violation.what, violation.detail));
        }
    }
    tell(&format!("{} seeds, {failed} failed, {:.1} ms each", args.seeds, began.elapsed().as_secs_f64() * 1e3 / args.seeds as f64));
    anyhow::ensure!(failed == 0, "{failed} histories broke a promise");
    Ok(())
}
