//! How a record lies on the wire: postcard of [`Columns`].

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Failed, Mark, Record, RecordBuilder, RecordHeader, Slot};
use crate::column::Span;
use crate::frame::write;
use crate::table::Table;
use crate::{Kind, Limits, State, WireError, column, frame};

#[derive(Serialize, Deserialize)]
struct Columns<'a> {
    header: RecordHeader,
    #[serde(borrow)]
    kinds: Table<&'a str>,
    count: u32,
    /// A byte an outcome; empty when there is one kind only.
    #[serde(borrow, with = "serde_bytes")]
    kind_of: &'a [u8],
    /// A byte an outcome; empty when all completed.
    #[serde(borrow, with = "serde_bytes")]
    states: &'a [u8],
    /// A varint an outcome; empty when outcome n is of job n.
    #[serde(borrow, with = "serde_bytes")]
    indexes: &'a [u8],
    /// A varint an outcome; empty like `indexes`, then all attempts were the first.
    #[serde(borrow, with = "serde_bytes")]
    attempts: &'a [u8],
    /// A varint an outcome; empty when there are no results.
    #[serde(borrow, with = "serde_bytes")]
    result_len: &'a [u8],
    #[serde(borrow, with = "serde_bytes")]
    results: &'a [u8],
    /// The postcard of one [`Failed`] after another, one for each outcome that did not complete.
    #[serde(borrow, with = "serde_bytes")]
    failures: &'a [u8],
}

pub(super) fn encode(record: &RecordBuilder) -> Vec<u8> {
    let none: &[u8] = &[];
    let columns = Columns {
        header: record.header.clone(),
        kinds: Table(record.kinds.iter().map(Kind::as_str).collect()),
        count: record.count,
        kind_of: if record.kinds.len() > 1 { &record.kind_of } else { none },
        states: if record.failures.is_empty() { none } else { &record.states },
        indexes: if record.plain { none } else { &record.indexes },
        attempts: if record.plain { none } else { &record.attempts },
        result_len: if record.results.is_empty() { none } else { &record.result_len },
        results: &record.results,
        failures: &record.failures,
    };
    let mut body = Vec::with_capacity(record.raw_len() + 512);
    // A record without a mark is what it was before there were any.
    match &record.mark {
        None => body.push(frame::Content::Record as u8),
        Some(mark) => {
            body.push(frame::Content::MarkedRecord as u8);
            body = write(mark, body);
        }
    }
    write(&columns, body)
}

pub(super) fn decode(body: &Bytes, marked: bool, limits: &Limits) -> Result<Record, WireError> {
    let (mark, rest) = if marked { read_mark(body, limits)? } else { (None, &body[..]) };
    let columns: Columns<'_> = frame::read(rest, "the columns of a record")?;
    let count = columns.count as usize;
    // A record in which all completed, plainly, has no column at all: only the limit bounds it.
    if count > limits.jobs {
        return Err(WireError::Limit { what: "the number of outcomes", value: count, limit: limits.jobs });
    }
    // A run id becomes a part of names at the broker, so nothing else may pass for one.
    if columns.header.run.to_string().parse() != Ok(columns.header.run) {
        return Err(WireError::Malformed("a run id"));
    }
    let kinds = columns.kinds.0.iter().map(|k| Kind::new(k)).collect::<Result<_, _>>();
    let mut record = Record {
        header: columns.header,
        kinds: kinds.map_err(|_| WireError::Malformed("a kind is no name"))?,
        slots: Vec::with_capacity(count),
        results: body.slice_ref(columns.results),
        failures: Vec::new(),
        mark,
    };
    let kind_of = column::places(columns.kind_of, record.kinds.len(), count)?;
    if !columns.states.is_empty() && columns.states.len() != count {
        return Err(WireError::Malformed("the states of a record"));
    }
    let plain = columns.indexes.is_empty();
    let mut indexes = column::Reader(columns.indexes);
    let mut attempts = column::Reader(columns.attempts);
    let mut result_len = column::Reader(columns.result_len);
    let mut failures = columns.failures;
    let mut result = Span::default();
    for n in 0..count {
        let state = State::from_byte(columns.states.get(n).copied().unwrap_or_default())
            .ok_or(WireError::Malformed("a state is not known"))?;
        let failure = if state == State::Completed {
            None
        } else {
            let (failed, rest) = postcard::take_from_bytes::<Failed>(failures).map_err(|_| WireError::Malformed("a failure"))?;
            failures = rest;
            record.failures.push(failed);
            Some(record.failures.len() as u32 - 1)
        };
        if !columns.result_len.is_empty() {
            result = result_len.next_span(result, record.results.len())?;
        }
        let attempt = if plain { 1 } else { attempts.next()? };
        if attempt == 0 {
            return Err(WireError::Malformed("attempts count from 1"));
        }
        record.slots.push(Slot {
            index: if plain { n as u32 } else { indexes.next()? },
            attempt,
            kind: kind_of.get(n).map_or(0, |at| u16::from(*at)),
            state,
            result,
            failure,
        });
    }
    for column in [indexes, attempts, result_len] {
        column.end()?;
    }
    if failures.is_empty() { Ok(record) } else { Err(WireError::Malformed("more failures than outcomes that failed")) }
}

/// The mark that `body` begins with, and the rest.
fn read_mark<'a>(body: &'a [u8], limits: &Limits) -> Result<(Option<Mark>, &'a [u8]), WireError> {
    // Before anything is allocated for it: how many jobs it claims to have, if it is of that sort.
    let claimed = postcard::take_from_bytes::<(u32, u32)>(body).map_or(0, |((sort, count), _)| if sort >= 2 { count } else { 0 });
    if claimed as usize > limits.jobs {
        return Err(WireError::Limit { what: "the number of marked jobs", value: claimed as usize, limit: limits.jobs });
    }
    let (mark, rest) = postcard::take_from_bytes(body).map_err(|_| WireError::Malformed("the mark of a record"))?;
    Ok((Some(mark), rest))
}
