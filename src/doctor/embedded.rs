//! Looking a broker inside the process over.

use std::path::Path;
use std::time::{Duration, Instant};

use wf_broker::{Broker as _, Control as _, DeadLetters as _, Embedded};
use wf_nats::CheckupError;
use wf_schema::{Lane, Priority, now};

use super::examination::Examination;
use super::finding::said;
use super::measured::SyncNumbers;
use super::{Check, Finding, disk, judge, units};
use crate::settings;

/// Syncs that are timed, at most,
const SYNCS: usize = 50;

/// and for how long.
const SYNC_WITHIN: Duration = Duration::from_secs(1);

impl Examination<'_> {
    /// A broker in the folder `path`. It is not made.
    pub(super) async fn embedded(&mut self, path: &Path) {
        self.profile_inside();
        self.steps.now("looking at the disk");
        self.disk(path).await;
        self.steps.now("opening the broker");
        let empty = std::fs::read_dir(path).map_or_else(|_| !path.exists(), |mut entries| entries.next().is_none());
        if empty {
            return self.found(judge::disk::nothing_yet(path));
        }
        let options = match settings::embedded(self.config()) {
            Ok(options) => options,
            Err(error) => return self.must_know(Finding::problem(Check::Store, said(&error))),
        };
        let (folder, began) = (path.to_owned(), Instant::now());
        match tokio::task::spawn_blocking(move || Embedded::open(folder, options)).await {
            Ok(Ok(broker)) => self.open(path, &broker, began.elapsed()).await,
            Ok(Err(error)) => {
                // One that is busy serving another process is well.
                self.reached = Some(error.is_retryable());
                self.must_know(judge::disk::refused(&error));
            }
            Err(error) => self.must_know(Finding::problem(Check::Store, said(&error))),
        }
    }

    async fn open(&mut self, path: &Path, broker: &Embedded, took: Duration) {
        self.reached = Some(true);
        let mut waiting = 0;
        for queue in &self.config().executor().queues {
            for priority in [Priority::High, Priority::Normal, Priority::Low] {
                // What cannot be counted is told by what follows.
                waiting += broker.stats(Lane::new(queue.clone(), priority)).await.map_or(0, |stats| stats.pending);
            }
        }
        self.found(judge::disk::opened(path, took, waiting));
        if let Ok(unserved) = broker.unserved().await {
            self.found_all(judge::lanes::lanes_inside(&unserved, &self.config().executor().queues, now()));
        }
        match broker.dead_stats().await {
            Ok(stats) => self.found(judge::capacity::dead(&stats)),
            Err(error) => self.found(Finding::warning(Check::Capacity, said(&error))),
        }
        let ping = async || broker.ping().await.map_err(|error| CheckupError::Failed(error.into()));
        self.pings(ping).await;
        if let Err(error) = broker.close().await {
            self.found(Finding::problem(Check::Store, said(&error)));
        }
    }

    async fn disk(&mut self, path: &Path) {
        let folder = path.to_owned();
        let looked = tokio::task::spawn_blocking(move || disk::look(&folder)).await;
        match looked.unwrap_or_else(|error| Err(error.into())) {
            Ok(facts) => self.found_all(judge::disk::space(&facts, self.config())),
            Err(error) => self.found(Finding::warning(Check::Disk, format!("the disk cannot be looked at: {error}"))),
        }
        if !self.wants(&[Check::Durability]) {
            return;
        }
        self.steps.now("syncing to disk");
        let folder = path.to_owned();
        let times = tokio::task::spawn_blocking(move || disk::sync_times(&folder, SYNCS, SYNC_WITHIN)).await;
        let times = times.unwrap_or_else(|error| Err(error.into()));
        if let Ok(Some(quickest)) = times.as_ref().map(|times| times.iter().min()) {
            let store_ms = Some(units::ms(*quickest));
            self.measured.sync = Some(SyncNumbers { known: true, always: Some(true), interval_ms: None, store_ms });
        }
        self.found(judge::disk::sync(&times));
    }

    /// A broker that keeps nothing.
    pub(super) fn memory(&mut self) {
        self.reached = Some(true);
        self.found(judge::disk::memory());
        self.profile_inside();
    }
}
