//! A process of the program, which ends with the test.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use std::os::unix::process::ExitStatusExt;

use serde_json::Value;
use tokio::process::{Child, ChildStdin, Command};

use super::{PATIENCE, until};

/// How much of what a process said is shown when a test fails, in bytes.
const SHOWN: usize = 6_000;

/// A running process. What it says goes to files, so that nobody has to read it while it runs.
pub(crate) struct Process {
    what: String,
    child: Child,
    out: PathBuf,
    err: PathBuf,
}

/// A process that has ended.
pub(crate) struct Ended {
    /// Its exit code, if no signal ended it.
    pub(crate) code: Option<i32>,
    /// The signal that ended it, if one did.
    pub(crate) signal: Option<i32>,
    /// All of its standard output.
    pub(crate) stdout: String,
    /// All of its standard error.
    pub(crate) stderr: String,
}

impl Ended {
    /// Fails unless it ended with `code`.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        let (said, errors) = (tail(&self.stdout, SHOWN / 4), tail(&self.stderr, SHOWN));
        assert_eq!(self.code, Some(code), "exit code; signal {:?}; it said:\n{said}\n--- and:\n{errors}", self.signal);
        self
    }

    /// Fails unless its standard error contains each of `texts`.
    #[track_caller]
    pub(crate) fn says(self, texts: &[&str]) -> Self {
        for text in texts {
            assert!(self.stderr.contains(text), "`{text}` is not in:\n{}", self.stderr);
        }
        self
    }

    /// The JSON object on the last line of standard error.
    #[track_caller]
    pub(crate) fn summary(&self) -> Value {
        let last = self.stderr.lines().last().unwrap_or_default();
        serde_json::from_str(last).unwrap_or_else(|error| panic!("the last line is no JSON ({error}):\n{}", self.stderr))
    }
}

/// A command line, split at spaces: no argument of the tests has one.
pub(crate) fn args(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

impl Process {
    /// Starts `command`; `log` is the path, without extension, of the files for what it says.
    pub(crate) fn start(what: &str, mut command: Command, log: &Path) -> Self {
        let (out, err) = (log.with_extension("out"), log.with_extension("err"));
        let open = |path: &Path| std::fs::File::create(path).unwrap();
        command.stdout(open(&out)).stderr(open(&err)).kill_on_drop(true);
        let child = command.spawn().unwrap_or_else(|error| panic!("{what}: {error}"));
        Self { what: what.to_owned(), child, out, err }
    }

    /// What to write to its standard input, if that is a pipe. Dropping it is the end of the input.
    pub(crate) fn stdin(&mut self) -> ChildStdin {
        self.child.stdin.take().unwrap()
    }

    pub(crate) fn stdout(&self) -> String {
        read(&self.out)
    }

    pub(crate) fn stderr(&self) -> String {
        read(&self.err)
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id().unwrap()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits until a line of its standard error contains `text`, and returns the line.
    pub(crate) async fn says(&mut self, text: &str) -> String {
        let what = format!("{} says `{text}`", self.what);
        until(&what, async || {
            // In this order: what it said last before it ended still counts.
            let running = self.is_running();
            let said = self.stderr().lines().find(|line| line.contains(text)).map(str::to_owned);
            assert!(said.is_some() || running, "{} ended before it said `{text}`", self.what);
            said
        })
        .await
    }

    /// Waits for its end.
    pub(crate) async fn wait(&mut self) -> Ended {
        let status = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        let status = status.unwrap_or_else(|_| panic!("{} has not ended in {PATIENCE:?}", self.what)).unwrap();
        self.ended(status)
    }

    /// Ends it like a crash, with SIGKILL. Fails if it had ended by itself: then the test has not tried what it says.
    pub(crate) async fn kill(&mut self) {
        self.child.start_kill().unwrap();
        let ended = self.wait().await;
        assert_eq!(ended.signal, Some(9), "{} had ended before it was killed:\n{}", self.what, ended.stderr);
    }

    /// Sends it a signal: `TERM`, `INT`.
    pub(crate) fn signal(&self, name: &str) {
        let sent = std::process::Command::new("kill").args([format!("-{name}"), self.id().to_string()]).status().unwrap();
        assert!(sent.success(), "{} cannot be signalled", self.what);
    }

    /// The most memory it has held so far, in bytes, if it still runs.
    pub(crate) fn peak_memory(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()?)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().ok()?;
        Some(kib * 1024)
    }

    fn ended(&self, status: ExitStatus) -> Ended {
        Ended { code: status.code(), signal: status.signal(), stdout: self.stdout(), stderr: self.stderr() }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let (said, errors) = (self.stdout(), self.stderr());
            eprintln!("--- {} said:\n{}\n--- and:\n{}\n---", self.what, tail(&said, SHOWN / 4), tail(&errors, SHOWN));
        }
    }
}

/// Nothing to say to it.
pub(crate) fn silent(command: &mut Command) {
    command.stdin(Stdio::null());
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}

fn tail(text: &str, bytes: usize) -> &str {
    let start = (text.len().saturating_sub(bytes)..).find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    &text[start..]
}
