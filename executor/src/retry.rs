//! Whether and when a failed job is tried again, and the messages that carry it there.

use std::collections::BTreeMap;

use bytes::Bytes;
use wf_schema::{BatchId, Header, JobView, Millis, OutcomeView, PastFailure, Record, State, WireError};

use crate::JobFailure;
use crate::intake::Work;
use crate::outcome::Outcome;
use crate::pack::{Carried, Cut, pack};

/// What becomes of the job at `place` that failed at `at`. `random` is uniform in 0..1.
pub(crate) fn judge(job: &JobView<'_>, place: usize, failure: JobFailure, at: Millis, random: f64) -> Outcome {
    let last = failure.is_permanent() || job.attempt() >= job.policy().max_attempts;
    let failure = Some(failure.into_failure());
    if last {
        return Outcome::otherwise(place, State::Discarded, failure, None);
    }
    let delay = job.policy().backoff.delay(job.attempt(), random).as_millis() as Millis;
    Outcome::otherwise(place, State::Retryable, failure, Some(due(job.id().batch, at, delay)))
}

/// When a retry after `delay` ms is due: jobs of one batch that are due at about the same time share one time, and so
/// one message. Never earlier than asked for, and later by at most an eighth of the delay or 100 ms. The shared times
/// of different batches lie apart.
fn due(batch: BatchId, at: Millis, delay: Millis) -> Millis {
    if delay == 0 {
        return at;
    }
    let width = (delay / 8).clamp(100, 60_000);
    // Widths of a power of two, or each delay would have times of its own.
    let width = 1 << width.ilog2();
    let offset = batch.as_u128() as Millis % width;
    (at + delay - offset).div_ceil(width) * width + offset
}

/// A message that brings jobs back.
#[derive(Debug, PartialEq)]
pub(crate) struct Again {
    /// When; `None` is at once.
    pub(crate) due: Option<Millis>,
    /// The index of its first job.
    pub(crate) first: u32,
    pub(crate) bytes: Bytes,
}

/// The messages that bring back the jobs which `record` says go on. Follows from the record, the jobs and the cut alone, so
/// whoever repeats it publishes the same.
///
/// # Errors
/// When a job does not fit.
pub(crate) fn messages(record: &Record, work: &Work, cut: Cut) -> Result<Vec<Again>, WireError> {
    let mut by_due: BTreeMap<Millis, Vec<Carried<'_>>> = BTreeMap::new();
    // Pieces of a batch that was split: each piece has a time of its own, and it has passed.
    let mut pieces: BTreeMap<Millis, Vec<Carried<'_>>> = BTreeMap::new();
    let at = record.header().at;
    for outcome in record.iter() {
        let Some(job) = work.job(outcome.index()) else { continue };
        let due = outcome.retry_at().unwrap_or(at);
        // Moved is not an attempt: it only goes elsewhere.
        let moved = Carried { job, attempt: outcome.attempt(), history: None };
        match outcome.state() {
            State::Retryable => by_due.entry(due).or_default().push(Carried {
                job,
                attempt: outcome.attempt().saturating_add(1),
                history: Some(history(&job, &outcome, record)),
            }),
            State::Moved if due > at => by_due.entry(due).or_default().push(moved),
            State::Moved => pieces.entry(due).or_default().push(moved),
            _ => {}
        }
    }
    let mut messages = Vec::new();
    let mut add = |header: &Header, due: Option<Millis>, jobs: &[Carried<'_>]| {
        messages.extend(pack(header, jobs, cut)?.into_iter().map(|(first, bytes)| Again { due, first, bytes }));
        Ok::<_, WireError>(())
    };
    for (due, jobs) in by_due {
        let header = Header { due: Some(due), ..work.header.clone() };
        add(&header, Some(due).filter(|due| *due > at), &jobs)?;
    }
    // They have been waiting all the while, and where they are counted from stays.
    let header = Header { hops: work.header.hops.saturating_add(1), ..work.header.clone() };
    for jobs in pieces.into_values() {
        add(&header, None, &jobs)?;
    }
    Ok(messages)
}

/// The job's past failures with that of `outcome` added.
pub(crate) fn history(job: &JobView<'_>, outcome: &OutcomeView<'_>, record: &Record) -> Vec<PastFailure> {
    let mut history = job.history();
    if let Some(failure) = outcome.failure() {
        history.push(PastFailure { attempt: outcome.attempt(), at: record.header().at, failure: failure.clone() });
    }
    history
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_retry_is_never_early_and_hardly_late(batch: u128, at in 1u64 << 20..1 << 42, delay in 0u64..700_000_000) {
            let due = due(BatchId::from(batch), at, delay);
            prop_assert!(due >= at + delay);
            prop_assert!(due - at - delay <= (delay / 8).max(100));
        }
    }

    #[test]
    fn jobs_of_a_batch_that_fail_together_come_back_together() {
        let batch = BatchId::new();
        let mut times: Vec<_> = (0..1_000).map(|n| due(batch, 1_795_323_672_000, 5_000 + 5 * n)).collect();
        times.dedup();
        assert!(times.len() <= 12, "{} messages for 1000 jobs due within 5 s", times.len());
    }
}
