//! How far a run has come, kept as a record at the broker, so that it can be resumed.
//!
//! A segment is written here *before* its batches are published: whatever is published is therefore known, and is
//! cut the same way, with the same ids, when the run is resumed. It is removed *after* its outcomes are in the
//! results: what is not here is settled and reported.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use wf_broker::{Broker, BrokerError, Key, Revision};
use wf_schema::BatchId;

use super::Counts;
use crate::feed::{Plan, Span, Wire};

/// The version of [`Progress`] that is written; others are not read.
const VERSION: u32 = 2;
/// For how many seconds the broker remembers the ends of a run's runs: so long it can be resumed with certainty.
const REMEMBER: u32 = 24 * 3600;

/// How far a run has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Progress {
    version: u32,
    /// What is run.
    pub(super) input: String,
    /// How it is cut, and which segments are open.
    pub(super) plan: Plan,
    /// What became of the jobs of settled segments.
    pub(super) settled: Counts,
    /// What was published so far, in bytes on the wire and in jobs.
    pub(super) wire: Wire,
}

/// The record that keeps a run's [`Progress`].
pub(super) struct Journal {
    broker: Arc<dyn Broker>,
    key: Key,
    revision: Revision,
    progress: Progress,
}

/// Why a run cannot begin, go on, or be resumed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// An earlier run of the same input did not finish.
    #[error(
        "an earlier run of {input} did not finish ({} jobs are settled): go on with --resume, or begin anew with --fresh",
        settled.jobs
    )]
    Unfinished {
        /// What is run.
        input: String,
        /// How far it came.
        settled: Counts,
    },
    /// There is nothing to resume.
    #[error("there is no unfinished run of {input} to resume at this broker: leave out --resume")]
    Nothing {
        /// What is run.
        input: String,
    },
    /// The record was written by another version of this program.
    #[error("the unfinished run of {input} was begun by another version of this program: begin anew with --fresh")]
    Version {
        /// What is run.
        input: String,
    },
    /// Another process runs the same input at the same broker.
    #[error("another process has taken over the run of {input}")]
    TakenOver {
        /// What is run.
        input: String,
    },
    /// The broker did not keep or give the record.
    #[error("the progress of the run cannot be kept")]
    Broker(#[source] BrokerError),
}

/// What to do about an earlier run of the same input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Earlier {
    /// There should be none.
    Refuse,
    /// Go on with it.
    Resume,
    /// Forget it.
    Forget,
}

impl Journal {
    /// Opens the journal of the run of `input`, which is cut with at most `batch_jobs` and `batch_raw_bytes` a batch if
    /// it is new.
    ///
    /// # Errors
    /// When there is an unfinished run and there should be none, or the other way round.
    pub(super) async fn open(
        broker: Arc<dyn Broker>,
        input: &str,
        earlier: Earlier,
        batch_jobs: usize,
        batch_raw_bytes: usize,
    ) -> Result<Self, JournalError> {
        let key = key_of(input)?;
        let found = broker.get(key.clone()).await.map_err(JournalError::Broker)?;
        if let (Some(entry), Earlier::Refuse | Earlier::Resume) = (&found, earlier) {
            let progress = serde_json::from_slice::<Progress>(&entry.bytes).ok().filter(|p| p.version == VERSION);
            let progress = progress.ok_or_else(|| JournalError::Version { input: input.to_owned() })?;
            if earlier == Earlier::Refuse {
                return Err(JournalError::Unfinished { input: input.to_owned(), settled: progress.settled });
            }
            return Ok(Self { broker, key, revision: entry.revision, progress });
        }
        if earlier == Earlier::Resume {
            return Err(JournalError::Nothing { input: input.to_owned() });
        }
        let plan = Plan::new(BatchId::new(), batch_jobs, batch_raw_bytes, broker.max_message()).remembered(REMEMBER);
        let progress =
            Progress { version: VERSION, input: input.to_owned(), plan, settled: Counts::default(), wire: Wire::default() };
        let bytes = written(&progress);
        let answer = match found {
            Some(entry) => broker.update(key.clone(), entry.revision, bytes, None).await,
            None => broker.create(key.clone(), bytes, None).await,
        };
        let revision = answer.map_err(|error| fenced(error, input))?;
        Ok(Self { broker, key, revision, progress })
    }

    /// How far the run has come.
    pub(super) fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Notes in one write that segments are about to be published, and that others are settled and reported.
    ///
    /// # Errors
    /// When the broker does not keep it, or another process has taken the run over.
    pub(super) async fn note(&mut self, planned: &[Span], settled: &[(u64, Counts)], wire: Wire) -> Result<(), JournalError> {
        for span in planned {
            self.progress.plan.open.push_back(*span);
            self.progress.plan.last = Some(*span);
        }
        for (number, counts) in settled {
            self.progress.plan.open.retain(|span| span.number != *number);
            self.progress.settled += *counts;
        }
        self.progress.wire = wire;
        let written = self.broker.update(self.key.clone(), self.revision, written(&self.progress), None).await;
        self.revision = written.map_err(|error| fenced(error, &self.progress.input))?;
        Ok(())
    }

    /// Forgets the run: it is finished.
    ///
    /// # Errors
    /// As [`Journal::note`].
    pub(super) async fn finish(self) -> Result<(), JournalError> {
        self.broker.delete(self.key, self.revision).await.map_err(|error| fenced(error, &self.progress.input))
    }
}

fn key_of(input: &str) -> Result<Key, JournalError> {
    let hash = Sha256::digest(input.as_bytes());
    let name: String = hash.iter().take(12).map(|byte| format!("{byte:02x}")).collect();
    Key::new(&format!("run.{name}")).map_err(|error| JournalError::Broker(BrokerError::fatal("name the run", error)))
}

fn written(progress: &Progress) -> Bytes {
    // Writing plain numbers and strings as JSON cannot fail.
    serde_json::to_vec(progress).unwrap_or_default().into()
}

fn fenced(error: BrokerError, input: &str) -> JournalError {
    match error {
        BrokerError::Fenced => JournalError::TakenOver { input: input.to_owned() },
        other => JournalError::Broker(other),
    }
}
