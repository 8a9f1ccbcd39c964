//! What the simulated broker stores. Keeps the contract and nothing more: what JetStream was seen to forget, it forgets.

mod lanes;
mod records;
mod runs;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use wf_broker::{BrokerError, Buried, Key, Scheduled, Stored};
use wf_schema::{BatchId, Lane, Millis, Queue, RunId};

pub(crate) use records::Written;

/// A stored message.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    /// Which message it is, over all that were ever stored: sequences are used again after a rollback, this is not.
    pub(crate) uid: u64,
    pub(crate) run: RunId,
    pub(crate) lane: Lane,
    pub(crate) id: Arc<str>,
    pub(crate) bytes: Bytes,
    pub(crate) at: Millis,
    pub(crate) delivered: u64,
    pub(crate) state: State,
}

/// Where a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// To be delivered, from then on.
    Waiting(Instant),
    /// With somebody, until then at least.
    Out { until: Instant, node: usize, life: u32 },
}

/// A message for later.
#[derive(Clone, Debug)]
pub(crate) struct Later {
    pub(crate) uid: u64,
    pub(crate) scheduled: Scheduled,
}

/// What settings it has.
#[derive(Clone, Debug)]
pub(crate) struct Bounds {
    pub(crate) lease: Duration,
    pub(crate) window: Duration,
    pub(crate) lane_messages: usize,
    pub(crate) message_bytes: usize,
    pub(crate) copies: usize,
}

/// All that is stored. A clone is what a rollback brings back.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(crate) bounds: Bounds,
    pub(crate) messages: BTreeMap<RunId, Kept>,
    lanes: BTreeMap<Lane, BTreeSet<RunId>>,
    pub(crate) later: BTreeMap<Key, Later>,
    /// What was removed lately, with the time.
    removed: VecDeque<(Instant, Kept)>,
    sequences: BTreeMap<char, u64>,
    /// The ids that are remembered: since when, and of which message.
    ids: BTreeMap<String, (Instant, Option<RunId>)>,
    pub(crate) logs: BTreeMap<(BatchId, RunId), Vec<runs::Logged>>,
    /// What readers see of the logs, in the order of its writing, bounded.
    pub(crate) copies: VecDeque<runs::Copy>,
    /// From when on all copies are there.
    pub(crate) kept_since: Millis,
    pub(crate) keyed: BTreeMap<Key, Vec<Written>>,
    pub(crate) dead: Vec<Buried>,
    pub(crate) paused: BTreeMap<Queue, Millis>,
    /// Lanes that have no room, until then.
    pub(crate) full: BTreeMap<Lane, Instant>,
}

