//! A message of plain JSON, as the nats CLI sends it: one job, an array of jobs, or a job a line.

use std::ops::Range;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::{Batch, Header, Slot, Span};
use crate::{Job, Kind, Lane, Limits, Millis, Policy, WireError};

/// What a message of plain JSON held.
#[derive(Clone, Debug)]
pub struct JsonBatch {
    /// The jobs that could be read. A job's index is its place in the message, also counting those that could not.
    pub batch: Batch,
    /// What could not be read. It takes nothing along.
    pub bad: Vec<BadItem>,
    /// Jobs that asked to be run later: their places in `batch`, and when.
    pub later: Vec<(usize, Millis)>,
}

/// A part of a message that is no job.
#[derive(Clone, Debug)]
pub struct BadItem {
    /// Its place in the message, from 0: the element of the array, or the line.
    pub index: u32,
    /// What stands there.
    pub bytes: Bytes,
    /// What is wrong with it.
    pub error: String,
}

impl Batch {
    /// Reads a message of plain JSON that was published to `lane`: one object, an array of objects, or an object a
    /// line. `header` is what the batch takes, for the message has none of its own.
    ///
    /// # Errors
    /// When nothing of the message can be read, or it has more jobs than `limits` allow.
    pub fn from_json(message: &Bytes, lane: &Lane, header: Header, limits: &Limits) -> Result<JsonBatch, WireError> {
        if message.len() > limits.raw_bytes {
            return Err(WireError::Limit { what: "the size of the message", value: message.len(), limit: limits.raw_bytes });
        }
        let mut read = Read { kinds: Vec::new(), policies: Vec::new(), slots: Vec::new(), bad: Vec::new(), later: Vec::new() };
        let items = items(message, limits)?;
        for (index, range) in items.into_iter().enumerate() {
            let item = &message[range.clone()];
            let outcome = Job::from_json(item, limits).map_err(|error| error.to_string()).and_then(|job| belongs(job, lane));
            match outcome {
                Ok(job) => read.add(index as u32, &job, message),
                Err(error) => read.bad.push(BadItem { index: index as u32, bytes: message.slice(range), error }),
            }
        }
        let batch = Batch {
            header,
            kinds: read.kinds.into(),
            policies: read.policies.into(),
            slots: read.slots,
            args: message.clone(),
            histories: Bytes::new(),
        };
        Ok(JsonBatch { batch, bad: read.bad, later: read.later })
    }
}

/// A job that names another lane than the one it came through is refused: running it here would be as wrong as
/// dropping what it asked for.
fn belongs<'a>(job: Job<'a>, lane: &Lane) -> Result<Job<'a>, String> {
    let default = Lane::default();
    let elsewhere = (job.lane.queue != default.queue && job.lane.queue != lane.queue)
        || (job.lane.priority != default.priority && job.lane.priority != lane.priority);
    if elsewhere {
        Err(format!("it asks for lane {} but was published to lane {lane}: publish it there", job.lane))
    } else {
        Ok(job)
    }
}

struct Read {
    kinds: Vec<Kind>,
    policies: Vec<Policy>,
    slots: Vec<Slot>,
    bad: Vec<BadItem>,
    later: Vec<(usize, Millis)>,
}

impl Read {
    fn add(&mut self, index: u32, job: &Job<'_>, message: &Bytes) {
        let last = self.slots.last().copied();
        let kind = match last.filter(|l| self.kinds[l.kind as usize].as_str() == job.kind) {
            Some(last) => last.kind as usize,
            None => self.kinds.iter().position(|k| k.as_str() == job.kind).unwrap_or(self.kinds.len()),
        };
        let policy = self.policies.iter().rposition(|p| *p == job.policy).unwrap_or(self.policies.len());
        if kind.max(policy) > usize::from(u16::MAX) {
            let error = "too many different kinds or policies in one message".to_owned();
            return self.bad.push(BadItem { index, bytes: message.slice_ref(&job.args), error });
        }
        if kind == self.kinds.len() {
            match Kind::new(&job.kind) {
                Ok(kind) => self.kinds.push(kind),
                Err(error) => {
                    return self.bad.push(BadItem { index, bytes: message.slice_ref(&job.args), error: error.to_string() });
                }
            }
        }
        if policy == self.policies.len() {
            self.policies.push(job.policy.clone());
        }
        if let Some(at) = job.run_at {
            self.later.push((self.slots.len(), at));
        }
        // The args borrow from the message, so where they are in memory says where they are in it.
        let start = job.args.as_ptr() as usize - message.as_ptr() as usize;
        let args = Span { start: start as u32, len: job.args.len() as u32 };
        self.slots.push(Slot { index, attempt: 1, kind: kind as u16, policy: policy as u16, args, history: Span::default() });
    }
}

/// Where the items of the message are.
fn items(message: &Bytes, limits: &Limits) -> Result<Vec<Range<usize>>, WireError> {
    let base = message.as_ptr() as usize;
    let range = |part: &[u8]| {
        let start = part.as_ptr() as usize - base;
        start..start + part.len()
    };
    let first = message.iter().position(|b| !b.is_ascii_whitespace()).unwrap_or(message.len());
    let mut found = Vec::new();
    match message.get(first) {
        Some(b'[') => {
            let elements: Vec<&RawValue> =
                serde_json::from_slice(message).map_err(|_| WireError::Malformed("a JSON array that does not parse"))?;
            found.extend(elements.into_iter().map(|raw| range(raw.get().as_bytes())));
        }
        // One object, however many lines it takes.
        Some(b'{') if serde_json::from_slice::<&RawValue>(message).is_ok() => found.push(range(message)),
        Some(b'{') => found.extend(message.split(|b| *b == b'\n').map(<[u8]>::trim_ascii).filter(|l| !l.is_empty()).map(range)),
        _ => return Err(WireError::Magic),
    }
    if found.len() > limits.jobs {
        return Err(WireError::Limit { what: "the number of jobs", value: found.len(), limit: limits.jobs });
    }
    Ok(found)
}
