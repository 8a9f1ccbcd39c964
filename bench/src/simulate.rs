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
mod report;
mod server;
mod shrink;
mod strike;
mod truth;
mod world;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Instant;

use clap::Args;

use self::breaks::{Break, Breaks};
use self::history::History;
use self::play::play;
use self::report::Report;
use self::shrink::shrink;
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
    #[arg(long = "break", value_name = "FAULT", ignore_case = true)]
    breaks: Vec<Break>,
    /// Play each history twice, and compare.
    #[arg(long)]
    verify: bool,
    /// Print all that happens in each history.
    #[arg(long)]
    print: bool,
    /// Play the history in this file instead, and print all that happens.
    #[arg(long, value_name = "FILE")]
    replay: Option<PathBuf>,
    /// Keep the shrunk histories of seeds that fail there, for `--replay`.
    #[arg(long, value_name = "FOLDER")]
    keep: Option<PathBuf>,
    /// Stop after so many seeds that fail.
    #[arg(long, value_name = "N", default_value_t = 10)]
    failures: u64,
    /// Shrink so many of them.
    #[arg(long, value_name = "N", default_value_t = 3)]
    shrink: u64,
    /// Threads, each with a history of its own; as many as there are cores unless set.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

pub(crate) fn simulate(args: &SimulateArgs) -> anyhow::Result<()> {
    let breaks = Breaks::new(&args.breaks);
    if let Some(file) = &args.replay {
        let history: History = serde_json::from_str(&std::fs::read_to_string(file)?)?;
        return one(args, &breaks, &history);
    }
    if args.print {
        return (args.from..args.from + args.seeds).try_for_each(|seed| one(args, &breaks, &History::draw(seed)));
    }
    let began = Instant::now();
    let next = AtomicU64::new(args.from);
    let failures = AtomicU64::new(0);
    let threads = args.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let report = std::thread::scope(|scope| {
        let work = || many(args, &breaks, &next, &failures);
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut report = Report::default();
        for thread in threads {
            report.merge(thread.join().map_err(|_| anyhow::anyhow!("a thread of the simulator panicked"))??);
        }
        anyhow::Ok(report)
    })?;
    report.print(began.elapsed(), tell);
    if args.breaks.is_empty() {
        anyhow::ensure!(report.failed == 0, "{} histories broke a promise", report.failed);
        let missing = report.missing();
        anyhow::ensure!(missing.is_empty() || args.seeds < 1_000, "never happened: {}", missing.join(", "));
    } else {
        anyhow::ensure!(report.failed > 0, "the fault that was put back was not found");
    }
    Ok(())
}

/// Plays seeds until there are no more, or enough have failed.
fn many(args: &SimulateArgs, breaks: &Breaks, next: &AtomicU64, failures: &AtomicU64) -> anyhow::Result<Report> {
    let mut report = Report::default();
    loop {
        let seed = next.fetch_add(1, SeqCst);
        if seed >= args.from + args.seeds || failures.load(SeqCst) >= args.failures {
            return Ok(report);
        }
        let history = History::draw(seed);
        let outcome = play(&history, breaks, false)?;
        report.add(seed, &outcome);
        if args.verify {
            let again = play(&history, breaks, false)?;
            anyhow::ensure!(again.sum == outcome.sum, "seed {seed} is not played again exactly");
        }
        if let Some(violation) = outcome.violations.first() {
            let nth = failures.fetch_add(1, SeqCst);
            let (history, violation) =
                if nth < args.shrink { shrink(&history, breaks, violation) } else { (history, violation.clone()) };
            if nth < args.shrink {
                tell(&format!("seed {seed} broke a promise: {}: {}\n{history}", violation.what, violation.detail));
                if let Some(folder) = &args.keep {
                    std::fs::create_dir_all(folder)?;
                    std::fs::write(folder.join(format!("{seed}.json")), serde_json::to_string(&history)?)?;
                }
            }
        }
    }
}

/// Plays one history and prints all that happens.
fn one(args: &SimulateArgs, breaks: &Breaks, history: &History) -> anyhow::Result<()> {
    let outcome = play(history, breaks, true)?;
    tell(&history.to_string());
    outcome.text.iter().for_each(|line| tell(line));
    outcome.violations.iter().for_each(|violation| tell(&format!("{}: {}", violation.what, violation.detail)));
    if args.verify {
        let again = play(history, breaks, true)?;
        if let Some((one, other)) = outcome.text.iter().zip(&again.text).find(|(one, other)| one != other) {
            tell(&format!("not played again exactly:\n  {one}\n  {other}"));
        }
    }
    Ok(())
}
