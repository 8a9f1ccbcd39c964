//! The commands of the program. Each is a file; this one has what they share: configuration, runtime, and what is
//! said when one fails.

mod broker;
mod config;
mod doctor;
mod enqueue;
mod executor;
mod ingest;
mod run;
mod serve;

use std::error::Error;
use std::fmt;
use std::io::Write;
use std::sync::Arc;

use clap::CommandFactory;
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use wf_broker::{Broker, BrokerError, OpenError};
use wf_schema::config::{Config, ConfigError, Loaded, Loader};

use crate::cli::{Cli, Command, Global, Output};
use crate::exit::Exit;
use crate::log;
use work_factory::connect::{BrokerUnavailable, Fitted, Layout, Refusal, fit, fit_soon};
use work_factory::progress::Show;
use work_factory::shutdown;
use work_factory::tuner::Tuner;

/// Does what the command line says.
pub(crate) fn main(cli: Cli) -> Exit {
    let outcome = match cli.command {
        Command::Version => print(&format!("wf {}\n", env!("CARGO_PKG_VERSION"))),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "wf", &mut script);
            print(&String::from_utf8_lossy(&script))
        }
        Command::Config { command } => config::config(&cli.global, command),
        Command::Doctor(args) => doctor::doctor(&cli.global, args),
        command => prepared(&cli.global, command),
    };
    outcome.unwrap_or_else(|failure| failure.tell())
}

/// Loads the configuration, starts the log and the runtime, and runs a command that needs them.
fn prepared(global: &Global, command: Command) -> Result<Exit, Failure> {
    let loader = loader(global);
    let loaded = loader.load()?;
    let asked_for = loaded.rows().iter().any(|row| row.key == "log.level" && row.changed);
    let level = match command {
        _ if global.quiet => "error",
        // What goes wrong is what it finds, and is told there.
        Command::Doctor(_) if !asked_for => "error",
        // What they have to say is their result.
        Command::Run(_) | Command::Enqueue(_) | Command::Broker { .. } if !asked_for => "warn",
        _ => loaded.config.log().level.as_str(),
    };
    log::start(loaded.config.log(), level);
    loaded.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|error| Failure::failed(error, Exit::Failed))?;
    let outcome = runtime.block_on(async {
        let stop = shutdown::token().map_err(|error| Failure::failed(error, Exit::Failed))?;
        let session = Session { output: global.output, quiet: global.quiet, loader, loaded, tuner: Tuner::idle(), stop };
        // A service that is told to stop while it still connects has done as it was told.
        let service = matches!(command, Command::Serve | Command::Ingest | Command::Executor);
        let stop = session.stop.clone();
        let outcome = match command {
            Command::Run(args) => Box::pin(run::run(session, args)).await,
            Command::Serve => Box::pin(serve::serve(session)).await,
            Command::Ingest => Box::pin(ingest::ingest(session)).await,
            Command::Executor => Box::pin(executor::executor(session)).await,
            Command::Enqueue(args) => Box::pin(enqueue::enqueue(session, args)).await,
            Command::Doctor(args) => Box::pin(doctor::examined(session, args)).await,
            Command::Broker { command } => Box::pin(broker::broker(session, command)).await,
            Command::Config { .. } | Command::Completions { .. } | Command::Version => Ok(Exit::Done),
        };
        match outcome {
            Err(Failure { error, .. }) if service && stop.is_cancelled() && error.is::<Interrupted>() => Ok(Exit::Done),
            outcome => outcome,
        }
    });
    // Threads that read standard input or write results may be stuck in the kernel; nothing waits for them.
    runtime.shutdown_background();
    outcome
}

fn loader(global: &Global) -> Loader {
    Loader::of_process().file(global.config.clone()).flags(global.flags.iter())
}

/// What a command works with.
struct Session {
    output: Output,
    quiet: bool,
    loader: Loader,
    loaded: Loaded,
    /// What publishes or runs jobs follows it.
    tuner: Tuner,
    stop: CancellationToken,
}

