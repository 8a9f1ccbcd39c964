//! Keeping what is owned: every delivery is renewed from its arrival until it is settled or lost.
//!
//! Runs on the executor's own thread, where no handler can hold it up; see [`crate::Executor`].

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, MissedTickBehavior};
use wf_broker::{BoxFuture, Delivery, Identity, Lease, LogEnd};
use wf_schema::{Millis, now};

/// The leases held by a node.
pub(crate) struct Renewals {
    /// How long a delivery stays ours without a renewal.
    lease: Duration,
    /// In an order of its own, so that renewals go out in the same order whenever a history is played again.
    held: Mutex<BTreeMap<Identity, Holding>>,
    beat: Mutex<Beat>,
    /// What is released while lanes are being stopped, until they are.
    parked: Mutex<Option<Vec<Arc<dyn Lease>>>>,
}

/// What is held of one message: more than one lease when the broker, not hearing our renewals, delivered it to us again
/// while we still had it.
struct Holding {
    leases: Vec<Arc<dyn Lease>>,
    since: Instant,
    /// Whether the lease may have run out at some time, so that others may have had the run meanwhile.
    doubtful: bool,
}

/// When leases were last renewed. A process that is stopped, on a machine that sleeps or is moved, renews nothing; and
/// what it then finds in its buffers was sent long ago, however fresh it looks.
#[derive(Default)]
struct Beat {
    last: Option<(Instant, Millis)>,
    doubt_until: Option<Instant>,
}

impl Beat {
    /// Whether the last one was so long ago that this process was surely stopped, by either clock: one may have stood
    /// still with it.
    fn was_stopped(&self, longest: Duration) -> bool {
        self.last.is_some_and(|(at, wall)| at.elapsed() > longest || Duration::from_millis(now().saturating_sub(wall)) > longest)
    }
}

impl Renewals {
    pub(crate) fn new(lease: Duration) -> Self {
        Self { lease, held: Mutex::default(), beat: Mutex::default(), parked: Mutex::default() }
    }

    /// Holds on to `delivery`. `None` when this node holds its very message already: then the new lease joins the old
    /// one, and there is nothing to run. Another message under the same sequence, of a store that was rolled back, is
    /// held by itself.
    pub(crate) fn hold(self: &Arc<Self>, delivery: &Delivery) -> Option<Held> {
        let lease = delivery.lease.clone();
        let doubtful = delivery.delivered > 1 || self.is_in_doubt();
        match self.held.lock().entry(delivery.identity()) {
            Entry::Occupied(mut holding) => {
                let holding = holding.get_mut();
                holding.leases.push(lease);
                holding.doubtful = true;
                None
            }
            Entry::Vacant(place) => {
                place.insert(Holding { leases: vec![lease], since: Instant::now(), doubtful });
                Some(Held { renewals: self.clone(), message: delivery.identity(), lease: delivery.lease.clone() })
            }
        }
    }

    /// Whether what comes now may have been sent long ago.
    fn is_in_doubt(&self) -> bool {
        let beat = self.beat.lock();
        beat.was_stopped(self.lease * 2 / 3) || beat.doubt_until.is_some_and(|until| Instant::now() < until)
    }

    /// Renews all that is held at a third of the lease, for ever.
    pub(crate) async fn keep(self: Arc<Self>) {
        let mut beat = tokio::time::interval(self.lease / 3);
        // After a stall one renewal of each is what is needed, not one for each beat that was missed.
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            beat.tick().await;
            self.renew();
        }
    }

    /// From now on nothing is released before [`Renewals::unpark`]: it would come right back over a lane that is still
    /// open, and count as delivered once more.
    pub(crate) fn park(&self) {
        self.parked.lock().get_or_insert_default();
    }

    /// Releases what was parked, and what follows at once.
    pub(crate) fn unpark(&self) {
        let parked = self.parked.lock().take();
        parked.iter().flatten().for_each(|lease| lease.release(Duration::ZERO));
    }

    fn release(&self, leases: Vec<Arc<dyn Lease>>) {
        match self.parked.lock().as_mut() {
            Some(parked) => parked.extend(leases),
            None => leases.iter().for_each(|lease| lease.release(Duration::ZERO)),
        }
    }

    fn renew(&self) {
        let stopped = {
            let mut beat = self.beat.lock();
            let stopped = beat.was_stopped(self.lease * 2 / 3);
            beat.last = Some((Instant::now(), now()));
            if stopped {
                beat.doubt_until = Some(Instant::now() + self.lease);
            }
            stopped
        };
        let leases: Vec<_> = {
            let mut held = self.held.lock();
            held.values_mut().for_each(|holding| holding.doubtful |= stopped);
            held.values().flat_map(|holding| &holding.leases).cloned().collect()
        };
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
    message: Identity,
    /// The first: of the delivery that is run.
    lease: Arc<dyn Lease>,
}

