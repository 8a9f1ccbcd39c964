//! Where outcomes are written: a file or standard output, one line each.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::{mpsc, oneshot};
use wf_schema::{BatchId, JobId};

use super::bits::Bits;

/// How many blocks of lines may wait to be written.
const WAITING: usize = 16;
/// What the id of a line that is no job starts with.
pub(super) const BAD_LINE: &str = "line-";

/// Why outcomes cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("outcomes cannot be written to {}", name.display())]
pub struct ResultsError {
    name: PathBuf,
    #[source]
    source: std::io::Error,
}

/// What the results of an interrupted run have already.
#[derive(Debug, Default)]
pub(super) struct Reported {
    /// For each batch that was asked for, the jobs that have a line.
    pub(super) jobs: HashMap<BatchId, Bits>,
    /// The last line of the input that was reported as no job.
    pub(super) bad_line: u64,
}

/// Reads the results at `path` for lines about `batches`, and cuts off a last line that was not finished. Blocks.
///
/// # Errors
/// When the file is there and cannot be read or cut.
pub(super) fn reported(path: &Path, batches: impl Iterator<Item = BatchId>) -> Result<Reported, ResultsError> {
    let failed = |source| ResultsError { name: path.to_owned(), source };
    let mut reported = Reported { jobs: batches.map(|id| (id, Bits::default())).collect(), bad_line: 0 };
    let file = match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(reported),
        Err(error) => return Err(failed(error)),
    };
    let whole = read_lines(BufReader::with_capacity(1 << 20, &file), &mut reported).map_err(failed)?;
    file.set_len(whole).map_err(failed)?;
    Ok(reported)
}

/// Reads what is at `outlet` in the same way.
///
/// # Errors
/// When it cannot be read or cut.
pub(super) fn reported_at(outlet: &dyn Outlet, batches: impl Iterator<Item = BatchId>) -> Result<Reported, ResultsError> {
    let failed = |source| ResultsError { name: OUTLET.into(), source };
    let mut reported = Reported { jobs: batches.map(|id| (id, Bits::default())).collect(), bad_line: 0 };
    let text = outlet.read().map_err(failed)?;
    let whole = read_lines(&text[..], &mut reported).map_err(failed)?;
    outlet.cut(whole).map_err(failed)?;
    Ok(reported)
}

/// Notes all whole lines: how many bytes they are.
fn read_lines(mut reader: impl BufRead, reported: &mut Reported) -> std::io::Result<u64> {
    let (mut line, mut whole) = (Vec::new(), 0);
    loop {
        line.clear();
        let read = reader.read_until(b'\n', &mut line)?;
        if read == 0 || line.last() != Some(&b'\n') {
            return Ok(whole);
        }
        whole += read as u64;
        note(reported, &line);
    }
}

/// Every line starts with its id: `{"id":"..."`.
fn note(reported: &mut Reported, line: &[u8]) {
    let id = line.strip_prefix(br#"{"id":""#).and_then(|rest| rest.split(|b| *b == b'"').next());
    let Some(id) = id.and_then(|id| std::str::from_utf8(id).ok()) else { return };
    if let Some(number) = id.strip_prefix(BAD_LINE) {
        reported.bad_line = reported.bad_line.max(number.parse().unwrap_or(0));
    } else if let Ok(job) = id.parse::<JobId>()
        && let Some(bits) = reported.jobs.get_mut(&job.batch)
    {
        bits.set(job.index);
    }
}

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

/// What an [`Outlet`] is called in messages.
const OUTLET: &str = "the outlet";

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
    /// Writes to the file at `path`, behind what it has if `append`; without a path, to standard output.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub(super) fn open(path: Option<&Path>, append: bool) -> Result<Self, ResultsError> {
        let name = path.map_or_else(|| PathBuf::from("standard output"), Path::to_owned);
        let failed = |source| ResultsError { name: name.clone(), source };
        let mut file = None;
        if let Some(path) = path {
            let mut options = OpenOptions::new();
            let options = if append { options.append(true) } else { options.write(true).truncate(true) };
            file = Some(options.create(true).open(path).map_err(failed)?);
        }
        let (requests, receiver) = mpsc::channel(WAITING);
        let thread =
            std::thread::Builder::new().name("wf-results".into()).spawn(move || serve(file, receiver)).map_err(failed)?;
        Ok(Self { way: Way::Thread(requests, thread), name })
    }

    /// Writes to `outlet`, behind what it has if `append`.
    ///
    /// # Errors
    /// When it cannot be emptied.
    pub(super) fn here(outlet: Arc<dyn Outlet>, append: bool) -> Result<Self, ResultsError> {
        if !append {
            outlet.cut(0).map_err(|source| ResultsError { name: OUTLET.into(), source })?;
        }
        Ok(Self { way: Way::Here(outlet), name: OUTLET.into() })
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
        let failed = |source| ResultsError { name: self.name.clone(), source };
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_unfinished_last_line_is_cut_off_and_what_stands_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.ndjson");
        let (here, elsewhere) = (BatchId::from(1), BatchId::from(2));
        let text = format!(
            "{{\"id\":\"{here}-3\",\"x\":1}}\n{{\"id\":\"{elsewhere}-0\"}}\n{{\"id\":\"line-7\"}}\n{{\"id\":\"{here}-4\""
        );
        std::fs::write(&path, &text).unwrap();
        let reported = reported(&path, [here].into_iter()).unwrap();
        assert_eq!(reported.bad_line, 7);
        assert_eq!(reported.jobs.len(), 1);
        assert!(reported.jobs[&here].has(3) && !reported.jobs[&here].has(4));
        let results = Results::open(Some(&path), true).unwrap();
        results.write(b"more\n".to_vec()).await;
        results.close().await.unwrap();
        let left = std::fs::read_to_string(&path).unwrap();
        assert!(left.ends_with("{\"id\":\"line-7\"}\nmore\n"));
    }
}
