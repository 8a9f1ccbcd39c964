//! What runs: each attempt once, but for those that the promise excepts.

use bytes::Bytes;
use tokio::time::Instant;
use wf_broker::RunLog;
use wf_schema::{JobId, Limits, Record, State};

use super::{Attempt, Start, Truth};
use crate::simulate::clock;

/// The most often that one attempt may ever start: what comes back more often comes back for ever.
const MOST_STARTS: usize = 12;
/// How long `wf run` may take from giving back what it has to its end.
const WINDING_UP: std::time::Duration = std::time::Duration::from_secs(15);

impl Truth {
    /// A message is on its way to a node.
    pub(crate) fn delivered(&mut self, uid: u64, node: usize, life: u32) {
        if let Some(message) = self.messages.get_mut(&uid) {
            message.deliveries.push((Instant::now(), node, life));
        }
    }

    /// A node was shown the log of a message, as it stood at `shown`.
    pub(crate) fn looked(&mut self, uid: u64, node: usize, life: u32, shown: Instant) {
        self.looked.insert((node, life, uid), (Instant::now(), shown));
    }

    /// A record stands in the log of a message.
    pub(crate) fn appended(&mut self, uid: u64, bytes: &Bytes) {
        let Ok(record) = Record::decode(bytes, &Limits::default()) else { return };
        let now = Instant::now();
        for outcome in record.iter() {
            let attempt = self.attempts.entry((outcome.id(), outcome.attempt())).or_default();
            attempt.records.push((uid, now, outcome.state()));
            let tag = attempt.tag;
            if outcome.state().is_final()
                && let Some(tag) = self.tags.get_mut(&tag)
            {
                tag.ended = Some(outcome.state());
            }
        }
    }

    /// A node was told that another has taken a message over.
    pub(crate) fn fenced(&mut self, uid: u64, node: usize) {
        self.fenced.push((Instant::now(), node, uid));
    }

    /// A handler begins: the message that it came with.
    pub(crate) fn started(&mut self, job: JobId, number: u32, node: usize, life: u32) {
        let now = Instant::now();
        let Some(attempt) = self.attempts.get(&(job, number)) else {
            return self.violated("unknown job", format!("{job} attempt {number} runs and was never stored"));
        };
        let came = |uid: &&u64| {
            let deliveries = self.messages.get(uid).map(|message| &message.deliveries);
            deliveries.is_some_and(|all| all.iter().any(|(_, n, l)| (*n, *l) == (node, life)))
        };
        // If several bring it there, nobody can tell which one this is.
        let messages: Vec<u64> = attempt.messages.iter().filter(came).copied().collect();
        if messages.is_empty() {
            return self.violated("unknown job", format!("{job} attempt {number} runs where it was not delivered"));
        }
        let start = Start { at: now, node, life, messages };
        let excused = self.tags.get(&attempt.tag).is_none_or(|tag| tag.excused);
        if !excused {
            self.judge(job, number, &start);
        }
        if let Some(attempt) = self.attempts.get_mut(&(job, number)) {
            attempt.starts.push(start);
        }
    }

    /// Whether this start is one too many.
    fn judge(&mut self, job: JobId, number: u32, start: &Start) {
        let Some(attempt) = self.attempts.get(&(job, number)) else { return };
        let tag = attempt.tag;
        if let Some((at, state)) = self.settled_before(attempt, start) {
            let ago = start.at.saturating_duration_since(at).as_millis();
            let detail = format!("job {tag} ({job}, attempt {number}) starts and is on record as {state:?} since {ago} ms");
            return self.violated("settled runs again", detail);
        }
        if attempt.starts.len() + 1 > MOST_STARTS {
            return self.violated("runs for ever", format!("job {tag} ({job}, attempt {number}) starts the {MOST_STARTS}th time"));
        }
        let Some(before) = attempt.starts.iter().rev().find(|before| before.messages == start.messages) else { return };
        if start.messages.len() > 1 {
            return;
        }
        let first = |start: &Start| self.came(start).next().unwrap_or(start.at);
        let (node, at) = (before.node, first(before).min(first(start)));
        if !self.has_reason(node, at, start) {
            let ms = clock::elapsed();
            let detail = format!("at {ms} ms: job {tag} ({job}, attempt {number}) starts again, and nothing had happened to its executor");
            self.unexplained.push((node, at, start.clone(), detail));
        }
    }

