//! A shell command with its children, its output, and an end that is waited for.

use std::fmt;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

/// How much of an output is shown after a failure, in bytes.
const SHOWN: usize = 4_000;

/// The file that a process prints into.
#[derive(Clone)]
pub(crate) struct Log(PathBuf);

impl Log {
    fn read(&self) -> String {
        fs::read(&self.0).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    pub(crate) fn contains(&self, text: &str) -> bool {
        self.read().contains(text)
    }
}

/// A running `bash`, leader of a process group of its own: whoever it starts is stopped with it.
pub(crate) struct Process {
    /// What it runs and where that stands in README.md.
    label: String,
    group: u32,
    log: Log,
    ends: Receiver<ExitStatus>,
    ended: Option<Ended>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Code(i32),
    Signal(i32),
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "{code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

impl Process {
    /// Runs `script` in `bash`, its output and its errors going to the file `log`. `prepare` sets where and with what.
    pub(crate) fn start(script: &str, label: String, log: PathBuf, prepare: impl FnOnce(&mut Command)) -> Result<Self, String> {
        let open = || File::create(&log).and_then(|file| Ok((file.try_clone()?, file)));
        let (out, errors) = open().map_err(|error| format!("{}: {error}", log.display()))?;
        let mut command = Command::new("bash");
        command.args(["-euo", "pipefail", "-c", script]).stdin(Stdio::null()).stdout(out).stderr(errors).process_group(0);
        prepare(&mut command);
        let mut child = command.spawn().map_err(|error| format!("{label}: bash does not start: {error}"))?;
        let (tell, ends) = mpsc::channel();
        let group = child.id();
        thread::spawn(move || child.wait().is_ok_and(|status| tell.send(status).is_ok()));
        Ok(Self { label, group, log: Log(log), ends, ended: None })
    }

    /// How it ended, if it does within `timeout`.
    pub(crate) fn wait(&mut self, timeout: Duration) -> Option<Ended> {
        if self.ended.is_none() {
            self.ended = match self.ends.recv_timeout(timeout) {
                Ok(status) => Some(status.code().map_or(Ended::Signal(status.signal().unwrap_or(0)), Ended::Code)),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => Some(Ended::Code(-1)),
            };
        }
        self.ended
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.wait(Duration::ZERO).is_none()
    }

    /// Asks it and all it started to stop.
    pub(crate) fn terminate(&self) {
        self.signal("TERM");
    }

    fn signal(&self, name: &str) {
        // A group that is gone is no failure.
        let kill = format!("kill -{name} -- -{} 2>/dev/null || true", self.group);
        let _ = Command::new("bash").args(["-c", &kill]).status();
    }

    /// What it has printed up to now.
    pub(crate) fn output(&self) -> String {
        self.log().read()
    }

    /// Where it prints.
    pub(crate) fn log(&self) -> Log {
        self.log.clone()
    }

    /// A failure, with what the process is and the end of what it printed.
    pub(crate) fn report(&self, failure: &str) -> String {
        let output = self.output();
        let start = (output.len().saturating_sub(SHOWN)..).find(|&at| output.is_char_boundary(at)).unwrap_or(0);
        format!("{} {failure}\n--- it printed:\n{}\n---\n", self.label, &output[start..])
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Also after a foreground block that ended: what it left in its group goes too.
        self.signal("KILL");
    }
}

/// Waits until `done`; false after `timeout`, or when `alive` says that there is no hope.
pub(crate) fn eventually(timeout: Duration, done: impl Fn() -> bool, mut alive: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + timeout;
    while Instant::now() < deadline {
        if done() {
            return true;
        }
        if !alive() {
            return false;
        }
        // Other processes have no way to tell us but what we look at.
        thread::sleep(Duration::from_millis(20));
    }
    false
}

/// Whether `url` (`http://..` or `tcp://..`) answers.
pub(crate) fn answers(url: &str) -> bool {
    asked(url).unwrap_or(false)
}

fn asked(url: &str) -> std::io::Result<bool> {
    let (scheme, rest) = url.split_once("://").unwrap_or(("tcp", url));
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let address: SocketAddr =
        authority.replace("localhost", "127.0.0.1").parse().map_err(|_| std::io::ErrorKind::InvalidInput)?;
    let patience = Duration::from_secs(2);
    let mut stream = TcpStream::connect_timeout(&address, patience)?;
    if scheme == "tcp" {
        return Ok(true);
    }
    stream.set_read_timeout(Some(patience))?;
    write!(stream, "GET /{path} HTTP/1.0\r\nHost: {authority}\r\n\r\n")?;
    let mut head = [0; 12];
    stream.read_exact(&mut head)?;
    Ok(head.starts_with(b"HTTP/1.") && head[9] == b'2')
}
