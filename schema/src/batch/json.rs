//! A message of plain JSON, as the nats CLI sends it: one job, an array of jobs, or a job a line.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use serde::Deserializer as _;
use serde::de::{SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{Batch, Header, Slot};
use crate::column::Span;
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
        // Where things are in a message is kept in 32 bits.
        let limit = limits.raw_bytes.min(u32::MAX as usize);
        if message.len() > limit {
            return Err(WireError::Limit { what: "the size of the message", value: message.len(), limit });
        }
        let mut read = Read::default();
        for (index, range) in items(message, limits.jobs)?.into_iter().enumerate() {
            let taken = Job::from_json(&message[range.clone()], limits)
                .map_err(|error| error.to_string())
                .and_then(|job| belongs(job, lane))
                .and_then(|job| read.add(index as u32, &job, message));
            if let Err(error) = taken {
                read.bad.push(BadItem { index: index as u32, bytes: message.slice(range), error });
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

#[derive(Default)]
struct Read {
    kinds: Vec<Kind>,
    policies: Vec<Policy>,
    /// Where in the tables what was seen before is: a message may have as many kinds and policies as jobs.
    kind_at: HashMap<Kind, u16>,
    policy_at: HashMap<Policy, u16>,
    slots: Vec<Slot>,
    bad: Vec<BadItem>,
    later: Vec<(usize, Millis)>,
}

impl Read {
    fn add(&mut self, index: u32, job: &Job<'_>, message: &Bytes) -> Result<(), String> {
        let args = range_within(message, &job.args);
        let (kind, policy) = (self.kind(&job.kind)?, self.policy(&job.policy)?);
        if let Some(at) = job.run_at {
            self.later.push((self.slots.len(), at));
        }
        let args = Span { start: args.start as u32, len: args.len() as u32 };
        self.slots.push(Slot { index, attempt: 1, kind, policy, args, history: Span::default() });
        Ok(())
    }

    fn kind(&mut self, name: &str) -> Result<u16, String> {
        // Neighbours are mostly alike.
        if let Some(last) = self.slots.last().filter(|last| self.kinds[last.kind as usize].as_str() == name) {
            return Ok(last.kind);
        }
        if let Some(at) = self.kind_at.get(name) {
            return Ok(*at);
        }
        let at = next_place(self.kinds.len())?;
        let kind = Kind::new(name).map_err(|error| error.to_string())?;
        self.kinds.push(kind.clone());
        self.kind_at.insert(kind, at);
        Ok(at)
    }

    fn policy(&mut self, policy: &Policy) -> Result<u16, String> {
        if let Some(last) = self.slots.last().filter(|last| self.policies[last.policy as usize] == *policy) {
            return Ok(last.policy);
        }
        if let Some(at) = self.policy_at.get(policy) {
            return Ok(*at);
        }
        let at = next_place(self.policies.len())?;
        self.policies.push(policy.clone());
        self.policy_at.insert(policy.clone(), at);
        Ok(at)
    }
}

fn next_place(len: usize) -> Result<u16, String> {
    u16::try_from(len).map_err(|_| "the message has more than 65536 different kinds or policies: send several".to_owned())
}

/// Where `part`, which borrows from `whole`, is in it.
fn range_within(whole: &[u8], part: &[u8]) -> Range<usize> {
    let start = (part.as_ptr() as usize).saturating_sub(whole.as_ptr() as usize);
    let end = whole.len().min(start + part.len());
    start.min(end)..end
}

/// Where the items of the message are: at most `max`.
fn items(message: &[u8], max: usize) -> Result<Vec<Range<usize>>, WireError> {
    let mut found = Vec::new();
    match message.iter().find(|b| !b.is_ascii_whitespace()) {
        Some(b'[') => {
            let mut json = serde_json::Deserializer::from_slice(message);
            let read = json.deserialize_seq(Elements { message, max, found: &mut found }).and_then(|()| json.end());
            if found.len() <= max && read.is_err() {
                return Err(WireError::Malformed("a JSON array that does not parse"));
            }
        }
        // One object, however many lines it takes.
        Some(b'{') if serde_json::from_slice::<&RawValue>(message).is_ok() => found.push(0..message.len()),
        Some(b'{') => {
            let lines = message.split(|b| *b == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
            found.extend(lines.take(max + 1).map(|line| range_within(message, line)));
        }
        _ => return Err(WireError::Magic),
    }
    if found.len() > max {
        return Err(WireError::Limit { what: "the number of jobs", value: found.len(), limit: max });
    }
    Ok(found)
}

/// Finds the elements of an array, and stops at the first beyond `max`.
struct Elements<'m, 'f> {
    message: &'m [u8],
    max: usize,
    found: &'f mut Vec<Range<usize>>,
}

impl<'m> Visitor<'m> for Elements<'m, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an array of at most {} jobs", self.max)
    }

    fn visit_seq<A: SeqAccess<'m>>(self, mut elements: A) -> Result<(), A::Error> {
        while let Some(element) = elements.next_element::<&RawValue>()? {
            self.found.push(range_within(self.message, element.get().as_bytes()));
            if self.found.len() > self.max {
                return Err(serde::de::Error::invalid_length(self.found.len(), &self));
            }
        }
        Ok(())
    }
}
