//! Dead letters: what is left of jobs that will not be tried again by themselves, and of messages that were none.

use bytes::Bytes;
use wf_schema::{BadItem, DeadLetter, Failure, Header, Record, Remains, State, WireError};

use crate::intake::Work;
use crate::pack::{Carried, Cut, pack};
use crate::retry::history;

/// What a letter takes beside what is in it: names, times, a failure.
const ENVELOPE: usize = 4 * 1024;

/// A dead letter, and the index of the first job in it.
#[derive(Debug, PartialEq)]
pub(crate) struct Letter {
    pub(crate) first: u32,
    pub(crate) bytes: Bytes,
}

/// The dead letters for what `record` says has died. Follows from the record, the jobs and the cut alone, so whoever repeats
/// it buries the same.
///
/// # Errors
/// When a job does not fit.
pub(crate) fn letters(record: &Record, work: &Work, cut: Cut) -> Result<Vec<Letter>, WireError> {
    let letter = |remains| {
        let header = record.header();
        DeadLetter { lane: header.lane.clone(), at: header.at, executor: header.executor.clone(), remains }.encode()
    };
    let cut = Cut { several: room(cut.several), one: room(cut.one) };
    let mut letters = Vec::new();
    let mut jobs = Vec::new();
    for outcome in record.iter().filter(|o| matches!(o.state(), State::Discarded | State::Expired)) {
        match (work.job(outcome.index()), work.place_of(outcome.index()).and_then(|place| work.bad_at(place))) {
            (Some(job), _) => {
                jobs.push(Carried { job, attempt: outcome.attempt(), history: Some(history(&job, &outcome, record)) });
            }
            (None, Some(item)) => {
                letters.push(Letter { first: item.index, bytes: letter(raw(undecodable(&item.error), &item.bytes, cut.one)) });
            }
            (None, None) => {}
        }
    }
    let header: &Header = &work.header;
    letters.extend(
        pack(header, &jobs, cut)?.into_iter().map(|(first, bytes)| Letter { first, bytes: letter(Remains::Jobs(bytes)) }),
    );
    Ok(letters)
}

/// What is left of a message, or a part of one, that cannot be read. At most `max` bytes of it: the letter must fit.
pub(crate) fn raw(mut failure: Failure, bytes: &Bytes, max: usize) -> Remains {
    if bytes.len() > max {
        failure = Failure::new(failure.kind, format!("{} (the first {max} of {} bytes are kept)", failure.message, bytes.len()));
    }
    Remains::Raw { failure, bytes: bytes.slice(..bytes.len().min(max)) }
}

/// The bytes that a letter of at most `max` has room for.
pub(crate) fn room(max: usize) -> usize {
    max.saturating_sub(ENVELOPE).max(max / 4)
}

/// Why something is no job.
pub(crate) fn undecodable(why: &str) -> Failure {
    Failure::new("undecodable", why)
}

/// What is recorded for an item that is no job.
pub(crate) fn of_item(item: &BadItem) -> Failure {
    undecodable(&item.error)
}
