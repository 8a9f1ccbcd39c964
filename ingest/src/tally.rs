//! Counting what became of the jobs of one bulk request, in bounded memory.

use std::collections::VecDeque;

use serde::Serialize;
use wf_schema::{BatchId, JobId};

use crate::{EnqueueError, Receipt, StoredIn};

/// Ids of jobs in a row: `<batch>-<first>`, `<batch>-<first + 1>`, ... `count` of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct IdRange {
    /// The batch.
    pub batch: BatchId,
    /// The index of the first job.
    pub first: u32,
    /// The number of jobs.
    pub count: u32,
}

impl IdRange {
    /// The ids, one by one.
    pub fn ids(self) -> impl Iterator<Item = JobId> {
        (0..self.count).map(move |n| JobId { batch: self.batch, index: self.first + n })
    }
}

/// A range whose fate is not known yet. Its jobs are neighbours in the request too.
struct Pending {
    /// The place of the first job in the request.
    item: u64,
    ids: IdRange,
    receipt: Receipt,
}

/// Jobs in a row that were not stored.
pub(crate) struct Failed {
    pub(crate) item: u64,
    pub(crate) count: u64,
    pub(crate) error: EnqueueError,
}

/// What became of the jobs so far.
#[derive(Default)]
pub(crate) struct Tallied {
    pub(crate) accepted: u64,
    /// Of those accepted, how many are in the spool.
    pub(crate) spooled: u64,
    /// The ids of those accepted, with the place of the first of each range in the request.
    pub(crate) ids: Vec<(u64, IdRange)>,
    /// How many were accepted whose ids are not in `ids`.
    pub(crate) unlisted: u64,
    pub(crate) rejected: u64,
    pub(crate) failed: Vec<Failed>,
}

pub(crate) struct Tally {
    pending: VecDeque<Pending>,
    done: Tallied,
    /// The most ranges, and the most failures, that are listed; the rest is only counted.
    listed: usize,
}

impl Tally {
    /// The most ranges whose fate is not known. Above it, the oldest is waited for.
    const PENDING: usize = 10_000;

    pub(crate) fn new(listed: usize) -> Self {
        Self { pending: VecDeque::new(), done: Tallied::default(), listed }
    }

    /// Counts `count` jobs in a row, the first of them at `item` in the request and called `id`.
    pub(crate) fn add(&mut self, item: u64, count: u32, id: JobId, receipt: &Receipt) {
        if let Some(last) = self.pending.back_mut() {
            let next_id = last.ids.batch == id.batch && last.ids.first + last.ids.count == id.index;
            if next_id && last.item + u64::from(last.ids.count) == item && last.receipt.same(receipt) {
                last.ids.count += count;
                return;
            }
        }
        let ids = IdRange { batch: id.batch, first: id.index, count };
        self.pending.push_back(Pending { item, ids, receipt: receipt.clone() });
    }

    /// Takes note of what is known by now, and waits if too much is not.
    pub(crate) async fn prune(&mut self) {
        while let Some(oldest) = self.pending.front() {
            let result = match oldest.receipt.peek() {
                Some(result) => result,
                None if self.pending.len() > Self::PENDING => oldest.receipt.stored().await,
                None => break,
            };
            self.take(result);
        }
    }

    /// Waits for everything.
    pub(crate) async fn finish(mut self) -> Tallied {
        while let Some(oldest) = self.pending.front() {
            let result = oldest.receipt.stored().await;
            self.take(result);
        }
        self.done
    }

    /// Waits for nothing: what has not failed yet counts as accepted.
    pub(crate) fn hasten(mut self) -> Tallied {
        while let Some(oldest) = self.pending.front() {
            let result = oldest.receipt.peek().unwrap_or(Ok(StoredIn::Broker));
            self.take(result);
        }
        self.done
    }

    fn take(&mut self, result: Result<StoredIn, EnqueueError>) {
        let Some(Pending { item, ids, .. }) = self.pending.pop_front() else { return };
        let count = u64::from(ids.count);
        match result {
            Ok(stored) => {
                self.done.accepted += count;
                if stored == StoredIn::Spool {
                    self.done.spooled += count;
                }
                if self.done.ids.len() < self.listed {
                    self.done.ids.push((item, ids));
                } else {
                    self.done.unlisted += count;
                }
            }
            Err(error) => {
                self.done.rejected += count;
                if self.done.failed.len() < self.listed.min(1_000) {
                    self.done.failed.push(Failed { item, count, error });
                }
            }
        }
    }
}
