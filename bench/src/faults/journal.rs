//! What every process of a round writes down, so that it is known also when the process is killed.
//!
//! A line an entry, one write a line to a file opened for appending: what was written is there, whatever becomes of
//! the writer.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use wf_schema::JobId;

use super::clock::Clock;

/// Something that happened, and when, in milliseconds of the round's [`Clock`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Line {
    pub(crate) at: u64,
    #[serde(flatten)]
    pub(crate) entry: Entry,
}

/// What happened to the job called `key`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub(crate) enum Entry {
    /// A producer is about to send it. `once`: under a name of its own, so that sending it again must not double it.
    Intent { key: String, once: bool },
    /// What the producer was told.
    Answer { key: String, told: Told },
    /// A handler begins.
    Begun { key: String, id: JobId, attempt: u32 },
    /// A handler ends, and is about to say so.
    Ended { key: String, id: JobId, attempt: u32, completed: bool },
}

/// An answer to a producer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "told", rename_all = "snake_case")]
pub(crate) enum Told {
    /// It is stored; `spool`: at ingest, not at the broker yet.
    Accepted { spool: bool },
    /// It is not stored, and why.
    Refused { why: String },
    /// Nobody can tell.
    Unknown { why: String },
}

/// A journal that is being written.
#[derive(Debug)]
pub(crate) struct Journal {
    file: File,
    clock: Clock,
}

impl Journal {
    /// Appends to the journal at `path`.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path);
        Ok(Self { file: file.with_context(|| format!("no journal at {}", path.display()))?, clock: Clock::new() })
    }

    /// Writes `entry` down.
    ///
    /// # Errors
    /// When it cannot be written: then nothing that follows counts.
    pub(crate) fn write(&self, entry: Entry) -> std::io::Result<()> {
        let mut line = serde_json::to_vec(&Line { at: self.clock.now(), entry })?;
        line.push(b'\n');
        (&self.file).write_all(&line)
    }
}

/// All of the journal at `path`. A last line without its end was never written.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn read(path: &Path) -> anyhow::Result<Vec<Line>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("no journal at {}", path.display()))?;
    let whole = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
    whole.map(|line| serde_json::from_str(line).with_context(|| format!("{}: {line}", path.display()))).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_half_a_line_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let id: JobId = "01JDB6K3Q2M8X7Z9V4T5R6W1YC-42".parse().unwrap();
        let entries = [
            Entry::Intent { key: "a".into(), once: true },
            Entry::Answer { key: "a".into(), told: Told::Accepted { spool: false } },
            Entry::Answer { key: "a".into(), told: Told::Refused { why: "no\nroom".into() } },
            Entry::Begun { key: "a".into(), id, attempt: 2 },
            Entry::Ended { key: "a".into(), id, attempt: 2, completed: false },
        ];
        for entry in &entries {
            // As another process that appends to the same file.
            Journal::open(&path).unwrap().write(entry.clone()).unwrap();
        }
        OpenOptions::new().append(true).open(&path).unwrap().write_all(br#"{"at":7,"#).unwrap();
        let read: Vec<Entry> = read(&path).unwrap().into_iter().map(|line| line.entry).collect();
        assert_eq!(read, entries);
    }
}
