//! The program `wf`: reads the command line, and has the library do it.

mod cli;
mod command;
mod exit;
mod flags;
mod log;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    command::main(cli::Cli::parse()).into()
}
