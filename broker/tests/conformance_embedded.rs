//! The conformance suite over the embedded broker on disk.
//!
//! A restart is a crash: the new broker opens a copy of the folder that was made while the old one ran, so what it
//! finds is what the system had been given, and nothing that an orderly end would have added. (`embedded_crash.rs`
//! kills a real process.)
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use tempfile::TempDir;
use wf_broker::conformance::{Fill, Rig};
use wf_broker::{Broker, Embedded, EmbeddedOptions};

/// A lane is full with so many messages of so many bytes.
const FILL: Fill = Fill { messages: 1_000, bytes: 1_024 };
/// So many outcomes are kept.
const OUTCOMES: usize = 500;

fn options() -> EmbeddedOptions {
    let weight = FILL.bytes as u64 + EmbeddedOptions::MESSAGE_OVERHEAD;
    EmbeddedOptions::default()
        .lease(Duration::from_secs(1))
        .and_then(|options| options.lane_bytes(FILL.messages as u64 * weight))
        .and_then(|options| options.dead_bytes(1 << 20))
        .and_then(|options| options.outcome_records(OUTCOMES as u64))
        .unwrap()
}

/// A broker and the folder of its life; each crash leads to another.
struct Disk {
    home: TempDir,
    broker: Mutex<(u32, Arc<Embedded>)>,
}

impl Disk {
    fn folder(&self, life: u32) -> PathBuf {
        self.home.path().join(life.to_string())
    }
}

async fn disk() -> Disk {
    let home = tempfile::tempdir().unwrap();
    let broker = Embedded::open(home.path().join("0"), options()).unwrap();
    Disk { home, broker: Mutex::new((0, broker)) }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

impl Rig for Disk {
    fn open(&self) -> BoxFuture<'_, Arc<dyn Broker>> {
        Box::pin(async { self.broker.lock().1.clone() as Arc<dyn Broker> })
    }

    fn fill(&self) -> Fill {
        FILL
    }

    fn outcomes(&self) -> usize {
        OUTCOMES
    }

    fn restart(&self, down: Duration) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let life = self.broker.lock().0 + 1;
            copy(&self.folder(life - 1), &self.folder(life));
            tokio::time::sleep(down).await;
            let broker = Embedded::open(self.folder(life), options()).unwrap();
            *self.broker.lock() = (life, broker);
        })
    }
}

wf_broker::conformance_tests!(disk);
wf_broker::conformance_restart_tests!(disk);