impl Session {
    fn config(&self) -> &Config {
        &self.loaded.config
    }

    /// The broker, and with profile `auto` the configuration that fits the link to it.
    async fn connect(&mut self, layout: Layout) -> Result<Arc<dyn Broker>, Failure> {
        let fitting = Box::pin(fit(&self.loader, self.loaded.clone(), layout));
        let fitted = self.stop.run_until_cancelled(fitting).await.ok_or_else(interrupted)??;
        Ok(self.fit(fitted))
    }

    /// The same for a command that can do without the broker for a while, if it has a spool.
    async fn connect_soon(&mut self, layout: Layout) -> Result<(Arc<dyn Broker>, Refusal), Failure> {
        let fitting = Box::pin(fit_soon(&self.loader, self.loaded.clone(), layout));
        let (fitted, refusal) = self.stop.run_until_cancelled(fitting).await.ok_or_else(interrupted)??;
        Ok((self.fit(fitted), refusal))
    }

    fn fit(&mut self, Fitted { broker, loaded, tuner }: Fitted) -> Arc<dyn Broker> {
        (self.loaded, self.tuner) = (loaded, tuner);
        broker
    }

    /// Whether progress is shown.
    fn show(&self) -> Show {
        if self.quiet || self.output == Output::Json { Show::Nothing } else { Show::Auto }
    }

    /// Says on standard error what a command came to: JSON for machines is one line, and the last.
    fn summarize(&self, summary: &(impl Serialize + fmt::Display)) -> Result<(), Failure> {
        let text = match self.output {
            Output::Json => serde_json::to_string(summary).map_err(|error| Failure::failed(error, Exit::Failed))?,
            Output::Table if self.quiet => return Ok(()),
            Output::Table => summary.to_string(),
        };
        let _unheard = writeln!(std::io::stderr(), "{text}");
        Ok(())
    }
}

/// Somebody asked the process to stop before it had begun.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
struct Interrupted;

fn interrupted() -> Failure {
    Failure::failed(Interrupted, Exit::Failed)
}

/// How a command failed, and what its exit code says of it.
struct Failure {
    error: Box<dyn Error + Send + Sync>,
    exit: Exit,
}

impl Failure {
    fn failed(error: impl Error + Send + Sync + 'static, exit: Exit) -> Self {
        Self { error: error.into(), exit }
    }

    fn usage(message: impl Into<String>, exit: Exit) -> Self {
        Self { error: message.into().into(), exit }
    }

    /// Prints the error with what caused it, once.
    fn tell(self) -> Exit {
        let mut text = format!("error: {}", self.error);
        let mut source = self.error.source();
        while let Some(cause) = source {
            text.push_str(&format!(": {cause}"));
            source = cause.source();
        }
        let _unheard = writeln!(std::io::stderr(), "{text}");
        self.exit
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::failed(error, Exit::Usage)
    }
}

impl From<BrokerError> for Failure {
    fn from(error: BrokerError) -> Self {
        let exit = if error.is_retryable() { Exit::Unreachable } else { Exit::Failed };
        Self::failed(error, exit)
    }
}

impl From<BrokerUnavailable> for Failure {
    fn from(error: BrokerUnavailable) -> Self {
        let exit = match &error {
            BrokerUnavailable::Options(_) | BrokerUnavailable::Config(_) => Exit::Usage,
            // Another path was meant.
            BrokerUnavailable::Open(OpenError::NotAFolder { .. } | OpenError::Foreign { .. }) => Exit::Usage,
            _ => Exit::Unreachable,
        };
        Self::failed(error, exit)
    }
}

/// Writes `text` to standard output. A reader that has gone is no failure.
fn print(text: &str) -> Result<Exit, Failure> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::failed(error, Exit::Failed)),
        _ => Ok(Exit::Done),
    }
}
