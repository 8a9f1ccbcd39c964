//! The crons that there are, and their firing.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use wf_schema::{Lane, Millis};

use super::core::RETRY_AFTER;
use super::cron::Spec;
use super::keys;
use super::lanes::{Entry, weight};
use super::message::{self, Header};
use super::publish::check_size;
use super::store::{KeyRange, Space, Store, StoreResult};
use super::writer::{Round, Writer};
use super::{Embedded, OpenCause};
use crate::{BrokerError, Cron, Key, Result};

/// A cron as the store has it. Its next tick is stored apart.
#[derive(Clone, Serialize, Deserialize)]
struct Stored {
    spec: String,
    zone: Option<String>,
    lane: Lane,
    bytes: Bytes,
    /// Where its intervals count from.
    anchor: Millis,
}

struct Planned {
    cron: Stored,
    spec: Spec,
    /// The tick that is fired next.
    tick: Millis,
    /// When that is tried: with the tick, or later if the lane was full then.
    at: Millis,
}

/// All crons.
#[derive(Default)]
pub(super) struct Crons {
    by_key: HashMap<Key, Planned>,
    by_time: BTreeSet<(Millis, Key)>,
}

impl Crons {
    pub(super) fn open(store: &dyn Store) -> Result<Self, OpenCause> {
        let mut crons = Self::default();
        for (key, value) in store.pairs(Space::Crons, &KeyRange::all(), usize::MAX)? {
            let name = keys::named(&key, "crons")?;
            let cron: Stored = postcard::from_bytes(&value).map_err(|_| keys::Garbled("crons"))?;
            // It was read before it was stored; if a newer list of zones has lost its zone, it waits for an older one.
            let Ok(spec) = Spec::read(&cron.spec, cron.zone.as_deref()) else {
                tracing::error!(cron = %name, spec = cron.spec, zone = cron.zone, "a stored cron cannot be read any more");
                continue;
            };
            let tick = store.get(Space::Ticks, &key)?.ok_or(keys::Garbled("ticks"))?;
            let [tick] = keys::read_numbers(&tick)?;
            crons.plan(name, Planned { cron, spec, tick, at: tick });
        }
        Ok(crons)
    }

    /// When the next one fires.
    pub(super) fn next(&self) -> Option<Millis> {
        self.by_time.first().map(|(at, _)| *at)
    }

    fn plan(&mut self, name: Key, planned: Planned) {
        self.by_time.insert((planned.at, name.clone()));
        self.by_key.insert(name, planned);
    }

    fn remove(&mut self, name: &Key) -> Option<Planned> {
        let planned = self.by_key.remove(name)?;
        self.by_time.remove(&(planned.at, name.clone()));
        Some(planned)
    }
}

impl Embedded {
    pub(super) async fn put(&self, cron: Cron) -> Result<()> {
        const WHAT: &str = "plan the cron";
        let spec = Spec::read(&cron.spec, cron.zone.as_deref()).map_err(|error| BrokerError::fatal(WHAT, error))?;
        check_size(cron.bytes.len(), self.core.options.max_message)?;
        let Cron { key, spec: text, zone, lane, bytes } = cron;
        let put = move |writer: &mut Writer, round: &mut Round| {
            let cron = Stored { spec: text, zone, lane, bytes, anchor: round.now };
            writer.put_cron(round, key, cron, spec)
        };
        self.core.ask(WHAT, 0, put).await
    }
}

impl Writer {
    fn put_cron(&mut self, round: &mut Round, name: Key, mut cron: Stored, spec: Spec) -> Result<()> {
        let before = self.crons.remove(&name);
        // Put again as it was, as programs do when they start, it keeps its time: else a program that starts more
        // often than the cron ticks would never see it tick.
        let kept = before.filter(|before| before.cron.spec == cron.spec && before.cron.zone == cron.zone);
        let (tick, at) = match kept {
            Some(kept) => {
                cron.anchor = kept.cron.anchor;
                (kept.tick, kept.at)
            }
            None => {
                let never = || BrokerError::fatal("plan the cron", "it never ticks");
                let tick = spec.next(cron.anchor, round.now).ok_or_else(never)?;
                (tick, tick)
            }
        };
        // Strings, numbers and bytes: there is nothing in it that postcard could refuse.
        let value = postcard::to_stdvec(&cron).map_err(|error| BrokerError::fatal("plan the cron", error))?;
        let key = name.as_str().as_bytes().to_vec();
        round.put(Space::Crons, key.clone(), value.into());
        round.put(Space::Ticks, key, keys::number(tick));
        self.crons.plan(name, Planned { cron, spec, tick, at });
        Ok(())
    }

    pub(super) fn delete_cron(&mut self, round: &mut Round, name: &Key) {
        self.crons.remove(name);
        let key = name.as_str().as_bytes().to_vec();
        round.remove(Space::Crons, key.clone());
        round.remove(Space::Ticks, key);
    }

    /// Fires what is due, once however many ticks were missed: in one commit with its next tick, so that no tick is
    /// lost or doubled.
    pub(super) fn fire_crons(&mut self, round: &mut Round) -> StoreResult<()> {
        while let Some((at, name)) = self.crons.by_time.first().cloned()
            && at <= round.now
            && !round.is_large()
        {
            let Some(mut planned) = self.crons.remove(&name) else { continue };
            let cron = &planned.cron;
            // Checked when it was put.
            let size = cron.bytes.len() as u32;
            if self.reserve(round, &[(&cron.lane, weight(size))]).is_err() {
                planned.at = round.now + RETRY_AFTER.as_millis() as Millis;
                self.crons.plan(name, planned);
                continue;
            }
            let tick = planned.tick;
            let id = format!("{name}@{tick}");
            let value = message::value(&Header { id: &id, fired: Some((name.as_str(), tick)) }, &cron.bytes);
            let sequence = self.sequence.next(round);
            let entry = Entry { sequence, stored_at: round.now, size, delivered: 0 };
            round.store_message(cron.lane.clone(), entry, value);
            // After the later of the two: a clock that was set back does not repeat a tick.
            let Some(next) = planned.spec.next(cron.anchor, round.now.max(tick)) else {
                tracing::warn!(cron = %name, "the cron has had its last tick");
                self.delete_cron(round, &name);
                continue;
            };
            round.put(Space::Ticks, name.as_str().as_bytes().to_vec(), keys::number(next));
            (planned.tick, planned.at) = (next, next);
            self.crons.plan(name, planned);
        }
        Ok(())
    }
}
