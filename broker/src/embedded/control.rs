//! Looking at lanes, and holding them.

use wf_schema::{Lane, Millis, Queue, now};

use super::keys;
use super::lanes::Lanes;
use super::store::{KeyRange, Space, Store, StoreResult};
use super::writer::{Round, Writer};
use super::{Embedded, OpenCause};
use crate::{BoxFuture, Control, LaneStats, Result, Unserved};

/// The queues that were held still are.
pub(super) fn restore(store: &dyn Store, lanes: &mut Lanes) -> Result<(), OpenCause> {
    for (key, until) in store.pairs(Space::Pauses, &KeyRange::all(), usize::MAX)? {
        let [until] = keys::read_numbers(&until)?;
        lanes.pauses.begin(keys::queue(&key)?, until);
    }
    Ok(())
}

impl Control for Embedded {
    fn stats(&self, lane: Lane) -> BoxFuture<'_, LaneStats> {
        Box::pin(async move { self.look("look at the lane", |lanes| lanes.stats(&lane, now())) })
    }

    fn unserved(&self) -> BoxFuture<'_, Vec<Unserved>> {
        Box::pin(async move { self.look("look for lanes that nobody serves", |lanes| lanes.unserved(now())) })
    }

    fn pause(&self, queue: Queue, until: Millis) -> BoxFuture<'_, ()> {
        Box::pin(self.core.ask("hold the queue", 0, move |writer, round| {
            round.put(Space::Pauses, queue.as_str().as_bytes().to_vec(), keys::number(until));
            writer.core.lanes(|lanes| lanes.pauses.begin(queue, until));
            Ok(())
        }))
    }

    fn resume(&self, queue: Queue) -> BoxFuture<'_, ()> {
        Box::pin(self.core.ask("let the queue go on", 0, move |writer, round| {
            writer.resume(round, &queue);
            Ok(())
        }))
    }

    fn paused(&self, queue: Queue) -> BoxFuture<'_, Option<Millis>> {
        Box::pin(async move { self.look("look at the queue", |lanes| lanes.pauses.until(&queue, now())) })
    }
}

impl Embedded {
    fn look<T>(&self, what: &'static str, look: impl FnOnce(&Lanes) -> T) -> Result<T> {
        self.core.lanes(|lanes| match lanes.ended() {
            Some(ended) => Err(ended.refuse(what)),
            None => Ok(look(lanes)),
        })
    }
}

impl Writer {
    fn resume(&mut self, round: &mut Round, queue: &Queue) {
        round.remove(Space::Pauses, queue.as_str().as_bytes().to_vec());
        self.core.lanes(|lanes| lanes.resume(queue));
    }

    /// Lets go the queues whose time has come.
    pub(super) fn end_pauses(&mut self, round: &mut Round) -> StoreResult<()> {
        for queue in self.core.lanes(|lanes| lanes.pauses.over(round.now)) {
            self.resume(round, &queue);
        }
        Ok(())
    }
}