impl Held {
    /// The message is done, and `end` is the end of its log.
    pub(crate) fn ack(self, mut end: Option<LogEnd>) {
        // The latest first: its delivery is the one that the broker knows best.
        self.let_go().iter().rev().for_each(|lease| lease.ack(end.take()));
    }

    /// Whether the lease may have run out at some time, so that others may have had the run meanwhile. A renewal that
    /// was sent is not one that arrived, so whoever has held a run for longer than one lease cannot be sure either.
    pub(crate) fn may_have_lapsed(&self) -> bool {
        let held = self.renewals.held.lock();
        held.get(&self.message).is_none_or(|holding| holding.doubtful || holding.since.elapsed() >= self.renewals.lease)
            || self.renewals.is_in_doubt()
    }

    /// Whether the message is still stored.
    pub(crate) fn stored(&self) -> BoxFuture<'_, bool> {
        self.lease.stored()
    }

    /// The message is for others, from now on.
    pub(crate) fn release(self) {
        self.renewals.release(self.let_go());
    }

    /// Taken out before they are settled, so that none is renewed after its ack.
    fn let_go(&self) -> Vec<Arc<dyn Lease>> {
        self.renewals.held.lock().remove(&self.message).map(|holding| holding.leases).unwrap_or_default()
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
    use wf_schema::{BatchId, Lane, RunId};

    use super::*;

    #[derive(Default)]
    struct Counting {
        renewed: AtomicUsize,
        acked: AtomicUsize,
        released: AtomicUsize,
    }

    impl Lease for Counting {
        fn stored(&self) -> BoxFuture<'_, bool> {
            Box::pin(std::future::ready(Ok(true)))
        }
        fn ack(&self, _: Option<LogEnd>) {
            self.acked.fetch_add(1, Ordering::Relaxed);
        }
        fn renew(&self) {
            self.renewed.fetch_add(1, Ordering::Relaxed);
        }
        fn release(&self, _: Duration) {
            self.released.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn delivery(sequence: u64, lease: &Arc<Counting>) -> Delivery {
        Delivery {
            lane: Lane::default(),
            id: "".into(),
            bytes: Bytes::new(),
            run: RunId::new('t', sequence),
            delivered: 1,
            fallback_id: BatchId::from(u128::from(sequence)),
            stored_at: 0,
            fired: None,
            lease: lease.clone(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_held_is_renewed_at_a_third_of_the_lease() {
        let renewals = Arc::new(Renewals::new(Duration::from_secs(30)));
        let keeper = tokio::spawn(renewals.clone().keep());
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
        let renewals = Arc::new(Renewals::new(Duration::from_secs(30)));
        let (first, second) = (Arc::new(Counting::default()), Arc::new(Counting::default()));
        let held = renewals.hold(&delivery(7, &first)).unwrap();
        assert!(renewals.hold(&delivery(7, &second)).is_none());
        renewals.renew();
        held.ack(None);
        for lease in [first, second] {
            assert_eq!((lease.renewed.load(Ordering::Relaxed), lease.acked.load(Ordering::Relaxed)), (1, 1));
        }
    }

    #[test]
    fn another_message_under_the_same_sequence_is_no_part_of_the_run() {
        let renewals = Arc::new(Renewals::new(Duration::from_secs(30)));
        let (first, second) = (Arc::new(Counting::default()), Arc::new(Counting::default()));
        let held = renewals.hold(&delivery(7, &first)).unwrap();
        let other = Delivery { fallback_id: BatchId::from(8), ..delivery(7, &second) };
        let also = renewals.hold(&other).unwrap();
        held.ack(None);
        assert_eq!((first.acked.load(Ordering::Relaxed), second.acked.load(Ordering::Relaxed)), (1, 0));
        also.ack(None);
        assert_eq!(second.acked.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn what_is_released_while_lanes_stop_waits_for_them() {
        let renewals = Arc::new(Renewals::new(Duration::from_secs(30)));
        let lease = Arc::new(Counting::default());
        let released = || lease.released.load(Ordering::Relaxed);
        let [first, second, third] = [1, 2, 3].map(|sequence| renewals.hold(&delivery(sequence, &lease)).unwrap());
        first.release();
        renewals.park();
        second.release();
        assert_eq!(released(), 1);
        renewals.unpark();
        assert_eq!(released(), 2);
        third.release();
        assert_eq!(released(), 3);
    }
}
