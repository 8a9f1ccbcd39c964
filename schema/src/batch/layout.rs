//! How a batch lies on the wire: postcard of [`Columns`].

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::builder::{BatchBuilder, Carried};
use super::{Batch, Header, Slot};
use crate::column::Span;
use crate::frame::write;
use crate::table::Table;
use crate::{Backoff, Kind, Limits, PastFailure, Policy, WireError, column, frame};

/// The body of a batch. Columns are bytes to postcard: it copies and borrows them whole.
#[derive(Serialize, Deserialize)]
struct Columns<'a> {
    header: Header,
    #[serde(borrow)]
    kinds: Table<&'a str>,
    policies: Table<Policy>,
    count: u32,
    /// A byte a job; empty when there is one kind only.
    #[serde(borrow, with = "serde_bytes")]
    kind_of: &'a [u8],
    /// A byte a job; empty when there is one policy only.
    #[serde(borrow, with = "serde_bytes")]
    policy_of: &'a [u8],
    /// A varint a job.
    #[serde(borrow, with = "serde_bytes")]
    args_len: &'a [u8],
    #[serde(borrow, with = "serde_bytes")]
    args: &'a [u8],
    /// A varint a job; empty when job n has index n, at its first attempt, with no past.
    #[serde(borrow, with = "serde_bytes")]
    indexes: &'a [u8],
    #[serde(borrow, with = "serde_bytes")]
    attempts: &'a [u8],
    #[serde(borrow, with = "serde_bytes")]
    history_len: &'a [u8],
    #[serde(borrow, with = "serde_bytes")]
    histories: &'a [u8],
}

pub(super) fn encode(batch: &BatchBuilder) -> Vec<u8> {
    let none = Carried::default();
    let carried = batch.carried.as_ref().unwrap_or(&none);
    let mut header = batch.header.clone();
    // Readers refuse a longer one, and no trace is worth a batch.
    header.trace = header.trace.filter(|trace| trace.len() <= Limits::TRACE);
    let columns = Columns {
        header,
        kinds: Table(batch.kinds.iter().map(String::as_str).collect()),
        policies: Table(batch.policies.clone()),
        count: batch.count,
        kind_of: if batch.kinds.len() > 1 { &batch.kind_of } else { &[] },
        policy_of: if batch.policies.len() > 1 { &batch.policy_of } else { &[] },
        args_len: &batch.args_len,
        args: &batch.args,
        indexes: &carried.indexes,
        attempts: &carried.attempts,
        history_len: &carried.history_len,
        histories: &carried.histories,
    };
    let mut body = Vec::with_capacity(batch.raw_len() + 512);
    body.push(frame::Content::Batch as u8);
    write(&columns, body)
}

pub(super) fn decode(body: &Bytes, limits: &Limits) -> Result<Batch, WireError> {
    let columns: Columns<'_> = frame::read(body, "the columns of a batch")?;
    let count = columns.count as usize;
    if count > limits.jobs {
        return Err(WireError::Limit { what: "the number of jobs", value: count, limit: limits.jobs });
    }
    // Every job takes at least a byte of this column, so nothing below allocates more than the message warrants.
    if count > columns.args_len.len() {
        return Err(WireError::Malformed("more jobs than columns"));
    }
    if columns.header.trace.as_ref().is_some_and(|trace| trace.len() > Limits::TRACE) {
        return Err(WireError::Malformed("the trace is too long"));
    }
    let kinds = columns.kinds.0.iter().map(|k| Kind::new(k)).collect::<Result<_, _>>();
    let mut batch = Batch {
        header: columns.header,
        kinds: kinds.map_err(|_| WireError::Malformed("a kind is no name"))?,
        policies: columns.policies.0.into_iter().map(within_limits).collect(),
        slots: Vec::with_capacity(count),
        args: body.slice_ref(columns.args),
        histories: body.slice_ref(columns.histories),
    };
    let kind_of = column::places(columns.kind_of, batch.kinds.len(), count)?;
    let policy_of = column::places(columns.policy_of, batch.policies.len(), count)?;
    let plain = columns.indexes.is_empty();
    let mut args_len = column::Reader(columns.args_len);
    let mut indexes = column::Reader(columns.indexes);
    let mut attempts = column::Reader(columns.attempts);
    let mut history_len = column::Reader(columns.history_len);
    let (mut args, mut history) = (Span::default(), Span::default());
    for n in 0..count {
        let index = if plain { n as u32 } else { indexes.next()? };
        let attempt = if plain { 1 } else { attempts.next()? };
        if attempt == 0 {
            return Err(WireError::Malformed("attempts count from 1"));
        }
        args = args_len.next_span(args, batch.args.len())?;
        if args.len as usize > limits.args_bytes {
            return Err(WireError::Limit { what: "the args of a job", value: args.len as usize, limit: limits.args_bytes });
        }
        if !plain {
            history = history_len.next_span(history, batch.histories.len())?;
        }
        let kind = kind_of.get(n).map_or(0, |at| u16::from(*at));
        let policy = policy_of.get(n).map_or(0, |at| u16::from(*at));
        batch.slots.push(Slot { index, attempt, kind, policy, args, history });
    }
    for column in [args_len, indexes, attempts, history_len] {
        column.end()?;
    }
    Ok(batch)
}

/// A policy as it may be run by. Writers in other versions, or with other limits, are not a reason to lose the jobs, so
/// what is out of bounds is taken as the nearest that is not.
fn within_limits(policy: Policy) -> Policy {
    let max_timeout = Policy::MAX_TIMEOUT.as_millis() as u64;
    let max_backoff = Policy::MAX_BACKOFF.as_millis() as u64;
    let min_ms = policy.backoff.min_ms.min(max_backoff);
    Policy {
        max_attempts: policy.max_attempts.clamp(1, Policy::MAX_ATTEMPTS),
        timeout_ms: policy.timeout_ms.clamp(1, max_timeout),
        backoff: Backoff { min_ms, max_ms: policy.backoff.max_ms.clamp(min_ms, max_backoff) },
        ..policy
    }
}

/// The newest of `history` that fit into what a job may carry along.
pub(super) fn encode_history(history: &[PastFailure]) -> Vec<u8> {
    let mut newest = &history[history.len().saturating_sub(Limits::HISTORY)..];
    loop {
        let bytes = if newest.is_empty() { Vec::new() } else { write(&newest, Vec::new()) };
        if bytes.len() <= Limits::HISTORY_BYTES || newest.is_empty() {
            return bytes;
        }
        newest = &newest[1..];
    }
}

pub(super) fn decode_history(bytes: &[u8]) -> Vec<PastFailure> {
    if bytes.is_empty() || bytes.len() > Limits::HISTORY_BYTES {
        Vec::new()
    } else {
        frame::read(bytes, "a history").map(|Table(history)| history).unwrap_or_default()
    }
}