impl Server {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            messages: BTreeMap::new(),
            lanes: BTreeMap::new(),
            later: BTreeMap::new(),
            removed: VecDeque::new(),
            sequences: BTreeMap::new(),
            ids: BTreeMap::new(),
            logs: BTreeMap::new(),
            copies: VecDeque::new(),
            kept_since: 0,
            keyed: BTreeMap::new(),
            dead: Vec::new(),
            paused: BTreeMap::new(),
            full: BTreeMap::new(),
        }
    }

    fn sequence(&mut self, store: char) -> u64 {
        let last = self.sequences.entry(store).or_default();
        *last += 1;
        *last
    }

    fn fits(&self, bytes: &Bytes) -> Result<(), BrokerError> {
        let (size, limit) = (bytes.len(), self.bounds.message_bytes);
        if size > limit { Err(BrokerError::TooLarge { size, limit }) } else { Ok(()) }
    }

    /// Whether `id` is remembered.
    fn knows(&mut self, id: &str, now: Instant) -> bool {
        let window = self.bounds.window;
        self.ids.get(id).is_some_and(|(since, _)| now < *since + window)
    }

    /// Stores a message: `None` if it is there already.
    ///
    /// # Errors
    /// `Full`, `TooLarge`.
    pub(crate) fn publish(
        &mut self,
        uid: u64,
        lane: &Lane,
        id: &Arc<str>,
        bytes: &Bytes,
        now: Instant,
        at: Millis,
    ) -> Result<Option<RunId>, BrokerError> {
        self.fits(bytes)?;
        let name = format!("m {id}");
        if self.knows(&name, now) {
            return Ok(None);
        }
        self.has_room(lane, 1, now)?;
        let run = self.put('j', uid, lane, id.clone(), bytes.clone(), now, at);
        self.ids.insert(name, (now, Some(run)));
        Ok(Some(run))
    }

    /// # Errors
    /// `Full` when `lane` has no room for so many messages more.
    pub(crate) fn has_room(&self, lane: &Lane, messages: usize, now: Instant) -> Result<(), BrokerError> {
        let held = self.lanes.get(lane).map_or(0, |runs| runs.iter().filter(|run| run.to_string().starts_with('j')).count());
        let full = self.full.get(lane).is_some_and(|until| now < *until);
        if full || held + messages > self.bounds.lane_messages {
            return Err(BrokerError::Full { lane: lane.clone(), retry_after: Duration::from_secs(1) });
        }
        Ok(())
    }

    /// Whether a message called `id` was stored and is remembered.
    pub(crate) fn is_known(&mut self, id: &str, now: Instant) -> bool {
        self.knows(&format!("m {id}"), now)
    }

    #[allow(clippy::too_many_arguments, reason = "all that a message is")]
    fn put(&mut self, store: char, uid: u64, lane: &Lane, id: Arc<str>, bytes: Bytes, now: Instant, at: Millis) -> RunId {
        let run = RunId::new(store, self.sequence(store));
        let kept = Kept { uid, run, lane: lane.clone(), id, bytes, at, delivered: 0, state: State::Waiting(now) };
        self.messages.insert(run, kept);
        self.lanes.entry(lane.clone()).or_default().insert(run);
        run
    }

    /// Keeps a message for later: whether it is another than what was there.
    ///
    /// # Errors
    /// `TooLarge`.
    pub(crate) fn publish_at(&mut self, uid: u64, scheduled: Scheduled, now: Instant) -> Result<bool, BrokerError> {
        self.fits(&scheduled.bytes)?;
        let name = format!("s {} {} {}", scheduled.key, scheduled.due, super::world::hash(&scheduled.bytes));
        if self.knows(&name, now) {
            return Ok(false);
        }
        self.ids.insert(name, (now, None));
        self.later.insert(scheduled.key.clone(), Later { uid, scheduled });
        Ok(true)
    }

    /// Puts what is due by `wall` into its lane: the messages.
    pub(crate) fn fire(&mut self, now: Instant, wall: Millis) -> Vec<(u64, RunId, Lane)> {
        let due: Vec<Key> = self.later.iter().filter(|(_, l)| l.scheduled.due <= wall).map(|(key, _)| key.clone()).collect();
        let mut fired = Vec::new();
        for key in due {
            let Some(later) = self.later.remove(&key) else { continue };
            let Scheduled { lane, bytes, .. } = later.scheduled;
            let run = self.put('l', later.uid, &lane, key.as_str().into(), bytes, now, wall);
            fired.push((later.uid, run, lane));
        }
        fired
    }

    /// When something happens by itself next: a lease ends, or something that waits may go. `wall` is the time at `now`.
    pub(crate) fn next_event(&self, now: Instant, wall: Millis) -> Option<Instant> {
        let states = self.messages.values().map(|kept| match kept.state {
            State::Waiting(from) => from,
            State::Out { until, .. } => until,
        });
        let due = self.later.values().map(|later| now + Duration::from_millis(later.scheduled.due.saturating_sub(wall)));
        states.filter(|at| *at > now).chain(due).min()
    }

    /// Removes the message of `run`.
    pub(crate) fn remove(&mut self, run: RunId, now: Instant) -> Option<Kept> {
        let kept = self.messages.remove(&run)?;
        if let Some(runs) = self.lanes.get_mut(&kept.lane) {
            runs.remove(&run);
        }
        self.removed.push_back((now, kept.clone()));
        while self.removed.front().is_some_and(|(at, _)| *at + Duration::from_secs(3) < now) {
            self.removed.pop_front();
        }
        Some(kept)
    }

    /// Stops hard and starts again: what was acknowledged within `acks` of `now` is back; with `ids`, those of what was
    /// settled are forgotten; with `counts`, so is how often things were delivered; with `leases`, who has them.
    pub(crate) fn restart(&mut self, now: Instant, acks: Duration, ids: bool, counts: bool, leases: bool) -> Vec<u64> {
        let mut back = Vec::new();
        for (at, mut kept) in std::mem::take(&mut self.removed) {
            if acks > Duration::ZERO && at + acks >= now && !self.messages.contains_key(&kept.run) {
                kept.state = State::Waiting(now);
                back.push(kept.uid);
                self.lanes.entry(kept.lane.clone()).or_default().insert(kept.run);
                self.messages.insert(kept.run, kept);
            }
        }
        if ids {
            let messages = &self.messages;
            self.ids.retain(|_, (_, run)| run.is_none_or(|run| messages.contains_key(&run)));
        }
        for kept in self.messages.values_mut() {
            if counts {
                kept.delivered = 0;
            }
            if leases && matches!(kept.state, State::Out { .. }) {
                kept.state = State::Waiting(now);
            }
        }
        back
    }

    /// Keeps a dead letter: whether it is new.
    ///
    /// # Errors
    /// `TooLarge`.
    pub(crate) fn bury(&mut self, queue: &Queue, id: &str, bytes: &Bytes, now: Instant, at: Millis) -> Result<bool, BrokerError> {
        self.fits(bytes)?;
        let name = format!("d {id}");
        if self.knows(&name, now) {
            return Ok(false);
        }
        self.ids.insert(name, (now, None));
        let position = self.sequence('d');
        self.dead.push(Buried { position, queue: queue.clone(), at, bytes: bytes.clone() });
        Ok(true)
    }

    /// The answer to a publish.
    pub(crate) fn stored(run: Option<RunId>) -> Stored {
        Stored { duplicate: run.is_none() }
    }
}
