//! Where outcomes go: looked at before anything is changed, so that no file is lost that is not ours.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, ErrorKind, Read, Seek};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use wf_schema::{BatchId, JobId};

use super::bits::Bits;
use super::results::Outlet;
use crate::feed::FileId;

/// What the id of a line that is no job starts with.
pub(super) const BAD_LINE: &str = "line-";
/// What every line of a results file starts with.
const LINE_START: &[u8] = br#"{"id":""#;

/// Why outcomes cannot be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResultsError {
    /// The file cannot be opened, read or written.
    #[error("outcomes cannot be written to {}", name.display())]
    Write {
        /// Where they were to go.
        name: PathBuf,
        /// What the file system says.
        #[source]
        source: std::io::Error,
    },
    /// The results would overwrite the jobs.
    #[error("{} is the file of jobs itself: write the results to another file", name.display())]
    IsInput {
        /// Where they were to go.
        name: PathBuf,
    },
    /// The file has something else in it.
    #[error("{} exists and is not a results file of wf run, so it is left alone: name another file, or remove it", name.display())]
    Foreign {
        /// Where they were to go.
        name: PathBuf,
    },
}

impl ResultsError {
    /// Whether the caller has named the wrong file.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::IsInput { .. } | Self::Foreign { .. })
    }
}

/// Where outcomes go. Checked, and not changed before the run begins.
#[derive(Default)]
pub struct Destination {
    path: Option<PathBuf>,
    input: Option<FileId>,
    outlet: Option<Arc<dyn Outlet>>,
}

/// A destination that a run writes to.
pub(super) struct Opened {
    pub(super) name: PathBuf,
    pub(super) to: To,
}

/// Where it is.
pub(super) enum To {
    /// Standard output.
    Standard,
    File(File),
    Outlet(Arc<dyn Outlet>),
}

/// What the results of an interrupted run have already.
#[derive(Debug, Default)]
pub(super) struct Reported {
    /// For each batch that was asked for, the jobs that have a line.
    pub(super) jobs: HashMap<BatchId, Bits>,
    /// The last line of the input that was reported as no job.
    pub(super) bad_line: u64,
}

impl Destination {
    /// The file at `path`, or standard output, for the outcomes of the jobs in `input`. Changes nothing.
    ///
    /// # Errors
    /// When it is the file of jobs itself, under whatever name, or a file with something else in it.
    pub fn check(path: Option<PathBuf>, input: Option<FileId>) -> Result<Self, ResultsError> {
        let destination = Self { path, input, outlet: None };
        match &destination.path {
            Some(path) => match is_regular(path) {
                Ok(true) => destination.checked(open(path, false)).map(drop)?,
                // A pipe or a terminal has nothing to lose. What is not there yet is made when the run begins.
                Ok(false) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(destination.failed(error)),
            },
            // `wf run F >> F` would read its own outcomes, and never end.
            None if destination.is_input(FileId::of(std::io::stdout().as_fd())) => {
                return Err(ResultsError::IsInput { name: destination.name() });
            }
            None => {}
        }
        Ok(destination)
    }

    /// What the simulator puts in place of a file.
    pub(super) fn outlet(outlet: Arc<dyn Outlet>) -> Self {
        Self { outlet: Some(outlet), ..Self::default() }
    }

    /// Whether to open it may wait for a disk.
    pub(super) fn blocks(&self) -> bool {
        self.outlet.is_none()
    }

    /// Opens it for a run that begins: what earlier results it has are gone.
    pub(super) fn begin(self) -> Result<Opened, ResultsError> {
        let to = self.open()?;
        match &to {
            To::File(file) if is_file(file) => file.set_len(0),
            To::Outlet(outlet) => outlet.cut(0),
            To::File(_) | To::Standard => Ok(()),
        }
        .map_err(|error| self.failed(error))?;
        Ok(Opened { name: self.name(), to })
    }

    /// Opens it for a run that goes on: reads what it says about `batches`, and cuts off a last line that was not
    /// finished. Blocks.
    pub(super) fn resume(self, batches: impl Iterator<Item = BatchId>) -> Result<(Opened, Reported), ResultsError> {
        let to = self.open()?;
        let reported = match &to {
            To::File(file) if is_file(file) => reported(file, batches),
            To::Outlet(outlet) => reported_at(&**outlet, batches),
            To::File(_) | To::Standard => Ok(Reported::default()),
        };
        Ok((Opened { name: self.name(), to }, reported.map_err(|error| self.failed(error))?))
    }

    fn open(&self) -> Result<To, ResultsError> {
        if let Some(outlet) = &self.outlet {
            return Ok(To::Outlet(outlet.clone()));
        }
        let Some(path) = &self.path else { return Ok(To::Standard) };
        match is_regular(path) {
            Ok(false) => OpenOptions::new().write(true).open(path).map_err(|error| self.failed(error)),
            // Checked once more: the name may stand for another file by now.
            Ok(true) => self.checked(open(path, false)),
            Err(_) => self.checked(open(path, true)),
        }
        .map(To::File)
    }

