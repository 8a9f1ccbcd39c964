//! The deliveries of a lane to one owner, and the hold on each.

use std::future::{pending, poll_fn};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::task::JoinHandle;
use wf_schema::{Lane, RunId, now};

use super::Embedded;
use super::core::{Core, OrUnreadable};
use super::keys;
use super::lanes::{Entry, Taken};
use super::message;
use super::store::Space;
use crate::{BoxFuture, BrokerError, Consume, Delivery, DeliverySource, Lease, LogEnd, Result};

const WHAT: &str = "deliver a message";
/// When a message is read again that could not be read for the moment; a random half of it is left out.
const READ_AGAIN: Duration = Duration::from_secs(1);

impl Consume for Embedded {
    fn lane(&self, lane: Lane) -> BoxFuture<'_, Box<dyn DeliverySource>> {
        static SOURCES: AtomicU64 = AtomicU64::new(0);
        Box::pin(async move {
            let ended = self.core.lanes(|lanes| lanes.ended().cloned());
            if let Some(ended) = ended {
                return Err(ended.refuse("open the lane"));
            }
            let id = SOURCES.fetch_add(1, Ordering::Relaxed);
            self.core.lanes(|lanes| lanes.opened(&lane));
            let source = Source { core: Arc::clone(&self.core), lane, id, messages: 0, bytes: 0, coming: None };
            Ok(Box::new(source) as Box<dyn DeliverySource>)
        })
    }

    fn lease(&self) -> Duration {
        self.core.options.lease
    }

    fn settled(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.core.ask("confirm what was settled", 0, |writer, round| {
            writer.settle(round);
            Ok(())
        }))
    }
}

struct Source {
    core: Arc<Core>,
    lane: Lane,
    id: u64,
    /// Its credit. A delivery may overdraw the bytes.
    messages: usize,
    bytes: i64,
    /// What was taken for it and not yet handed on.
    coming: Option<Coming>,
}

/// A message on its way from the store.
struct Coming {
    entry: Entry,
    value: Value,
}

enum Value {
    Here(Bytes),
    Read(JoinHandle<Result<Bytes>>),
}

impl Coming {
    /// Fetches the value, off the caller's thread if the store may have to wait for a disk.
    fn fetch(core: &Arc<Core>, lane: &Lane, taken: Taken) -> Result<Self> {
        let Taken { entry, value } = taken;
        let value = match value {
            Some(value) => Value::Here(value),
            None if core.blocks() => {
                let (core, lane) = (Arc::clone(core), lane.clone());
                Value::Read(tokio::task::spawn_blocking(move || {
                    let value = read(&core, &lane, &entry);
                    let ahead = core.lanes(|lanes| lanes.upcoming(&lane));
                    // What cannot be read is said when it is delivered.
                    let values = ahead.iter().map_while(|next| Some((next.sequence, read(&core, &lane, next).ok()?))).collect();
                    core.lanes(|lanes| lanes.keep(&lane, values));
                    value
                }))
            }
            None => Value::Here(read(core, lane, &entry)?),
        };
        Ok(Self { entry, value })
    }
}

fn read(core: &Core, lane: &Lane, entry: &Entry) -> Result<Bytes> {
    core.read_here(WHAT, |store| {
        let lost = || BrokerError::fatal(WHAT, "the store has lost it");
        store.get(Space::Messages, &keys::message(lane, entry)).or_unreadable(WHAT)?.ok_or_else(lost)
    })
}

