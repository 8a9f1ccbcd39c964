//! The memory that all bodies share that are being read, or wait for room in a batch.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::super::problem::Problem;
use crate::EnqueueError;

/// Memory for bodies, in bytes. Cheap to clone; clones are the same.
#[derive(Clone)]
pub(in crate::http) struct Budget {
    left: Arc<Semaphore>,
    size: usize,
    /// How long a body waits for its share.
    patience: Duration,
    most: Arc<AtomicUsize>,
}

/// What one body has of it, given back when dropped.
pub(super) struct Share {
    budget: Budget,
    taken: Option<OwnedSemaphorePermit>,
}

impl Budget {
    pub(in crate::http) fn new(size: usize, patience: Duration) -> Self {
        let size = size.clamp(1, u32::MAX as usize);
        Self { left: Arc::new(Semaphore::new(size)), size, patience, most: Arc::default() }
    }

    /// The most that was ever taken at once, in bytes.
    pub(in crate::http) fn most(&self) -> usize {
        self.most.load(SeqCst)
    }

    pub(super) fn share(&self) -> Share {
        Share { budget: self.clone(), taken: None }
    }
}

impl Share {
    /// Takes as much as `bytes` in all, or gives back what is more than that. Waits for others to give back theirs, in
    /// turn, but not for long: those that came first may wait for each other.
    pub(super) async fn take(&mut self, bytes: usize) -> Result<(), Problem> {
        let wanted = bytes.min(self.budget.size);
        let has = self.taken.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        if wanted <= has {
            // What is split off is given back.
            drop(self.taken.as_mut().and_then(|taken| taken.split(has - wanted)));
            return Ok(());
        }
        let more = u32::try_from(wanted - has).unwrap_or(u32::MAX);
        let waiting = self.budget.left.clone().acquire_many_owned(more);
        let Ok(Ok(more)) = tokio::time::timeout(self.budget.patience, waiting).await else {
            return Err(EnqueueError::Busy { retry_after: Duration::from_secs(1) }.into());
        };
        match &mut self.taken {
            Some(taken) => taken.merge(more),
            None => self.taken = Some(more),
        }
        let budget = &self.budget;
        budget.most.fetch_max(budget.size - budget.left.available_permits(), SeqCst);
        Ok(())
    }
}