    fn checked(&self, opened: std::io::Result<File>) -> Result<File, ResultsError> {
        let file = opened.map_err(|error| self.failed(error))?;
        if self.is_input(FileId::of(&file)) {
            return Err(ResultsError::IsInput { name: self.name() });
        }
        let ours = !is_file(&file) || has_results(&file).map_err(|error| self.failed(error))?;
        if ours { Ok(file) } else { Err(ResultsError::Foreign { name: self.name() }) }
    }

    fn is_input(&self, file: Option<FileId>) -> bool {
        file.is_some() && file == self.input
    }

    fn name(&self) -> PathBuf {
        let other = if self.outlet.is_some() { "the outlet" } else { "standard output" };
        self.path.clone().unwrap_or_else(|| other.into())
    }

    fn failed(&self, source: std::io::Error) -> ResultsError {
        ResultsError::Write { name: self.name(), source }
    }
}

/// Never truncates: that comes once the file is known.
fn open(path: &Path, create: bool) -> std::io::Result<File> {
    OpenOptions::new().read(true).append(true).create(create).open(path)
}

fn is_regular(path: &Path) -> std::io::Result<bool> {
    std::fs::metadata(path).map(|about| about.is_file())
}

fn is_file(file: &File) -> bool {
    file.metadata().is_ok_and(|about| about.is_file())
}

/// Whether `file` is empty, or begins as results do. A run that crashed may have left only part of its first line.
fn has_results(mut file: &File) -> std::io::Result<bool> {
    let mut start = Vec::with_capacity(LINE_START.len());
    file.take(LINE_START.len() as u64).read_to_end(&mut start)?;
    file.rewind()?;
    Ok(LINE_START.starts_with(&start))
}

/// Reads `file` for lines about `batches`, and cuts off a last line that was not finished.
fn reported(file: &File, batches: impl Iterator<Item = BatchId>) -> std::io::Result<Reported> {
    let mut reported = Reported { jobs: batches.map(|id| (id, Bits::default())).collect(), bad_line: 0 };
    let whole = read_lines(BufReader::with_capacity(1 << 20, file), &mut reported)?;
    file.set_len(whole)?;
    Ok(reported)
}

/// Reads what is at `outlet` in the same way.
fn reported_at(outlet: &dyn Outlet, batches: impl Iterator<Item = BatchId>) -> std::io::Result<Reported> {
    let mut reported = Reported { jobs: batches.map(|id| (id, Bits::default())).collect(), bad_line: 0 };
    let whole = read_lines(&outlet.read()?[..], &mut reported)?;
    outlet.cut(whole)?;
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

fn note(reported: &mut Reported, line: &[u8]) {
    let id = line.strip_prefix(LINE_START).and_then(|rest| rest.split(|b| *b == b'"').next());
    let Some(id) = id.and_then(|id| std::str::from_utf8(id).ok()) else { return };
    if let Some(number) = id.strip_prefix(BAD_LINE) {
        reported.bad_line = reported.bad_line.max(number.parse().unwrap_or(0));
    } else if let Ok(job) = id.parse::<JobId>()
        && let Some(bits) = reported.jobs.get_mut(&job.batch)
    {
        bits.set(job.index);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::results::Results;
    use super::*;

    fn check(path: &Path, input: Option<FileId>) -> Result<Destination, ResultsError> {
        Destination::check(Some(path.to_owned()), input)
    }

    #[tokio::test]
    async fn an_unfinished_last_line_is_cut_off_and_what_stands_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.ndjson");
        let (here, elsewhere) = (BatchId::from(1), BatchId::from(2));
        let text = format!(
            "{{\"id\":\"{here}-3\",\"x\":1}}\n{{\"id\":\"{elsewhere}-0\"}}\n{{\"id\":\"line-7\"}}\n{{\"id\":\"{here}-4\""
        );
        std::fs::write(&path, &text).unwrap();
        let (opened, reported) = check(&path, None).unwrap().resume([here].into_iter()).unwrap();
        assert_eq!(reported.bad_line, 7);
        assert_eq!(reported.jobs.len(), 1);
        assert!(reported.jobs[&here].has(3) && !reported.jobs[&here].has(4));
        let results = Results::start(opened).unwrap();
        results.write(b"more\n".to_vec()).await;
        results.close().await.unwrap();
        let left = std::fs::read_to_string(&path).unwrap();
        assert!(left.ends_with("{\"id\":\"line-7\"}\nmore\n"));
    }

    #[test]
    fn only_results_are_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        for (text, ours) in
            [("", true), ("{\"i", true), ("{\"id\":\"line-1\"}\n", true), ("{\"kind\":\"a\"}\n", false), ("a\nb", false)]
        {
            std::fs::write(&path, text).unwrap();
            assert_eq!(check(&path, None).is_ok(), ours, "{text}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text, "a check changes nothing");
        }
        std::fs::write(&path, "{\"id\":\"line-1\"}\n").unwrap();
        check(&path, None).unwrap().begin().map(drop).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "");
    }

    #[test]
    fn a_name_that_comes_to_stand_for_the_input_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let (jobs, out) = (dir.path().join("jobs"), dir.path().join("out"));
        std::fs::write(&jobs, "").unwrap();
        let destination = check(&out, FileId::of(File::open(&jobs).unwrap())).unwrap();
        assert!(!out.exists());
        std::fs::hard_link(&jobs, &out).unwrap();
        assert!(matches!(destination.begin(), Err(ResultsError::IsInput { .. })));
    }
}
