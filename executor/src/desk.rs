//! One lane being served: what it may fetch, and the batches of it that are at hand.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};
use wf_schema::Lane;

use crate::credit::{Grant, LaneId};
use crate::hand::Hand;

/// The desk of a lane.
pub(crate) struct Desk {
    pub(crate) lane: Lane,
    pub(crate) id: LaneId,
    /// Who may start jobs of this lane's batches: few at a time, in the order they came, so that batches are either
    /// done soon or untouched and free to go elsewhere. As many as there are cores, for handlers that compute.
    pub(crate) turns: Arc<Semaphore>,
    /// Told when jobs are at hand that could not be begun at once.
    pub(crate) crowded: Notify,
    change: Mutex<Change>,
    news: Notify,
    hands: Mutex<Hands>,
}

/// A change of the credit to pass on: first the withdrawal, then the grant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) withdraw: bool,
    pub(crate) grant: Grant,
}

#[derive(Default)]
struct Hands {
    next: u64,
    /// In the order in which they came.
    all: BTreeMap<u64, Arc<Hand>>,
}

impl Desk {
    pub(crate) fn new(lane: Lane, id: LaneId, turns: usize) -> Self {
        Self {
            lane,
            id,
            turns: Arc::new(Semaphore::new(turns)),
            crowded: Notify::new(),
            change: Mutex::default(),
            news: Notify::new(),
            hands: Mutex::default(),
        }
    }

    /// Grants more.
    pub(crate) fn grant(&self, grant: Grant) {
        let mut change = self.change.lock();
        change.grant.messages += grant.messages;
        change.grant.bytes += grant.bytes;
        self.news.notify_one();
    }

    /// Withdraws what was granted, passed on or not.
    pub(crate) fn withdraw(&self) {
        *self.change.lock() = Change { withdraw: true, grant: Grant::default() };
        self.news.notify_one();
    }

    /// The changes to pass on, as they come. Cancel safe.
    pub(crate) async fn changed(&self) -> Change {
        self.news.notified().await;
        std::mem::take(&mut *self.change.lock())
    }

    /// A batch is at hand: its number here.
    pub(crate) fn take(&self, hand: Arc<Hand>) -> u64 {
        let mut hands = self.hands.lock();
        hands.next += 1;
        let number = hands.next;
        hands.all.insert(number, hand);
        number
    }

    /// The batch with this number is not at hand any more.
    pub(crate) fn leave(&self, number: u64) {
        self.hands.lock().all.remove(&number);
    }

    /// The batches at hand, in the order in which they came.
    pub(crate) fn hands(&self) -> Vec<Arc<Hand>> {
        self.hands.lock().all.values().cloned().collect()
    }
}
