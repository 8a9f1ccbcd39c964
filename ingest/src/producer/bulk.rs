//! Many jobs of one caller.

use std::sync::Arc;

use super::Producer;
use super::carrier::Carrier;
use crate::EnqueueError;
use crate::batcher::{Batcher, Incoming};
use crate::group::Group;
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
    pub(super) fn new(producer: Producer, listed: usize) -> Self {
        Self { open: Open::new(&producer.carrier), producer, tally: Tally::new(listed) }
    }

    /// Takes a group of jobs, neighbours in the request, where the first is at `first`.
    ///
    /// # Errors
    /// When one is no job, or there is no room; those before it are taken and counted, the rest of the group is not.
    pub(crate) async fn push(&mut self, first: u64, group: &Group<'_>) -> Result<(), EnqueueError> {
        let mut rows = Vec::new();
        let stopped = self.admit(group, &mut rows);
        if !rows.is_empty() {
            let tally = &mut self.tally;
            let put = |at: usize, count, id, receipt: &_| tally.add(first + at as u64, count, id, receipt);
            self.producer.carrier.take(&rows, true, put).await?;
        }
        self.tally.prune().await;
        stopped
    }

    /// Puts what there is of `group` before the first that is no job into `rows`.
    fn admit<'g>(&self, group: &'g Group<'_>, rows: &mut Vec<Incoming<'g>>) -> Result<(), EnqueueError> {
        for (job, mut args) in group.rows() {
            while args.len() > 0 {
                let row = self.producer.admit(job, args)?;
                args = args.behind(row.args.len());
                rows.push(row);
            }
        }
        Ok(())
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