impl DeliverySource for Source {
    fn grant(&mut self, messages: usize, bytes: usize) {
        self.messages = self.messages.saturating_add(messages);
        self.bytes = self.bytes.saturating_add(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    fn withdraw(&mut self) {
        // What was overdrawn stays so.
        (self.messages, self.bytes) = (0, self.bytes.min(0));
        self.put_back();
    }

    fn mend(&mut self) {
        // There is nothing between the store and its sources that could break.
    }

    fn next(&mut self) -> BoxFuture<'_, Delivery> {
        Box::pin(async move {
            loop {
                // Kept in the source while it is read, so that a `next` that is dropped half-way loses nothing.
                let coming = match &mut self.coming {
                    Some(coming) => coming,
                    None => {
                        if self.messages == 0 || self.bytes <= 0 {
                            // Credit comes by `grant`, which needs this future gone.
                            return pending().await;
                        }
                        let taken = self.take().await?;
                        self.coming.insert(Coming::fetch(&self.core, &self.lane, taken)?)
                    }
                };
                let value = match &mut coming.value {
                    Value::Here(value) => Ok(value.clone()),
                    Value::Read(read) => read.await.unwrap_or_else(|error| Err(BrokerError::retryable(WHAT, error))),
                };
                let entry = coming.entry;
                if let Err(BrokerError::Retryable { .. }) = value {
                    // The store is closed for a moment.
                    self.put_back();
                    tokio::time::sleep(READ_AGAIN.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
                    continue;
                }
                self.coming = None;
                // On an error it stays taken and comes again when its lease is over, rather than at once and for ever.
                let delivery = self.delivery(entry, &value?)?;
                let until = Instant::now() + self.core.options.lease;
                // The lease runs from here on. It may have run out on the way, if nobody polled: then it is another's.
                if self.core.lanes(|lanes| lanes.renew(entry.sequence, entry.delivered, until)) {
                    self.messages -= 1;
                    self.bytes -= i64::try_from(delivery.bytes.len()).unwrap_or(i64::MAX);
                    return Ok(delivery);
                }
            }
        })
    }

    fn stop(mut self: Box<Self>) -> BoxFuture<'static, u64> {
        // Nothing comes by itself: a message is taken only when somebody waits for it.
        let released = u64::from(self.coming.is_some());
        self.put_back();
        Box::pin(async move { Ok(released) })
    }
}

impl Source {
    /// Takes the next message of the lane, in turn with the other sources that wait.
    async fn take(&self) -> Result<Taken> {
        let seat = Seat { core: &self.core, lane: &self.lane, id: self.id };
        let lease = self.core.options.lease;
        poll_fn(|cx| {
            let until = Instant::now() + lease;
            match seat.core.lanes(|lanes| lanes.take(seat.lane, seat.id, cx.waker(), until, now())) {
                Some(taken) => Poll::Ready(taken.map_err(|ended| ended.refuse(WHAT))),
                None => Poll::Pending,
            }
        })
        .await
    }

    /// Gives back what is on its way and was not handed on.
    fn put_back(&mut self) {
        if let Some(Coming { entry, .. }) = self.coming.take() {
            self.core.lanes(|lanes| lanes.put_back(entry.sequence, entry.delivered));
        }
    }

    fn delivery(&self, entry: Entry, value: &Bytes) -> Result<Delivery> {
        let opened = message::open(value, self.core.store_id, entry.sequence, entry.stored_at).or_unreadable(WHAT)?;
        Ok(Delivery {
            lane: self.lane.clone(),
            id: opened.id,
            bytes: opened.body,
            run: RunId::new(keys::RUN_LETTER, entry.sequence),
            delivered: entry.delivered.into(),
            fallback_id: opened.fallback_id,
            stored_at: entry.stored_at,
            fired: opened.fired,
            lease: Arc::new(Hold {
                core: Arc::clone(&self.core),
                sequence: entry.sequence,
                delivered: entry.delivered,
                settled: AtomicBool::new(false),
            }),
        })
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.put_back();
        self.core.lanes(|lanes| lanes.closed(&self.lane));
    }
}

/// A source's place among those that wait, given up when it stops waiting.
struct Seat<'a> {
    core: &'a Core,
    lane: &'a Lane,
    id: u64,
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.core.lanes(|lanes| lanes.leave(self.lane, self.id));
    }
}

/// The hold of one owner on one delivery. Its number tells it apart from later owners of the same message.
struct Hold {
    core: Arc<Core>,
    sequence: u64,
    delivered: u32,
    /// Whether its owner has acknowledged or released it: what he says after that is ignored.
    settled: AtomicBool,
}

impl Lease for Hold {
    fn ack(&self, end: Option<LogEnd>) {
        if !self.settled.swap(true, Ordering::AcqRel) {
            self.core.lanes(|lanes| lanes.ack(self.sequence, end));
        }
    }

    fn stored(&self) -> BoxFuture<'_, bool> {
        Box::pin(std::future::ready(self.core.lanes(|lanes| match lanes.ended() {
            Some(ended) => Err(ended.refuse("look for a message")),
            None => Ok(lanes.has(self.sequence)),
        })))
    }

    fn renew(&self) {
        let until = Instant::now() + self.core.options.lease;
        self.core.lanes(|lanes| lanes.renew(self.sequence, self.delivered, until));
    }

    fn release(&self, delay: Duration) {
        if !self.settled.swap(true, Ordering::AcqRel) {
            self.core.lanes(|lanes| lanes.release(self.sequence, self.delivered, delay, Instant::now()));
        }
    }
}
