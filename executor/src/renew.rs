//! Keeping what is owned: every delivery is renewed from its arrival until it is settled or lost.
//!
//! Runs on the executor's own thread, where no handler can hold it up; see [`crate::Executor`].

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::MissedTickBehavior;
use wf_broker::{Delivery, Lease};
use wf_schema::RunId;

/// The leases held by a node. A run has more than one when the broker, not hearing our renewals, delivered it to us
/// again while we still had it.
#[derive(Default)]
pub(crate) struct Renewals {
    /// In an order of its own, so that renewals go out in the same order whenever a history is played again.
    held: Mutex<BTreeMap<RunId, Vec<Arc<dyn Lease>>>>,
}

impl Renewals {
    /// Holds on to `delivery`. `None` when this node holds the run already: then the new lease joins the old one, and
    /// there is nothing to run.
    pub(crate) fn hold(self: &Arc<Self>, delivery: &Delivery) -> Option<Held> {
        let lease = delivery.lease.clone();
        match self.held.lock().entry(delivery.run) {
            Entry::Occupied(mut leases) => {
                leases.get_mut().push(lease);
                None
            }
            Entry::Vacant(place) => {
                place.insert(vec![lease]);
                Some(Held { renewals: self.clone(), run: delivery.run })
            }
        }
    }

    /// Renews all that is held at a third of `lease`, for ever.
    pub(crate) async fn keep(self: Arc<Self>, lease: Duration) {
        let mut beat = tokio::time::interval(lease / 3);
        // After a stall one renewal of each is what is needed, not one for each beat that was missed.
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            beat.tick().await;
            self.renew();
        }
    }

    fn renew(&self) {
        let leases: Vec<_> = self.held.lock().values().flatten().cloned().collect();
        leases.iter().for_each(|lease| lease.renew());
    }

    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.held.lock().len()
    }
}

/// The hold on one run. Dropped unsettled, it is renewed no more, and its message comes again when the lease is over.
pub(crate) struct Held {
    renewals: Arc<Renewals>,
    run: RunId,
}

impl Held {
    /// The message is done.
    pub(crate) fn ack(self) {
        self.let_go().iter().for_each(|lease| lease.ack());
    }

    /// The message is for others, from now on.
    pub(crate) fn release(self) {
        self.let_go().iter().for_each(|lease| lease.release(Duration::ZERO));
    }

    /// Taken out before they are settled, so that none is renewed after its ack.
    fn let_go(&self) -> Vec<Arc<dyn Lease>> {
        self.renewals.held.lock().remove(&self.run).unwrap_or_default()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.let_go();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use bytes::Bytes;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use wf_schema::{BatchId, Lane};

    use super::*;

    #[derive(Default)]
    struct Counting {
        renewed: AtomicUsize,
        acked: AtomicUsize,
    }

    impl Lease for Counting {
        fn ack(&self) {
            self.acked.fetch_add(1, Ordering::Relaxed);
        }
        fn renew(&self) {
            self.renewed.fetch_add(1, Ordering::Relaxed);
        }
        fn release(&self, _: Duration) {}
    }

    fn delivery(sequence: u64, lease: &Arc<Counting>) -> Delivery {
        Delivery {
            lane: Lane::default(),
            bytes: Bytes::new(),
            run: RunId::new('t', sequence),
            delivered: 1,
            fallback_id: BatchId::new(),
            stored_at: 0,
            fired: None,
            lease: lease.clone(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_held_is_renewed_at_a_third_of_the_lease() {
        let renewals = Arc::new(Renewals::default());
        let keeper = tokio::spawn(renewals.clone().keep(Duration::from_secs(30)));
        let lease = Arc::new(Counting::default());
        let held = renewals.hold(&delivery(1, &lease)).unwrap();
        tokio::time::sleep(Duration::from_secs(31)).await;
        assert_eq!(lease.renewed.load(Ordering::Relaxed), 4);
        drop(held);
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(lease.renewed.load(Ordering::Relaxed), 4);
        assert_eq!(renewals.count(), 0);
        keeper.abort();
    }

    #[test]
    fn a_run_that_is_held_already_is_joined() {
        let renewals = Arc::new(Renewals::default());
        let (first, second) = (Arc::new(Counting::default()), Arc::new(Counting::default()));
        let held = renewals.hold(&delivery(7, &first)).unwrap();
        assert!(renewals.hold(&delivery(7, &second)).is_none());
        renewals.renew();
        held.ack();
        for lease in [first, second] {
            assert_eq!((lease.renewed.load(Ordering::Relaxed), lease.acked.load(Ordering::Relaxed)), (1, 1));
        }
    }
}
