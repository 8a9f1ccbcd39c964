//! Where outcomes are written: a file or standard output, one line each.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::thread::JoinHandle;

use tokio::sync::{mpsc, oneshot};

use super::destination::{Opened, ResultsError};

/// How many blocks of lines may wait to be written.
const WAITING: usize = 16;

/// Writes lines, on a thread of its own: a slow disk or a full pipe holds back the run, not the runtime.
pub(super) struct Results {
    requests: mpsc::Sender<Request>,
    thread: JoinHandle<()>,
    name: PathBuf,
}

enum Request {
    Write(Vec<u8>),
    Sync(oneshot::Sender<std::io::Result<()>>),
}

impl Results {
    /// Starts to write to `opened`, after what it has.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(super) fn start(opened: Opened) -> Result<Self, ResultsError> {
        let Opened { name, file } = opened;
        let (requests, receiver) = mpsc::channel(WAITING);
        let thread = std::thread::Builder::new().name("wf-results".into()).spawn(move || serve(file, receiver));
        let thread = thread.map_err(|source| ResultsError::Write { name: name.clone(), source })?;
        Ok(Self { requests, thread, name })
    }

    /// Writes `lines`. Returns once there is room for them; whether they were written, [`Results::sync`] tells.
    pub(super) async fn write(&self, lines: Vec<u8>) {
        // A closed channel means a failed write, which `sync` reports.
        let _closed = self.requests.send(Request::Write(lines)).await;
    }

    /// Waits until everything so far is written, and on disk if it is a file.
    ///
    /// # Errors
    /// When some of it could not be written.
    pub(super) async fn sync(&self) -> Result<(), ResultsError> {
        let (answer, answered) = oneshot::channel();
        let gone = || std::io::Error::new(std::io::ErrorKind::BrokenPipe, "the reader of the results has gone");
        let sent = self.requests.send(Request::Sync(answer)).await;
        let result = if sent.is_ok() { answered.await.unwrap_or_else(|_| Err(gone())) } else { Err(gone()) };
        result.map_err(|source| ResultsError::Write { name: self.name.clone(), source })
    }

    /// Writes what is left and ends.
    ///
    /// # Errors
    /// As [`Results::sync`].
    pub(super) async fn close(self) -> Result<(), ResultsError> {
        let written = self.sync().await;
        drop(self.requests);
        let _joined = tokio::task::spawn_blocking(move || self.thread.join()).await;
        written
    }
}

/// Answers requests until there are no more. Once a write has failed, every later sync tells.
fn serve(mut file: Option<File>, mut requests: mpsc::Receiver<Request>) {
    let mut broken = None;
    while let Some(request) = requests.blocking_recv() {
        match request {
            Request::Write(lines) if broken.is_none() => {
                let written = match &mut file {
                    Some(file) => file.write_all(&lines),
                    None => std::io::stdout().write_all(&lines),
                };
                broken = written.err();
            }
            Request::Write(_) => {}
            Request::Sync(answer) => {
                let result = match (&broken, &mut file) {
                    (Some(error), _) => Err(std::io::Error::new(error.kind(), error.to_string())),
                    (None, Some(file)) => synced(file),
                    (None, None) => std::io::stdout().flush(),
                };
                let _gone = answer.send(result);
            }
        }
    }
}

/// Pipes and terminals cannot be synced, and need not be.
fn synced(file: &File) -> std::io::Result<()> {
    if file.metadata()?.is_file() { file.sync_data() } else { Ok(()) }
}
