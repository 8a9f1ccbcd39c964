//! What a crash leaves of the journals, and what is done about it before the database is opened.
//!
//! A process that dies leaves the beginning of a commit; when the power goes, any part of what was not synced yet may be
//! missing, and the rest be there. Nobody was told of either, so both are cut off, and said. What was synced is followed
//! sooner or later by a commit that says so, by not saying otherwise: if one stands behind what cannot be read, then
//! something safe was damaged, and cutting would lose what somebody was told of. Then nothing is touched.
//!
//! What was damaged in the very last commits after they were synced cannot be told from what never was. That is why it
//! is kept aside if there is more of it than a beginning.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use wf_schema::now;

use super::commit::{Commit, Flaw, TRAILER};
use super::{KeyspacesError, MADE};
use crate::OwnFolder;

/// What the database says of itself if its journals are as they are read here.
const FORMAT: &[u8] = b"FJL\x03";
/// Where a cut end is kept, beside the database: this and the time in milliseconds.
const ASIDE: &str = "damaged-journal-";

/// The end of a journal from the first that is no whole commit.
struct Tail {
    journal: PathBuf,
    /// Where it begins.
    at: u64,
    /// Up to the last byte that is not zero.
    bytes: Vec<u8>,
}

/// Cuts off what was being committed when a process or the power went.
///
/// # Errors
/// When something safe is damaged; when it cannot be read or written.
pub(super) fn mend(database: &Path) -> Result<(), KeyspacesError> {
    let io = |path: &Path, what| {
        let path = path.to_owned();
        move |source| KeyspacesError::Io { what, path, source }
    };
    // Another format, or none yet: the database has its own say.
    if !fs::read(database.join(MADE)).is_ok_and(|format| format == FORMAT) {
        return Ok(());
    }
    let mut tails: Vec<Tail> = Vec::new();
    let mut last = None;
    for journal in journals(database).map_err(io(database, "list the journals"))? {
        let tail = read(&journal, &mut last).map_err(io(&journal, "read the journal"))?;
        // Commits of one journal are on disk before the next is begun.
        if let (Some(damage), true) = (tails.first(), tail.at > 0) {
            return Err(damage.corrupt(&journal, 0));
        }
        if let Some(next) = tail.next(last) {
            return Err(tails.first().unwrap_or(&tail).corrupt(&journal, next));
        }
        if !tail.bytes.is_empty() {
            tails.push(tail);
        }
    }
    tails.iter().try_for_each(|tail| tail.cut(database).map_err(io(&tail.journal, "cut off the end of the journal")))
}

/// The journals, the oldest first.
fn journals(database: &Path) -> io::Result<Vec<PathBuf>> {
    let number = |path: &Path| path.file_stem()?.to_str()?.parse::<u64>().ok();
    let mut journals = Vec::new();
    for entry in fs::read_dir(database)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "jnl") {
            journals.extend(number(&path).map(|number| (number, path)));
        }
    }
    journals.sort();
    Ok(journals.into_iter().map(|(_, path)| path).collect())
}

/// Reads the commits of a journal, and what is behind them.
fn read(journal: &Path, last: &mut Option<u64>) -> io::Result<Tail> {
    let mut file = BufReader::with_capacity(1 << 20, File::open(journal)?);
    let mut at = 0;
    loop {
        match Commit::read(&mut file) {
            Ok(commit) => (at, *last) = (at + commit.size, Some(commit.number)),
            Err(Flaw::Io(error)) => return Err(error),
            Err(Flaw::Unfinished | Flaw::Garbled) => break,
        }
    }
    let mut file = file.into_inner();
    // A journal is made with zeros in it, and written over them; a commit ends with a byte that is none.
    let end = last_byte(&mut file)?.max(at);
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(at))?;
    file.take(end - at).read_to_end(&mut bytes)?;
    Ok(Tail { journal: journal.to_owned(), at, bytes })
}

/// Where the last byte of `file` ends that is not zero.
fn last_byte(file: &mut File) -> io::Result<u64> {
    let zeros = vec![0; 1 << 20];
    let mut piece = zeros.clone();
    let mut end = file.metadata()?.len();
    while end > 0 {
        let start = end.saturating_sub(zeros.len() as u64);
        let piece = &mut piece[..(end - start) as usize];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(piece)?;
        // Most are, and are compared in no time.
        if *piece != zeros[..piece.len()]
            && let Some(at) = piece.iter().rposition(|byte| *byte != 0)
        {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

impl Tail {
    /// Where a commit begins in it that was made when all before it was safe.
    fn next(&self, last: Option<u64>) -> Option<u64> {
        let starts = (1..self.bytes.len()).map(|at| (at, &self.bytes[at..]));
        let commits = starts.filter_map(|(at, mut bytes)| Commit::read(&mut bytes).ok().map(|commit| (at, commit)));
        // A job may bring along what looks like a commit. One that was made before these is none of them.
        let mut safe = commits.filter(|(_, commit)| !commit.unsynced && last.is_none_or(|last| commit.number > last));
        safe.next().map(|(at, _)| self.at + at as u64)
    }

    fn corrupt(&self, later: &Path, next: u64) -> KeyspacesError {
        KeyspacesError::Corrupt { journal: self.journal.clone(), at: self.at, later: later.to_owned(), next }
    }

    fn cut(&self, database: &Path) -> io::Result<()> {
        let (journal, at, bytes) = (self.journal.display(), self.at, self.bytes.len());
        let begun = matches!(Commit::read(&mut &self.bytes[..]), Err(Flaw::Unfinished)) && !self.bytes.ends_with(&TRAILER);
        if begun {
            tracing::warn!(%journal, at, bytes, "a commit was not written to its end, so nobody was told of it: it was cut off");
        } else {
            let aside = self.keep(database.parent().unwrap_or(database))?;
            let aside = aside.display();
            tracing::warn!(%journal, at, bytes, %aside, "the last commits were torn before they were safe on disk, so nobody was told of them: they were cut off and are kept aside");
        }
        let file = OpenOptions::new().write(true).open(&self.journal)?;
        file.set_len(self.at)?;
        file.sync_all()
    }

    /// Keeps it in `folder`.
    fn keep(&self, folder: &Path) -> io::Result<PathBuf> {
        let aside = folder.join(format!("{ASIDE}{}", now()));
        let mut file = File::create(&aside)?;
        file.write_all(&self.bytes)?;
        file.sync_all()?;
        OwnFolder::sync(folder)?;
        Ok(aside)
    }
}
