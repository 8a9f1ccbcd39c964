//! Where outcomes are written: a file or standard output, one line each.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::{mpsc, oneshot};

use super::destination::{Opened, ResultsError, To};

/// How many blocks of lines may wait to be written.
const WAITING: usize = 16;

/// Writes lines, on a thread of its own: a slow disk or a full pipe holds back the run, not the runtime.
pub(super) struct Results {
    way: Way,
    name: PathBuf,
}

enum Way {
    Thread(mpsc::Sender<Request>, JoinHandle<()>),
    /// At once, where it is asked for.
    Here(Arc<dyn Outlet>),
}

/// Where outcomes go instead of a file: the simulator's seam. None of these may wait.
pub trait Outlet: Send + Sync + 'static {
    /// All that is there.
    ///
    /// # Errors
    /// When it cannot be read.
    fn read(&self) -> std::io::Result<Vec<u8>>;

    /// Leaves only the first `len` bytes.
    ///
    /// # Errors
    /// When it cannot be cut.
    fn cut(&self, len: u64) -> std::io::Result<()>;

    /// Appends `lines`. What goes wrong is told by [`Outlet::sync`].
    fn write(&self, lines: &[u8]);

    /// Makes durable what was written.
    ///
    /// # Errors
    /// When some of it was not written.
    fn sync(&self) -> std::io::Result<()>;
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
        let Opened { name, to } = opened;
        let file = match to {
            To::File(file) => Some(file),
            To::Standard => None,
            To::Outlet(outlet) => return Ok(Self { way: Way::Here(outlet), name }),
        };
        let (requests, receiver) = mpsc::channel(WAITING);
        let thread = std::thread::Builder::new().name("wf-results".into()).spawn(move || serve(file, receiver));
        let thread = thread.map_err(|source| ResultsError::Write { name: name.clone(), source })?;
        Ok(Self { way: Way::Thread(requests, thread), name })
    }

    /// Writes `lines`. Returns once there is room for them; whether they were written, [`Results::sync`] tells.
    pub(super) async fn write(&self, lines: Vec<u8>) {
        match &self.way {
            Way::Thread(requests, _) => {
                // A closed channel means a failed write, which `sync` reports.
                let _closed = requests.send(Request::Write(lines)).await;
            }
            Way::Here(outlet) => outlet.write(&lines),
        }
    }

    /// Waits until everything so far is written, and on disk if it is a file.
    ///
    /// # Errors
    /// When some of it could not be written.
    pub(super) async fn sync(&self) -> Result<(), ResultsError> {
        let failed = |source| ResultsError::Write { name: self.name.clone(), source };
        let requests = match &self.way {
            Way::Thread(requests, _) => requests,
            Way::Here(outlet) => return outlet.sync().map_err(failed),
        };
        let (answer, answered) = oneshot::channel();
        let gone = || std::io::Error::new(std::io::ErrorKind::BrokenPipe, "the reader of the results has gone");
        let sent = requests.send(Request::Sync(answer)).await;
        let result = if sent.is_ok() { answered.await.unwrap_or_else(|_| Err(gone())) } else { Err(gone()) };
        result.map_err(failed)
    }

    /// Writes what is left and ends.
    ///
    /// # Errors
    /// As [`Results::sync`].
    pub(super) async fn close(self) -> Result<(), ResultsError> {
        let written = self.sync().await;
        if let Way::Thread(requests, thread) = self.way {
            drop(requests);
            let _joined = tokio::task::spawn_blocking(move || thread.join()).await;
        }
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
