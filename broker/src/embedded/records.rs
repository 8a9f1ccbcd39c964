//! Keyed records.

use std::collections::HashMap;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use wf_schema::{Millis, now};

use super::core::OrUnreadable;
use super::ended::Ended;
use super::keys::{self, Garbled};
use super::publish::check_size;
use super::store::{KeyRange, Space, Store, StoreResult};
use super::writer::{Round, Writer};
use super::{Embedded, OpenCause};
use crate::{BoxFuture, BrokerError, Entry, Key, KeyedRecords, Result, Revision};

/// Records that are removed in one round, so that a burst of them delays nobody.
const REMOVED_AT_ONCE: usize = 2048;

/// What decides over a record, without what it says.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stand {
    revision: u64,
    /// When it has outlived its time; 0: never.
    expires: Millis,
}

impl Stand {
    fn lives(self, now: Millis) -> bool {
        self.expires == 0 || self.expires > now
    }
}

/// `revision u64 | expires u64 | what it says`
fn encode(stand: Stand, bytes: &[u8]) -> Bytes {
    let mut value = BytesMut::with_capacity(16 + bytes.len());
    value.put_u64(stand.revision);
    value.put_u64(stand.expires);
    value.put_slice(bytes);
    value.freeze()
}

fn decode(value: &Bytes) -> Result<(Stand, Bytes), Garbled> {
    let [revision, expires] = keys::read_numbers(value).map_err(|_| Garbled("records"))?;
    Ok((Stand { revision, expires }, value.slice(16..)))
}

pub(super) struct Records {
    /// How records stand after this round's changes, which the store does not have yet.
    changed: HashMap<Key, Option<Stand>>,
    /// When the next one may have outlived its time.
    next: Option<Millis>,
    /// Up to here all such were removed: where to look from.
    removed_to: Millis,
}

impl Records {
    pub(super) fn open(store: &dyn Store) -> Result<Self, OpenCause> {
        let first = store.keys(Space::Expiries, &KeyRange::all(), 1)?;
        let next = first.first().map(|key| keys::read_expiry(key)).transpose()?.map(|(at, _)| at);
        Ok(Self { changed: HashMap::new(), next, removed_to: 0 })
    }

    pub(super) fn next(&self) -> Option<Millis> {
        self.next
    }

    /// The round is over: the store has what it wrote.
    pub(super) fn committed(&mut self) {
        self.changed.clear();
    }
}

impl KeyedRecords for Embedded {
    fn create(&self, key: Key, bytes: Bytes, ttl: Option<Duration>) -> BoxFuture<'_, Revision> {
        self.write(key, None, bytes, ttl)
    }

    fn update(&self, key: Key, revision: Revision, bytes: Bytes, ttl: Option<Duration>) -> BoxFuture<'_, Revision> {
        self.write(key, Some(revision), bytes, ttl)
    }

    fn delete(&self, key: Key, revision: Revision) -> BoxFuture<'_, ()> {
        Box::pin(self.core.ask("delete the record", 0, move |writer, round| writer.delete_record(round, key, revision)))
    }

    fn get(&self, key: Key) -> BoxFuture<'_, Option<Entry>> {
        Box::pin(async move { Ok(self.look_up(&key).await?.map(|(entry, _)| entry)) })
    }

    fn watch_key(&self, key: Key, seen: Option<Revision>) -> BoxFuture<'_, Option<Entry>> {
        Box::pin(async move {
            let ended = || Ended::Closed.refuse("watch the record");
            // Watch, then look: a change between the two is a change that is told.
            let mut watch = self.core.records.watch(key.clone()).ok_or_else(ended)?;
            loop {
                let found = self.look_up(&key).await?;
                if found.as_ref().map(|(entry, _)| entry.revision) != seen {
                    return Ok(found.map(|(entry, _)| entry));
                }
                let outlived = async {
                    match found.map(|(_, expires)| expires) {
                        Some(expires) if expires > 0 => {
                            tokio::time::sleep(Duration::from_millis(expires.saturating_sub(now()))).await;
                        }
                        _ => std::future::pending().await,
                    }
                };
                tokio::select! {
                    changed = watch.changed() => changed.map(drop).ok_or_else(ended)?,
                    () = outlived => {}
                }
            }
        })
    }
}

impl Embedded {
    fn write(&self, key: Key, expected: Option<Revision>, bytes: Bytes, ttl: Option<Duration>) -> BoxFuture<'_, Revision> {
        Box::pin(async move {
            check_size(bytes.len(), self.core.options.max_message)?;
            let cost = bytes.len();
            let write = move |writer: &mut Writer, round: &mut Round| writer.write_record(round, key, expected, &bytes, ttl);
            self.core.ask("write the record", cost, write).await
        })
    }

    /// The record as it lives now, and when it has outlived its time.
    async fn look_up(&self, key: &Key) -> Result<Option<(Entry, Millis)>> {
        const WHAT: &str = "read the record";
        let key = key.clone();
        let value = self.core.read(WHAT, move |store| store.get(Space::Records, key.as_str().as_bytes()).or_unreadable(WHAT));
        let Some(value) = value.await? else { return Ok(None) };
        let (stand, bytes) = decode(&value).or_unreadable(WHAT)?;
        let entry = Entry { bytes, revision: Revision(stand.revision) };
        Ok(stand.lives(now()).then_some((entry, stand.expires)))
    }
}