    /// Since when, and how, the log of what is begun has settled it, as far as whoever begins it was shown.
    fn settled_before(&self, attempt: &Attempt, start: &Start) -> Option<(Instant, State)> {
        let mut found = None;
        for message in &start.messages {
            let one = Start { messages: vec![*message], ..start.clone() };
            // What it was shown since it has the message.
            let came = self.came(&one).last().unwrap_or(start.at);
            let (_, shown) = self.looked.get(&(start.node, start.life, *message)).filter(|(when, _)| *when >= came)?;
            let (_, at, state) = attempt.records.iter().find(|(uid, at, _)| uid == message && at < shown)?;
            // A server that forgets an ack forgets the end of its log, too, once its time is over.
            let back = self.messages.get(message).is_some_and(|message| message.back);
            if back && *at + self.window <= start.at {
                return None;
            }
            found = Some((*at, *state));
        }
        found
    }

    /// When the messages of this start came to whoever made it.
    fn came<'a>(&'a self, start: &'a Start) -> impl Iterator<Item = Instant> + 'a {
        let (at, node, life) = (start.at, start.node, start.life);
        let deliveries = start.messages.iter().filter_map(|uid| self.messages.get(uid)).flat_map(|message| &message.deliveries);
        deliveries.filter(move |(when, n, l)| *when <= at && (*n, *l) == (node, life)).map(|(when, _, _)| *when)
    }

    /// Whether there is a reason why what `node` began at `at` is begun again.
    pub(super) fn has_reason(&self, node: usize, at: Instant, start: &Start) -> bool {
        // Who is fenced was overtaken; that, too, has its reasons, and they are looked at where the other began.
        let fenced = self.fenced.iter().any(|(when, who, of)| *when >= at && *who == node && start.messages.contains(of));
        fenced
            || self.drained(node, at, start.at)
            || self.disturbed(node, at, start.at)
            || self.disturbed(start.node, at, start.at)
            || self.ends.iter().any(|(when, who)| *who == node && (at..start.at + WINDING_UP).contains(when))
    }

    /// A handler ends.
    pub(crate) fn ended(&mut self, job: JobId, number: u32, node: usize, life: u32, well: bool) {
        if let Some(attempt) = self.attempts.get_mut(&(job, number)) {
            attempt.ends.push((Instant::now(), node, life, well));
        }
    }

    /// A message is removed because somebody acknowledged it: each of its jobs must have an end.
    pub(crate) fn removed(&mut self, uid: u64) {
        let now = Instant::now();
        let Some(message) = self.messages.get_mut(&uid) else { return };
        message.removed = Some(now);
        let (jobs, id) = (message.jobs.clone(), message.id.clone());
        for (job, number, tag) in jobs {
            if self.tags.get(&tag).is_none_or(|tag| tag.excused) {
                continue;
            }
            let Some(missing) = self.missing(job, number, uid) else { continue };
            self.violated("acknowledged", format!("{id} is acknowledged, and job {tag} ({job}, attempt {number}) {missing}"));
        }
    }

    /// What is missing before the message of this attempt may go.
    fn missing(&self, job: JobId, number: u32, uid: u64) -> Option<&'static str> {
        let attempt = self.attempts.get(&(job, number))?;
        let Some((_, _, state)) = attempt.records.iter().rev().find(|(of, _, _)| *of == uid) else {
            let well = attempt.ends.iter().any(|(_, _, _, well)| *well);
            return (!well).then_some("has neither a record nor completed");
        };
        match state {
            State::Retryable => {
                let next = self.attempts.get(&(job, number + 1)).is_some_and(|next| !next.messages.is_empty());
                (!next).then_some("is to be tried again, and no message brings it back")
            }
            State::Moved => {
                let moved = attempt.messages.iter().any(|other| *other > uid);
                (!moved).then_some("was moved, and no message has it")
            }
            State::Discarded | State::Expired => (!attempt.buried).then_some("has died without a dead letter"),
            _ => None,
        }
    }

    /// The message that a log belongs to, of those that were not undone.
    pub(crate) fn message_of(&self, log: &RunLog) -> Option<u64> {
        let of = |message: &super::Message| message.run == Some(log.run) && !message.undone && message.id == *log.message;
        self.messages.iter().rev().find(|(_, message)| of(message)).map(|(uid, _)| *uid)
    }
}
