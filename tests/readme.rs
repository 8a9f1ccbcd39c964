//! Every command in README.md runs: one test a section, named by its heading.
//!
//! What runs is the fenced blocks marked `sh`, from top to bottom. Each block is one `bash -euo pipefail` in a directory
//! that looks like the repository's (a link for each of its entries) but belongs to the section alone, so `.wf/` and
//! output files are nobody else's. Variables do not outlive a block; files and servers do, until the section's end.
//!
//! A section is a heading of any level with the blocks up to the next heading. The servers started in a section also
//! run, anew, in the sections nested below it: `### With the nats CLI` below `## Over JetStream` need not start them.
//!
//! A comment right above a block says what is special about it; clauses are separated by semicolons:
//!
//! ```text
//! <!-- test: background; ready http://127.0.0.1:8080/readyz -->
//! ```
//!
//! | clause | meaning |
//! | --- | --- |
//! | `background` | each command of the block is a server: started, left running, stopped by SIGTERM at the section's end, when it must still run and then exit with 0 |
//! | `ready URL` | go on when `http://HOST:PORT/PATH` answers 2xx, or `tcp://HOST:PORT` accepts a connection |
//! | `until TEXT` | go on when each server of the block has printed TEXT, on either stream |
//! | `needs TOOL ...` | the section shows as ignored where TOOL is not there; `nats` is installed with Go where that is there |
//! | `exit N` | the block ends with exit code N instead of 0 |
//! | `prints TEXT` | what the block prints, on either stream, contains TEXT |
//! | `skip WHY` | the block does not run, and shows as ignored with its reason: for what no test machine has |
//!
//! What differs from a reader's terminal: `cargo run --release -- ARGS` and `wf ARGS` are the program that cargo built for
//! this test, `cargo run --release --example NAME` the example; `nats-server` is the one that all tests use. The ports
//! 8080, 8081, 4222 and 8222 are replaced by free ones, each the same in a whole section, also where commands use them by
//! default.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "readme/document.rs"]
mod document;
#[path = "readme/process.rs"]
mod process;
#[path = "readme/stage.rs"]
mod stage;
#[path = "readme/tools.rs"]
mod tools;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use libtest_mimic::{Arguments, Completion, Failed, Trial};

use document::{Block, Document, Section};
use process::{Ended, Process};
use stage::Stage;

/// How long one block may run. The longest builds nothing and takes seconds; the rest is for slow machines.
const BLOCK_TIMEOUT: Duration = Duration::from_secs(180);
/// How long a server may take until it is ready.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a server may take to stop: more than the drain deadline of an executor.
const STOP_TIMEOUT: Duration = Duration::from_secs(45);

/// How many lines a reader sees first.
const FIRST_SCREEN: usize = 30;
/// The two commands that are all a newcomer needs.
const FIRST_COMMANDS: [&str; 2] = ["cargo run --release -- run examples/jobs.ndjson", "cargo test --workspace"];

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));

    let mut trials = document::tests::trials();
    trials.extend(stage::tests::trials());
    match Document::parse(&text) {
        Ok(document) => trials.extend(readme(document)),
        Err(problems) => trials.push(Trial::test("README.md is well marked", move || Err(problems.into()))),
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn readme(document: Document) -> Vec<Trial> {
    let first = document.sections.first().map(|section| section.blocks.clone()).unwrap_or_default();
    let mut trials = vec![Trial::test("the first screen has the two commands", move || {
        let commands: Vec<String> = first.iter().flat_map(Block::commands).collect();
        if commands != FIRST_COMMANDS || first.iter().any(|block| block.line > FIRST_SCREEN) {
            return Err(
                format!("the first section has {commands:#?} instead of {FIRST_COMMANDS:#?} in {FIRST_SCREEN} lines").into()
            );
        }
        Ok(())
    })];
    for section in document.sections {
        for block in section.blocks.iter().filter(|block| block.skip.is_some()) {
            let reason = block.skip.clone().unwrap_or_default();
            let name = format!("{}, line {}", section.title, block.line);
            trials.push(Trial::ignorable_test(name, move || Ok(Completion::ignored_with(reason))));
        }
        if section.blocks.iter().any(|block| block.skip.is_none()) {
            trials.push(Trial::ignorable_test(section.title.clone(), move || act(&section)));
        }
    }
    trials
}

/// Runs a section: the servers around it, then its blocks, then the servers' end.
fn act(section: &Section) -> Result<Completion, Failed> {
    for tool in section.running().flat_map(|block| &block.needs) {
        if !tools::is_there(tool) {
            return Ok(Completion::ignored_with(format!("{tool} is not there")));
        }
    }
    let stage = Stage::new(section)?;
    let mut servers = Vec::new();
    let played = section.running().try_for_each(|block| play(block, &stage, &mut servers));
    let stopped = servers.into_iter().rev().map(stop).fold(Ok(()), Result::and);
    played.and(stopped)?;
    stage.leave();
    Ok(Completion::Completed)
}

fn play(block: &Block, stage: &Stage, servers: &mut Vec<Process>) -> Result<(), String> {
    if block.background {
        for command in block.commands() {
            servers.push(stage.start(&command, block.line)?);
        }
    } else {
        let mut process = stage.start(&block.text, block.line)?;
        let ended = process.wait(BLOCK_TIMEOUT).ok_or_else(|| process.report("has not ended in time"))?;
        if ended != Ended::Code(block.exit) {
            return Err(around(process.report(&format!("ended with {ended} instead of {}", block.exit)), servers));
        }
        for text in &block.prints {
            // Ports are others here, also in what is printed.
            if !process.output().contains(&stage.localised(text)) {
                return Err(process.report(&format!("has not printed `{text}`")));
            }
        }
    }
    for probe in &block.ready {
        let url = stage.localised(probe);
        if !process::eventually(READY_TIMEOUT, || process::answers(&url), || servers.iter_mut().all(Process::is_running)) {
            return Err(around(format!("line {}: {url} is not ready\n", block.line), servers));
        }
    }
    for text in &block.until {
        let own = servers.len() - block.commands().len();
        for server in &mut servers[own..] {
            let log = server.log();
            if !process::eventually(READY_TIMEOUT, || log.contains(text), || server.is_running()) {
                return Err(server.report(&format!("has not printed `{text}`")));
            }
        }
    }
    Ok(())
}

/// A failure, and what the servers around it have said.
fn around(failure: String, servers: &[Process]) -> String {
    let said: String = servers.iter().map(|server| server.report("was running beside it")).collect();
    failure + &said
}

fn stop(mut server: Process) -> Result<(), String> {
    if !server.is_running() {
        return Err(server.report("ended before it was told to"));
    }
    server.terminate();
    match server.wait(STOP_TIMEOUT) {
        Some(Ended::Code(0)) => Ok(()),
        Some(ended) => Err(server.report(&format!("was told to stop and ended with {ended}"))),
        None => Err(server.report("was told to stop and has not")),
    }
}
