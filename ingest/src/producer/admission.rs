//! Letting jobs in: at once while there is room, in turn when there is not, and not at all after a while.

use std::borrow::Cow;
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
    /// Takes all jobs of `rows`, waiting for room if need be; `put` is told, of neighbours that share a batch, the place of
    /// the first, how many they are, its id and their receipt. When this fails, those that `put` was told of are taken and
    /// the rest is not. `more` says that others are about to come, which those that could leave at once may wait for.
    pub(super) async fn take(
        self: &Arc<Self>,
        rows: &[Incoming<'_>],
        more: bool,
        mut put: impl FnMut(usize, u32, JobId, &Receipt),
    ) -> Result<(), EnqueueError> {
        let all: usize = rows.iter().map(|row| row.args.len()).sum();
        let mut taken = 0;
        // Who comes while others wait stands behind them, or a stream of small jobs would keep a large one out.
        if self.waiting.load(SeqCst) == 0 {
            taken = self.take_some(rows, taken, more, &mut put)?;
        }
        if taken == all {
            return Ok(());
        }
        let _waiting = Waiting::new(&self.waiting);
        let wait = async {
            let _turn = self.turnstile.lock().await;
            loop {
                // First in line, then look: room that is made in between is not missed.
                let room = self.room.notified();
                taken = self.take_some(rows, taken, more, &mut put)?;
                if taken == all {
                    return Ok(());
                }
                tokio::select! {
                    biased;
                    () = self.closing.cancelled() => return Err(EnqueueError::Closed),
                    () = room => {}
                    // Open batches that linger give room without anybody leaving the window first.
                    () = tokio::time::sleep(self.options.batch.linger.max(Duration::from_millis(1))) => {}
                }
            }
        };
        match tokio::time::timeout(self.options.room_timeout, wait).await {
            Ok(result) => result,
            Err(_) => Err(self.no_room()),
        }
    }

    /// Takes as many jobs of `rows`, without the first `from` of them, as there is room for: how many are taken then.
    fn take_some(
        self: &Arc<Self>,
        rows: &[Incoming<'_>],
        from: usize,
        more: bool,
        put: &mut impl FnMut(usize, u32, JobId, &Receipt),
    ) -> Result<usize, EnqueueError> {
        if self.closing.is_cancelled() {
            return Err(EnqueueError::Closed);
        }
        if let Some(refusal) = self.publisher.refusal() {
            return Err(refusal.into());
        }
        let (now, rest) = (self.moment(), behind(rows, from));
        Ok(self.with(|batcher| {
            let taken = batcher.take(&rest, now, |at, count, id, receipt| put(from + at, count, id, receipt));
            if more {
                batcher.rest_for_more(now.clock);
            } else {
                batcher.rest();
            }
            from + taken
        }))
    }
}

/// The jobs of `rows` behind the first `taken`.
fn behind<'r, 'a>(rows: &'r [Incoming<'a>], mut taken: usize) -> Cow<'r, [Incoming<'a>]> {
    if taken == 0 {
        return Cow::Borrowed(rows);
    }
    let rest = rows.iter().filter_map(|row| {
        let skipped = taken.min(row.args.len());
        taken -= skipped;
        Some(Incoming { args: row.args.behind(skipped), ..*row }).filter(|row| row.args.len() > 0)
    });
    Cow::Owned(rest.collect())
}
