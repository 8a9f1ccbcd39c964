//! Ships what is in the spool, as soon as the broker can be reached.
//!
//! For each entry, in this order and no other: it is **marked** as sent, durably; it is **given** to the broker; once the
//! broker has confirmed it, it is **removed**. A process that ends in between leaves a marked entry: the broker is asked
//! whether it has it, and given it again under the same id if not.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wf_broker::{BrokerError, Stored};
use wf_schema::now;

use super::entry::{Record, Slot};
use super::writer::{Op, Ops};
use super::{Shared, SpoolError, Taken, tell};
use crate::Publisher;
use crate::envelope::Envelope;

/// How long a lane is left alone after the broker did not answer, at the least and at the most. Half is jitter.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// The same after it refused for a reason that somebody has to see to.
const REFUSED: Duration = Duration::from_secs(30);
/// How long to wait for what is on its way when told to stop.
const LAST_ANSWERS: Duration = Duration::from_secs(3);
/// The longest sleep, should anything be missed.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

pub(super) struct Shipper {
    shared: Arc<Shared>,
    ops: Ops,
    publisher: Publisher,
    stop: CancellationToken,
    flights: JoinSet<Landed>,
}

/// What became of an entry that the broker was given.
struct Landed {
    slot: Slot,
    record: Record,
    stored: Result<Stored, BrokerError>,
}

impl Shipper {
    pub(super) fn new(shared: Arc<Shared>, ops: Ops, publisher: Publisher, stop: CancellationToken) -> Self {
        Self { shared, ops, publisher, stop, flights: JoinSet::new() }
    }

    pub(super) async fn run(mut self) {
        let stop = self.stop.clone();
        while !stop.is_cancelled() {
            self.land();
            if self.publisher.is_cut_off() {
                let publisher = self.publisher.clone();
                self.wait(publisher.reachable(), LOOK_AGAIN).await;
                continue;
            }
            let shared = self.shared.clone();
            // A page is taken whole or not at all, so this is not cut short.
            let page = match &self.ops {
                Ops::Thread(_) => tokio::task::spawn_blocking(move || shared.next_page()).await.unwrap_or(Err(None)),
                Ops::Here(_) => shared.next_page(),
            };
            match page {
                Ok(page) => self.ship(page).await,
                Err(soonest) => {
                    let shared = self.shared.clone();
                    let pause = soonest.map_or(LOOK_AGAIN, |soonest| soonest.saturating_duration_since(Instant::now()));
                    self.wait(shared.work.notified(), pause.min(LOOK_AGAIN)).await;
                }
            }
        }
        // What is answered now need not be sent again.
        let last = async {
            while let Some(landed) = self.flights.join_next().await {
                landed.into_iter().for_each(|landed| settle(&self.shared, &self.ops, vec![landed]));
            }
        };
        let _ = tokio::time::timeout(LAST_ANSWERS, last).await;
    }

