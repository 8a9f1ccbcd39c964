//! Which lanes have somebody who asks for their messages.

use wf_schema::{Lane, Millis};

use super::Lanes;
use super::lane_state::LaneState;
use crate::{LaneStats, Unserved};

impl Lanes {
    /// Lanes in which something waits while they have no source, and nobody holds any of it.
    pub(in super::super) fn unserved(&self, now: Millis) -> Vec<Unserved> {
        let alone = |(lane, state): &(&Lane, &LaneState)| {
            state.ready() as u64 + state.delayed > 0
                && state.owned == 0
                && !self.sources.contains_key(*lane)
                && self.pauses.until(&lane.queue, now).is_none()
        };
        let unserved = self.lanes.iter().filter(alone).map(|(lane, _)| {
            let LaneStats { pending, oldest, .. } = self.stats(lane, now);
            Unserved { name: lane.to_string(), lane: Some(lane.clone()), messages: pending, oldest }
        });
        let mut unserved: Vec<_> = unserved.collect();
        unserved.sort_by(|a, b| a.name.cmp(&b.name));
        unserved
    }

    /// `lane` has a source more.
    pub(in super::super) fn opened(&mut self, lane: &Lane) {
        *self.sources.entry(lane.clone()).or_default() += 1;
    }

    /// `lane` has a source less.
    pub(in super::super) fn closed(&mut self, lane: &Lane) {
        if let Some(sources) = self.sources.get_mut(lane) {
            *sources -= 1;
            if *sources == 0 {
                self.sources.remove(lane);
            }
        }
    }
}
