//! A batch at hand, for those who look at it from outside of its task: how far it is, and what they ask it to do.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

/// What is known and asked of one batch.
pub(crate) struct Hand {
    /// How often the broker has delivered it.
    pub(crate) delivered: u64,
    progress: Mutex<Progress>,
    asked: Mutex<Option<Ask>>,
    news: Notify,
}

/// How far a batch is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    /// Since when its jobs may be begun, once they may.
    pub(crate) opened: Option<Instant>,
    /// The jobs that were begun here.
    pub(crate) begun: usize,
    /// Those of them that run.
    pub(crate) running: usize,
    /// Those that can still be begun.
    pub(crate) unstarted: usize,
    /// Whether jobs of it may go to another executor without the others.
    pub(crate) divisible: bool,
}

impl Progress {
    /// How long until all its jobs are begun, at the pace so far. One that could not begin any is taken to wait as
    /// long again as it has waited.
    pub(crate) fn rest(&self, now: Instant) -> Duration {
        let Some(opened) = self.opened else { return Duration::ZERO };
        let age = now - opened;
        match (self.unstarted, self.begun) {
            (0, _) => Duration::ZERO,
            (_, 0) => age,
            (unstarted, begun) => age.mul_f64(unstarted as f64 / begun as f64),
        }
    }
}

/// What a batch may be asked to do. It does so if it still can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// To go back to the broker, if none of its jobs was begun.
    Release,
    /// To give away its unstarted jobs, but for the first `keep`, in pieces of `piece` jobs.
    Split {
        /// How many jobs stay.
        keep: usize,
        /// How many jobs travel together.
        piece: usize,
    },
}

impl Hand {
    pub(crate) fn new(delivered: u64) -> Self {
        Self { delivered, progress: Mutex::default(), asked: Mutex::default(), news: Notify::new() }
    }

    pub(crate) fn progress(&self) -> Progress {
        *self.progress.lock()
    }

    /// Says how far it is: how many jobs can still be begun, before and now.
    pub(crate) fn advance(&self, progress: Progress) -> (usize, usize) {
        let before = std::mem::replace(&mut *self.progress.lock(), progress);
        (before.unstarted, progress.unstarted)
    }

    /// Asks it to do something. What was asked before and not heard is no longer asked.
    pub(crate) fn ask(&self, ask: Ask) {
        *self.asked.lock() = Some(ask);
        self.news.notify_one();
    }

    /// What it is asked to do next. Cancel safe.
    pub(crate) async fn asked(&self) -> Ask {
        loop {
            if let Some(ask) = self.asked.lock().take() {
                return ask;
            }
            self.news.notified().await;
        }
    }
}