    /// Waits for something to do.
    async fn wait(&mut self, news: impl Future<Output = ()>, pause: Duration) {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => {}
            // What has landed makes news itself, so it must not wait for a moment without any.
            Some(landed) = self.flights.join_next() => {
                landed.into_iter().for_each(|landed| settle(&self.shared, &self.ops, vec![landed]));
            }
            () = news => {}
            () = tokio::time::sleep(pause) => {}
        }
    }

    /// Settles what has landed.
    fn land(&mut self) {
        let mut landed = Vec::new();
        while let Some(one) = self.flights.try_join_next() {
            landed.extend(one);
        }
        settle(&self.shared, &self.ops, landed);
    }

    async fn ship(&mut self, page: Vec<Taken>) {
        let mut parcels = Vec::with_capacity(page.len());
        for Taken { slot, record, envelope } in page {
            match (record, envelope) {
                (Some(record), Ok(envelope)) => parcels.push((slot, record, envelope)),
                (record, Err(damage)) => {
                    let id = record.as_ref().map(|record| record.id.clone()).unwrap_or_default();
                    tracing::error!(batch = id, lane = %slot.lane, number = slot.number, %damage, "an entry of the spool cannot be shipped and is kept aside");
                    let _ = self.ops.send(Op::SetAside { slot, record });
                }
                (None, Ok(_)) => {}
            }
        }
        let unmarked: Vec<_> = parcels
            .iter()
            .filter(|(_, record, _)| !record.sent)
            .map(|(slot, record, _)| (slot.clone(), record.clone()))
            .collect();
        if !unmarked.is_empty()
            && let Err(error) = tell(&self.ops, |answer| Op::Mark { entries: unmarked, answer }).await
        {
            // Without a mark it is not sent: nobody could tell later that it was.
            self.give_back(parcels, &error);
            return;
        }
        let parcels = self.without_stored(parcels).await;
        let mut parcels = parcels.into_iter();
        while let Some((slot, record, envelope)) = parcels.next() {
            let record = record.marked(now());
            let pass = tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                // Nothing more for a broker that does not answer, even where there is room in the window.
                () = self.publisher.cut_off() => return give_back(&self.shared, parcels.chain([(slot, record, envelope)])),
                pass = self.publisher.gate().enter(1, envelope.size()) => pass,
            };
            let publisher = self.publisher.clone();
            self.flights.spawn(async move {
                let stored = publisher.give(&envelope).await;
                drop(pass);
                Landed { slot, record, stored }
            });
            self.land();
        }
    }

    /// Leaves out what the broker has had already, of what it was given before: it may have forgotten the ids. What it
    /// cannot tell of is given again: once too often is better than never.
    async fn without_stored(&self, parcels: Vec<(Slot, Record, Envelope)>) -> Vec<(Slot, Record, Envelope)> {
        let sent = || parcels.iter().filter(|(_, record, _)| record.sent);
        let since = sent().map(|(_, record, _)| record.sent_at).min();
        let envelopes: Vec<_> = sent().map(|(_, _, envelope)| envelope.clone()).collect();
        let Some(since) = since else { return parcels };
        let traced = match self.publisher.look_for(&envelopes, since).await {
            Ok(traced) => traced,
            Err(error) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "the broker was not asked what it has of the spool");
                return parcels;
            }
        };
        let mut traced = traced.into_iter();
        let (mut left, mut stored) = (Vec::with_capacity(parcels.len()), Vec::new());
        for (slot, record, envelope) in parcels {
            match record.sent.then(|| traced.next()).flatten() {
                Some(traced) if traced.was_stored() => {
                    stored.push(Landed { slot, record, stored: Ok(Stored { duplicate: true }) });
                }
                _ => left.push((slot, record, envelope)),
            }
        }
        settle(&self.shared, &self.ops, stored);
        left
    }

    fn give_back(&self, parcels: Vec<(Slot, Record, Envelope)>, error: &SpoolError) {
        tracing::debug!(error = error as &dyn std::error::Error, "entries were not marked");
        if let Some((slot, ..)) = parcels.first() {
            self.shared.ledger.lock().hold(&slot.lane, Instant::now(), PAUSES.1, false);
        }
        give_back(&self.shared, parcels.into_iter());
    }
}

fn give_back(shared: &Shared, parcels: impl Iterator<Item = (Slot, Record, Envelope)>) {
    let mut ledger = shared.ledger.lock();
    parcels.for_each(|(slot, ..)| ledger.give_back(&slot));
}

/// Removes what the broker has, and gives back what it has not.
fn settle(shared: &Shared, ops: &Ops, landed: Vec<Landed>) {
    let mut stored = Vec::new();
    for Landed { slot, record, stored: result } in landed {
        let now = Instant::now();
        let mut ledger = shared.ledger.lock();
        let (pause, full) = match result {
            Ok(_) => {
                stored.push((slot, record));
                continue;
            }
            Err(BrokerError::Full { retry_after, .. }) => (retry_after.mul_f64(1.0 + fastrand::f64() / 2.0), true),
            Err(BrokerError::Retryable { .. } | BrokerError::NoRoom { .. }) => {
                let failures = ledger.failed(&slot.lane).min(8);
                let pause = (PAUSES.0 * 2_u32.pow(failures)).min(PAUSES.1);
                (pause.mul_f64(0.5 + fastrand::f64() / 2.0), false)
            }
            Err(error @ BrokerError::TooLarge { .. }) => {
                drop(ledger);
                tracing::error!(batch = record.id, lane = %slot.lane, %error, "an entry of the spool cannot be shipped and is kept aside");
                let _ = ops.send(Op::SetAside { slot, record: Some(record) });
                continue;
            }
            Err(error) => {
                tracing::error!(lane = %slot.lane, error = &error as &dyn std::error::Error, "the broker refuses what is in the spool; it stays there");
                (REFUSED, false)
            }
        };
        ledger.give_back(&slot);
        ledger.hold(&slot.lane, now, pause, full);
    }
    if !stored.is_empty() {
        // Should the writer be gone, it is sent again after the next start.
        let _ = ops.send(Op::Remove(stored));
    }
}
