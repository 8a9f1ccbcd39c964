//! A directory in which a test runs the program.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;
use tokio::process::Command;

use super::process::{Ended, Process, args, silent};

/// A directory of a test's own. The program runs in it, without the settings that the tests were started with.
pub(crate) struct Stage {
    dir: TempDir,
    started: AtomicU32,
}

impl Stage {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), started: AtomicU32::new(0) }
    }

    /// A stage whose `wf.toml` says `settings`.
    pub(crate) fn with(settings: &str) -> Self {
        let stage = Self::new();
        stage.file("wf.toml", settings);
        stage
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file.
    pub(crate) fn file(&self, name: &str, contents: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), contents).unwrap();
    }

    /// The program with these arguments, here, silent at its standard input.
    pub(crate) fn wf(&self, line: &str) -> Command {
        let mut command = self.command(env!("CARGO_BIN_EXE_wf"));
        command.args(args(line));
        command
    }

    /// Any program, here.
    pub(crate) fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command.current_dir(self.dir.path());
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("WF_")) {
            command.env_remove(name);
        }
        silent(&mut command);
        command
    }

    /// Starts the program.
    pub(crate) fn start(&self, line: &str) -> Process {
        self.started_as(line, self.wf(line))
    }

    /// Starts the program with a pipe as its standard input.
    pub(crate) fn start_piped(&self, line: &str) -> Process {
        let mut command = self.wf(line);
        command.stdin(Stdio::piped());
        self.started_as(line, command)
    }

    /// Starts any command; `what` is for messages.
    pub(crate) fn started_as(&self, what: &str, command: Command) -> Process {
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        Process::start(&format!("`{what}`"), command, &self.path(&format!("said-{number}")))
    }

    /// Runs the program to its end.
    pub(crate) async fn run(&self, line: &str) -> Ended {
        self.start(line).wait().await
    }
}
