//! A consumer as the cases want it: what must come comes in time, and what must not is watched for.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinHandle;
use wf_schema::{Lane, RunId};

use super::patience::within;
use crate::{Broker, Delivery, DeliverySource};

/// Credit that no case uses up.
const PLENTY: (usize, usize) = (10_000, 64 << 20);

/// A part of the shortest lease of a rig.
const RENEW_EVERY: Duration = Duration::from_millis(250);

/// A source of deliveries that has patience, but not for ever.
pub(super) struct Taker {
    source: Box<dyn DeliverySource>,
}

impl Taker {
    /// A source of `lane` without credit.
    pub(super) async fn without_credit(broker: &Arc<dyn Broker>, lane: &Lane) -> Self {
        Self { source: within("open the lane", broker.lane(lane.clone())).await.unwrap() }
    }

    /// A source of `lane` with all the credit it may want.
    pub(super) async fn open(broker: &Arc<dyn Broker>, lane: &Lane) -> Self {
        let mut taker = Self::without_credit(broker, lane).await;
        taker.grant(PLENTY.0, PLENTY.1);
        taker
    }

    pub(super) fn grant(&mut self, messages: usize, bytes: usize) {
        self.source.grant(messages, bytes);
    }

    pub(super) fn withdraw(&mut self) {
        self.source.withdraw();
    }

    pub(super) fn mend(&mut self) {
        self.source.mend();
    }

    /// The next delivery, which must come.
    pub(super) async fn take(&mut self) -> Delivery {
        within("a delivery", self.source.next()).await.unwrap()
    }

    /// The next delivery, or the error, whenever it comes.
    pub(super) async fn next(&mut self) -> crate::Result<Delivery> {
        self.source.next().await
    }

    /// The next `count` deliveries. None of them comes twice: those that came are kept renewed meanwhile.
    pub(super) async fn take_many(&mut self, count: usize) -> Vec<Delivery> {
        let mut taken: Vec<Delivery> = Vec::with_capacity(count);
        let mut beat = tokio::time::interval(RENEW_EVERY);
        while taken.len() < count {
            let taking = self.take();
            tokio::pin!(taking);
            let delivery = loop {
                tokio::select! {
                    delivery = &mut taking => break delivery,
                    _ = beat.tick() => taken.iter().for_each(|delivery| delivery.lease.renew()),
                }
            };
            if let Some(before) = taken.iter().find(|before| before.run == delivery.run) {
                panic!("this came twice while it was owned: {before:?}, {delivery:?}");
            }
            taken.push(delivery);
        }
        taken
    }

    /// Acknowledges what comes until each of `wanted` has come at least once: how often each came.
    pub(super) async fn ack_until_all(&mut self, wanted: &[Bytes]) -> HashMap<Bytes, usize> {
        let mut came: HashMap<Bytes, usize> = HashMap::new();
        while !wanted.iter().all(|bytes| came.contains_key(bytes)) {
            let delivery = self.take().await;
            delivery.lease.ack(None);
            *came.entry(delivery.bytes).or_default() += 1;
        }
        came
    }

    /// Waits in vain until `other` is done.
    pub(super) async fn in_vain<T>(&mut self, other: impl Future<Output = T>) -> T {
        tokio::select! {
            delivery = self.source.next() => panic!("nothing should have come, but this did: {delivery:?}"),
            done = other => done,
        }
    }

    /// Watches that nothing comes for `time`.
    pub(super) async fn nothing(&mut self, time: Duration) {
        if let Ok(delivery) = tokio::time::timeout(time, self.source.next()).await {
            panic!("nothing should have come, but this did: {delivery:?}");
        }
    }
}

/// Keeps deliveries renewed until dropped, as an executor does.
pub(super) struct Kept(JoinHandle<()>);

impl Kept {
    pub(super) fn new(broker: &Arc<dyn Broker>, deliveries: &[Delivery]) -> Self {
        let leases: Vec<_> = deliveries.iter().map(|d| d.lease.clone()).collect();
        let mut beat = tokio::time::interval(broker.lease() / 3);
        Self(tokio::spawn(async move {
            loop {
                beat.tick().await;
                leases.iter().for_each(|lease| lease.renew());
            }
        }))
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The runs of `deliveries`.
pub(super) fn runs(deliveries: &[Delivery]) -> Vec<RunId> {
    deliveries.iter().map(|d| d.run).collect()
}

/// What `deliveries` say, in the order of the bytes.
pub(super) fn contents(deliveries: &[Delivery]) -> Vec<Bytes> {
    let mut contents: Vec<_> = deliveries.iter().map(|d| d.bytes.clone()).collect();
    contents.sort();
    contents
}
