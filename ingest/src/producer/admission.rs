//! Letting jobs in: at once while there is room, in turn when there is not, and not at all after a while.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use wf_schema::JobId;

use super::carrier::Carrier;
use crate::batcher::Incoming;
use crate::{EnqueueError, Receipt};

/// Counts a caller as waiting as long as it lives.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, SeqCst);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

impl Carrier {
    /// Takes all of `jobs`, waiting for room if need be; `put` is told the place of each, its id and its batch's
    /// receipt. When this fails, those that `put` was told of are taken and the rest is not. `more` says that others are
    /// about to come, which those that could leave at once may wait for.
    pub(super) async fn take(
        self: &Arc<Self>,
        jobs: &[Incoming<'_>],
        more: bool,
        mut put: impl FnMut(usize, JobId, &Receipt),
    ) -> Result<(), EnqueueError> {
        let mut taken = 0;
        // Who comes while others wait stands behind them, or a stream of small jobs would keep a large one out.
        if self.waiting.load(SeqCst) == 0 {
            taken = self.take_some(jobs, taken, more, &mut put)?;
        }
        if taken == jobs.len() {
            return Ok(());
        }
        let _waiting = Waiting::new(&self.waiting);
        let wait = async {
            let _turn = self.turnstile.lock().await;
            loop {
                // First in line, then look: room that is made in between is not missed.
                let room = self.room.notified();
                taken = self.take_some(jobs, taken, more, &mut put)?;
                if taken == jobs.len() {
                    return Ok(());
                }
                tokio::select! {
                    () = room => {}
                    // Open batches that linger give room without anybody leaving the window first.
                    () = tokio::time::sleep(self.options.batch.linger.max(Duration::from_millis(1))) => {}
                    () = self.closing.cancelled() => return Err(EnqueueError::Closed),
                }
            }
        };
        match tokio::time::timeout(self.options.room_timeout, wait).await {
            Ok(result) => result,
            Err(_) => Err(self.no_room()),
        }
    }

    /// Takes as many of `jobs`, from the place `from` on, as there is room for: the place of the first not taken.
    fn take_some(
        self: &Arc<Self>,
        jobs: &[Incoming<'_>],
        from: usize,
        more: bool,
        put: &mut impl FnMut(usize, JobId, &Receipt),
    ) -> Result<usize, EnqueueError> {
        if self.closing.is_cancelled() {
            return Err(EnqueueError::Closed);
        }
        if let Some(refusal) = self.publisher.refusal() {
            return Err(refusal.into());
        }
        let now = self.moment();
        Ok(self.with(|batcher| {
            let jobs = jobs.get(from..).unwrap_or_default();
            let taken = batcher.take(jobs, now, |at, id, receipt| put(from + at, id, receipt));
            if more {
                batcher.rest_for_more(now.clock);
            } else {
                batcher.rest();
            }
            from + taken
        }))
    }
}
