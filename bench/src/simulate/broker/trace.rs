//! Finding out what became of messages: three looks, in the order in which a message moves.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use wf_broker::{BoxFuture, Result, Trace, Traced, Traces};

use super::super::breaks::Break;
use super::super::history::{Op, Role};
use super::super::world::{Inner, hash};
use super::Session;

impl Traces for Session {
    fn trace(&self, wanted: Vec<Trace>, _: Duration) -> BoxFuture<'_, Vec<Traced>> {
        Box::pin(async move {
            let mut found = vec![None; wanted.len()];
            let mut current = true;
            for (place, look) in [scheduled, waiting, logged].into_iter().enumerate() {
                current &= self.look(place as u64, &wanted, &mut found, look).await?;
            }
            let missing = if current { Traced::Absent } else { Traced::Unknown };
            let mut traced: Vec<Traced> = found.into_iter().map(|found| found.unwrap_or(missing)).collect();
            self.break_it(&wanted, &mut traced);
            Ok(traced)
        })
    }
}

/// One look: what it finds of a message, as it stood at a time.
type Look = fn(&Inner, &Trace, Instant) -> Option<Traced>;

impl Session {
    /// Looks for what is not found yet: whether it was shown everything.
    async fn look(&self, place: u64, wanted: &[Trace], found: &mut [Option<Traced>], look: Look) -> Result<bool> {
        let first = wanted.first().map_or(0, |trace| hash(&trace.batch));
        self.ask(Op::Trace, first ^ place, "trace messages", |world, now| {
            let shown = world.shown(now);
            for (trace, found) in wanted.iter().zip(found).filter(|(_, found)| found.is_none()) {
                *found = look(world, trace, shown);
                // Schedules and lanes have no past here: what a replica does not show yet, it does not show.
            }
            Ok(shown == now)
        })
        .await
    }

    /// Puts known faults back.
    fn break_it(&self, wanted: &[Trace], traced: &mut [Traced]) {
        let world = self.world.lock();
        let role = world.nodes[self.node].role;
        if world.breaks.has(Break::A3) && role == Role::Ingest || world.breaks.has(Break::A4) && role == Role::Run {
            traced.fill(Traced::Absent);
        }
        if world.breaks.has(Break::A5) && role == Role::Run {
            for at in 0..wanted.len() {
                let known = wanted.iter().zip(&*traced).any(|(other, t)| other.batch == wanted[at].batch && t.was_stored());
                if known && traced[at] == Traced::Absent {
                    traced[at] = Traced::Stored;
                }
            }
        }
        if world.breaks.has(Break::A6) && role == Role::Run {
            traced.iter_mut().filter(|traced| **traced == Traced::Ended).for_each(|traced| *traced = Traced::Stored);
        }
    }
}

fn scheduled(world: &Inner, trace: &Trace, _: Instant) -> Option<Traced> {
    world.server.later.keys().any(|key| trace.is_called(key.as_str())).then_some(Traced::Stored)
}

fn waiting(world: &Inner, trace: &Trace, _: Instant) -> Option<Traced> {
    world.server.messages.values().any(|kept| trace.is_called(&kept.id)).then_some(Traced::Stored)
}

fn logged(world: &Inner, trace: &Trace, at: Instant) -> Option<Traced> {
    let logs: Vec<(Arc<str>, bool)> = world.server.logged(trace.batch, at);
    let mut called = logs.iter().filter(|(message, _)| trace.is_called(message)).map(|(_, ended)| *ended).peekable();
    called.peek()?;
    Some(if called.all(|ended| ended) { Traced::Ended } else { Traced::Stored })
}