/// What the records say whose keys start with `prefix` and that have not outlived their time.
pub(super) fn living(store: &dyn Store, prefix: &str) -> Result<Vec<Bytes>> {
    const WHAT: &str = "read the records";
    let pairs = store.pairs(Space::Records, &KeyRange::prefix(prefix.as_bytes()), usize::MAX).or_unreadable(WHAT)?;
    let mut living = Vec::with_capacity(pairs.len());
    for (_, value) in pairs {
        let (stand, bytes) = decode(&value).or_unreadable(WHAT)?;
        living.extend(stand.lives(now()).then_some(bytes));
    }
    Ok(living)
}

impl Writer {
    /// How the record stands, this round's changes included and its age left aside.
    fn record(&self, key: &Key) -> Result<Option<Stand>> {
        const WHAT: &str = "read the record";
        if let Some(stand) = self.records.changed.get(key) {
            return Ok(*stand);
        }
        let value = self.store.get(Space::Records, key.as_str().as_bytes()).or_unreadable(WHAT)?;
        value.map(|value| decode(&value).or_unreadable(WHAT).map(|(stand, _)| stand)).transpose()
    }

    fn write_record(
        &mut self,
        round: &mut Round,
        key: Key,
        expected: Option<Revision>,
        bytes: &[u8],
        ttl: Option<Duration>,
    ) -> Result<Revision> {
        let before = self.record(&key)?;
        if before.filter(|stand| stand.lives(round.now)).map(|stand| Revision(stand.revision)) != expected {
            return Err(BrokerError::Fenced);
        }
        self.replace_record(round, key, before, bytes, ttl)
    }

    /// Writes the record, whatever there was.
    pub(super) fn put_record(&mut self, round: &mut Round, key: Key, bytes: &[u8], ttl: Option<Duration>) -> Result<Revision> {
        let before = self.record(&key)?;
        self.replace_record(round, key, before, bytes, ttl)
    }

    fn replace_record(
        &mut self,
        round: &mut Round,
        key: Key,
        before: Option<Stand>,
        bytes: &[u8],
        ttl: Option<Duration>,
    ) -> Result<Revision> {
        self.forget_expiry(round, &key, before);
        let expires = ttl.map_or(0, |ttl| {
            let seconds = (ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0)).max(1);
            round.now.saturating_add(seconds.saturating_mul(1000))
        });
        let stand = Stand { revision: self.sequence.next(round), expires };
        round.put(Space::Records, key.as_str().as_bytes().to_vec(), encode(stand, bytes));
        let records = &mut self.records;
        if expires > 0 {
            round.put(Space::Expiries, keys::expiry(expires, &key), Bytes::new());
            records.next = Some(records.next.map_or(expires, |next| next.min(expires)));
            // A clock that was set back makes for earlier times than those looked at.
            records.removed_to = records.removed_to.min(expires);
        }
        records.changed.insert(key.clone(), Some(stand));
        round.record_changed(key);
        Ok(Revision(stand.revision))
    }

    fn delete_record(&mut self, round: &mut Round, key: Key, revision: Revision) -> Result<()> {
        let before = self.record(&key)?;
        if before.filter(|stand| stand.lives(round.now)).map(|stand| stand.revision) != Some(revision.0) {
            return Err(BrokerError::Fenced);
        }
        self.forget_expiry(round, &key, before);
        round.remove(Space::Records, key.as_str().as_bytes().to_vec());
        self.records.changed.insert(key.clone(), None);
        round.record_changed(key);
        Ok(())
    }

    fn forget_expiry(&self, round: &mut Round, key: &Key, before: Option<Stand>) {
        if let Some(before) = before.filter(|before| before.expires > 0) {
            round.remove(Space::Expiries, keys::expiry(before.expires, key));
        }
    }

    /// Removes the records that have outlived their time. They are gone for everybody before that.
    pub(super) fn expire_records(&mut self, round: &mut Round) -> StoreResult<()> {
        if self.records.next.is_none_or(|next| next > round.now) {
            return Ok(());
        }
        let range = KeyRange { from: self.records.removed_to.to_be_bytes().to_vec(), to: None };
        self.records.next = None;
        for (count, key) in self.store.keys(Space::Expiries, &range, REMOVED_AT_ONCE + 1)?.into_iter().enumerate() {
            let Ok((at, name)) = keys::read_expiry(&key) else { continue };
            if at > round.now || count == REMOVED_AT_ONCE {
                self.records.next = Some(at);
                break;
            }
            self.records.removed_to = at;
            round.remove(Space::Expiries, key.to_vec());
            let value = self.store.get(Space::Records, name.as_str().as_bytes())?;
            // It may have been written anew since.
            if value.and_then(|value| decode(&value).ok()).is_some_and(|(stand, _)| stand.expires == at) {
                round.remove(Space::Records, name.as_str().as_bytes().to_vec());
                self.records.changed.insert(name.clone(), None);
                round.record_changed(name);
            }
        }
        Ok(())
    }
}
