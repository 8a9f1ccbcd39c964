//! Many jobs of one caller.

use std::sync::Arc;

use wf_schema::Job;

use super::Producer;
use super::carrier::Carrier;
use crate::EnqueueError;
use crate::batcher::Batcher;
use crate::tally::{Tallied, Tally};

/// Takes many jobs, in groups, and keeps count of what becomes of them. The memory it takes does not grow with the
/// number of jobs beyond what is listed.
pub(crate) struct Bulk {
    producer: Producer,
    tally: Tally,
    open: Open,
}

/// Tells the batcher that more is coming, as long as it lives.
struct Open(Arc<Carrier>);

impl Open {
    fn new(carrier: &Arc<Carrier>) -> Self {
        carrier.with(Batcher::bulk_begins);
        Self(carrier.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.with(Batcher::bulk_ends);
    }
}

impl Bulk {
    /// The most jobs in a group: enough that the lock costs nothing a job, few enough to share it and to stay in a core's
    /// nearest cache.
    pub(crate) const GROUP: usize = 64;
    /// The most bytes of args that wait for room at once; a group may be split there.
    const STRIDE: usize = 256 << 10;

    pub(super) fn new(producer: Producer, listed: usize) -> Self {
        Self { open: Open::new(&producer.carrier), producer, tally: Tally::new(listed) }
    }

    /// Takes a group of jobs, neighbours in the request, where the first is at `first`.
    ///
    /// # Errors
    /// When one is no job, or there is no room; those before it are taken and counted, the rest of the group is not.
    pub(crate) async fn push(&mut self, first: u64, group: &[Job<'_>]) -> Result<(), EnqueueError> {
        let mut from = 0;
        let mut stopped = Ok(());
        while from < group.len() && stopped.is_ok() {
            let (mut rows, mut to, mut bytes) = (Vec::new(), from, 0);
            while to < group.len() && bytes < Self::STRIDE {
                match self.producer.admit(&group[to..], Self::STRIDE - bytes) {
                    Ok(row) => {
                        to += row.jobs.len();
                        bytes += row.jobs.iter().map(|job| job.args.len()).sum::<usize>();
                        rows.push(row);
                    }
                    Err(error) => {
                        stopped = Err(error);
                        break;
                    }
                }
            }
            let (tally, item) = (&mut self.tally, first + from as u64);
            let put = |at: usize, count, id, receipt: &_| tally.add(item + at as u64, count, id, receipt);
            self.producer.carrier.take(&rows, true, put).await?;
            from = to;
        }
        self.tally.prune().await;
        stopped
    }

    /// What became of all of them.
    pub(crate) async fn finish(self) -> Tallied {
        // Nothing more is coming, so that nothing is held for it while this waits.
        drop(self.open);
        self.tally.finish().await
    }

    /// What is known by now.
    pub(crate) fn hasten(self) -> Tallied {
        self.tally.hasten()
    }
}
