//! Finding out whether a message was stored. The store has all that was answered, so what is not in it is not there.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bytes::Bytes;
use wf_schema::{BatchId, Lane};

use super::Embedded;
use super::core::OrUnreadable;
use super::keys;
use super::message;
use super::outcomes::END;
use super::records;
use super::store::{KeyRange, Space, Store};
use crate::contract::TRACE_SLACK;
use crate::{BoxFuture, Result, Trace, Traced, Traces};

const WHAT: &str = "look for a message";

/// Keys of one look at the store.
const PAGE: usize = 1_024;

impl Traces for Embedded {
    fn trace(&self, wanted: Vec<Trace>, within: Duration) -> BoxFuture<'_, Vec<Traced>> {
        Box::pin(self.core.read(WHAT, move |store| {
            let mut look = Look { store, found: vec![None; wanted.len()], wanted: &wanted, until: Instant::now() + within };
            let last = if look.all()? { Traced::Absent } else { Traced::Unknown };
            Ok(look.found.iter().map(|traced| traced.unwrap_or(last)).collect())
        }))
    }
}

struct Look<'a> {
    store: &'a dyn Store,
    wanted: &'a [Trace],
    found: Vec<Option<Traced>>,
    until: Instant,
}

impl Look<'_> {
    /// Looks in the order in which messages move, so that none slips by. Whether there was time for all.
    fn all(&mut self) -> Result<bool> {
        Ok(self.schedules()? && self.lanes()? && self.ends()?)
    }

    fn in_time(&self) -> bool {
        Instant::now() < self.until
    }

    fn is_missing(&self, n: usize) -> bool {
        self.found[n].is_none()
    }

    /// Notes that a message called `name` is there: whether any that `may` be it are still missing.
    fn note(&mut self, may: &[usize], name: &str) -> bool {
        for n in may {
            if self.found[*n].is_none() && self.wanted[*n].is_called(name) {
                self.found[*n] = Some(Traced::Stored);
            }
        }
        may.iter().any(|n| self.is_missing(*n))
    }

    /// The places of those that `wants` and that were not found yet.
    fn missing(&self, wants: impl Fn(&Trace) -> bool) -> Vec<usize> {
        (0..self.wanted.len()).filter(|n| self.is_missing(*n) && wants(&self.wanted[*n])).collect()
    }

    fn schedules(&mut self) -> Result<bool> {
        let missing = self.missing(|trace| trace.later || trace.id.is_none());
        self.each_key(missing, Space::Later, KeyRange::all(), |look, may, key| {
            let (_, _, _, name) = keys::read_later(key).or_unreadable(WHAT)?;
            Ok(look.note(may, name.as_str()))
        })
    }

    fn lanes(&mut self) -> Result<bool> {
        let lanes: BTreeSet<Lane> = self.wanted.iter().map(|trace| trace.lane.clone()).collect();
        for lane in lanes {
            let missing = self.missing(|trace| trace.lane == lane);
            let since = missing.iter().map(|n| self.wanted[*n].since).min().unwrap_or(0).saturating_sub(TRACE_SLACK);
            let done =
                self.each_key(missing, Space::Messages, KeyRange::prefix(&keys::messages_of(&lane)), |look, may, key| {
                    let (_, entry) = keys::read_message(key, 0).or_unreadable(WHAT)?;
                    if entry.stored_at < since {
                        return Ok(true);
                    }
                    // One that is gone by now has left the end of its run, if it was to.
                    let Some(value) = look.store.get(Space::Messages, key).or_unreadable(WHAT)? else { return Ok(true) };
                    let name = message::name(&value).or_unreadable(WHAT)?;
                    Ok(look.note(may, name))
                })?;
            if !done {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Calls `each` with the keys of `range` as long as there is time and it says that there is more to find: whether
    /// there was time.
    fn each_key(
        &mut self,
        may: Vec<usize>,
        space: Space,
        mut range: KeyRange,
        mut each: impl FnMut(&mut Self, &[usize], &Bytes) -> Result<bool>,
    ) -> Result<bool> {
        while !may.is_empty() {
            let page = self.store.keys(space, &range, PAGE).or_unreadable(WHAT)?;
            for key in &page {
                if !self.in_time() {
                    return Ok(false);
                }
                if !each(self, &may, key)? {
                    return Ok(true);
                }
            }
            match page.last() {
                Some(last) if page.len() == PAGE => range = range.after(last),
                _ => return Ok(true),
            }
        }
        Ok(true)
    }

    /// The runs that have ended and are remembered.
    fn ends(&mut self) -> Result<bool> {
        let missing = self.missing(|_| true);
        let batches: BTreeSet<BatchId> = missing.iter().map(|n| self.wanted[*n].batch).collect();
        for batch in batches {
            if !self.in_time() {
                return Ok(false);
            }
            let ended = records::living(self.store, &format!("{END}.{batch}."))?;
            for n in missing.iter().filter(|n| self.wanted[**n].batch == batch) {
                let is_it = |message: &Bytes| self.wanted[*n].id.as_ref().is_none_or(|id| id.as_bytes() == message);
                if ended.iter().any(is_it) {
                    self.found[*n] = Some(Traced::Ended);
                }
            }
        }
        Ok(true)
    }
}
