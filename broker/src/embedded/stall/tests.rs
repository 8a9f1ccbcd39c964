//! The laws of a disk without room: what was answered is there, what was refused is not, and it goes on by itself.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use bytes::Bytes;
use parking_lot::Mutex;
use wf_schema::{BatchId, Lane, now};

use super::super::store::{KeyRange, MemoryStore, Space, StoreResult, Write};
use super::*;
use crate::{
    Broker, Consume, Control, Delivery, Embedded, EmbeddedOptions, Key, Message, OutcomeLog, Publish, RunLog, Schedule,
    Scheduled, Version,
};

/// A disk that can be full, and say so late. Clones are the same.
#[derive(Clone, Default)]
struct Disk(Arc<Inner>);

#[derive(Default)]
struct Inner {
    memory: MemoryStore,
    /// Whether it says that it has no room, or little.
    full: AtomicBool,
    cramped: AtomicBool,
    /// How the next commit ends, and all until it is opened anew.
    trouble: Mutex<Option<Trouble>>,
    reopened: AtomicUsize,
}

#[derive(Clone, Copy)]
struct Trouble {
    error: fn() -> DiskError,
    /// Whether it is made all the same.
    made: bool,
}

impl Store for Disk {
    fn blocks(&self) -> bool {
        true
    }

    fn get(&self, space: Space, key: &[u8]) -> StoreResult<Option<Bytes>> {
        self.0.memory.get(space, key)
    }

    fn keys(&self, space: Space, range: &KeyRange, limit: usize) -> StoreResult<Vec<Bytes>> {
        self.0.memory.keys(space, range, limit)
    }

    fn pairs(&self, space: Space, range: &KeyRange, limit: usize) -> StoreResult<Vec<(Bytes, Bytes)>> {
        self.0.memory.pairs(space, range, limit)
    }

    fn last_key(&self, space: Space, range: &KeyRange) -> StoreResult<Option<Bytes>> {
        self.0.memory.last_key(space, range)
    }

    fn commit(&self, writes: &[Write], durability: Durability) -> StoreResult<()> {
        let mut trouble = self.0.trouble.lock();
        if let Some(Trouble { error, made }) = trouble.as_mut() {
            if std::mem::take(made) {
                self.0.memory.commit(writes, durability)?;
            }
            self.0.full.store(true, SeqCst);
            return Err(error());
        }
        self.0.memory.commit(writes, durability)
    }

    fn room(&self) -> Room {
        match (self.0.full.load(SeqCst), self.0.cramped.load(SeqCst)) {
            (true, _) => Room::None,
            (_, true) => Room::Little,
            _ => Room::Enough,
        }
    }

    fn reopen(&self) -> StoreResult<()> {
        self.0.reopened.fetch_add(1, SeqCst);
        *self.0.trouble.lock() = None;
        Ok(())
    }
}

impl Disk {
    fn broker(&self) -> Arc<Embedded> {
        Embedded::start(Arc::new(self.clone()), EmbeddedOptions::default()).unwrap()
    }

    /// No room any more, as the next commit finds out.
    fn fill(&self, error: fn() -> DiskError, made: bool) {
        *self.0.trouble.lock() = Some(Trouble { error, made });
    }

    /// No room for more, but for what is there to leave.
    fn cramp(&self, cramped: bool) {
        self.0.cramped.store(cramped, SeqCst);
        self.0.full.store(false, SeqCst);
    }
}

fn storage_full() -> DiskError {
    DiskError::new(io::Error::from(io::ErrorKind::StorageFull))
}

fn message(id: &str) -> Message {
    Message { lane: Lane::default(), id: id.into(), bytes: id.to_owned().into() }
}

async fn take(broker: &Embedded, count: usize) -> Vec<Delivery> {
    let mut source = broker.lane(Lane::default()).await.unwrap();
    let mut taken = Vec::new();
    source.grant(count, usize::MAX >> 1);
    for _ in 0..count {
        taken.push(tokio::time::timeout(Duration::from_secs(20), source.next()).await.unwrap().unwrap());
    }
    taken
}

/// Publishes, as often as it takes.
async fn insist(broker: &Embedded, id: &str) -> bool {
    loop {
        match broker.publish(message(id)).await {
            Ok(stored) => return stored.duplicate,
            Err(BrokerError::NoRoom { .. }) => tokio::time::sleep(Duration::from_millis(10)).await,
            Err(error) => panic!("{error:?}"),
        }
    }
}

fn log_of(delivery: &Delivery) -> RunLog {
    RunLog { batch: BatchId::new(), run: delivery.run, message: delivery.id.clone() }
}

fn is_no_room<T>(answer: &crate::Result<T>) -> bool {
    matches!(answer, Err(error @ BrokerError::NoRoom { .. }) if error.is_retryable())
}

/// The bodies of all that waits after a restart.
async fn left(disk: &Disk) -> Vec<String> {
    let broker = disk.broker();
    let pending = broker.stats(Lane::default()).await.unwrap().pending as usize;
    let mut bodies: Vec<_> =
        take(&broker, pending).await.iter().map(|delivery| String::from_utf8(delivery.bytes.to_vec()).unwrap()).collect();
    bodies.sort();
    bodies
}

#[tokio::test]
async fn a_round_without_room_is_made_when_there_is_some() {
    let poisoned = || DiskError::new(fjall::Error::Poisoned);
    // Whether the disk had made it or not; as the write found out, or a thread of the database before.
    for (made, error) in [(false, storage_full as fn() -> DiskError), (true, storage_full), (false, poisoned)] {
        let disk = Disk::default();
        let broker = disk.broker();
        for id in ["a", "b", "c"] {
            broker.publish(message(id)).await.unwrap();
        }
        let mut taken = take(&broker, 1).await;
        disk.fill(error, made);
        // There was room when this one came: whether it is stored is not known.
        let late = broker.publish(message("late")).await;
        assert!(matches!(late, Err(BrokerError::Retryable { .. })), "{late:?}");

        // From now on it is: nothing is.
        assert!(is_no_room(&broker.publish(message("refused")).await));
        assert!(is_no_room(&broker.publish(message("late")).await), "what is not safe is no duplicate");
        let log = log_of(&taken[0]);
        assert!(is_no_room(&broker.append(log, Version::NONE, "record".into()).await));
        assert!(is_no_room(&broker.settled().await));
        broker.ping().await.unwrap();
        // What is there is delivered, and can be acknowledged.
        taken.extend(take(&broker, 1).await);
        taken.iter().for_each(|delivery| delivery.lease.ack(None));

        // Little room is enough for what is under way, and for what is to be removed, and nothing more.
        disk.cramp(true);
        while broker.settled().await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(is_no_room(&broker.publish(message("refused")).await));
        disk.cramp(false);
        assert!(!insist(&broker, "after").await);
        assert_eq!(disk.0.reopened.load(SeqCst), 1);
        assert!(insist(&broker, "late").await, "it was stored after all");
        let again = take(&broker, 1).await.remove(0);
        broker.append(log_of(&again), Version::NONE, "record".into()).await.unwrap();
        broker.close().await.unwrap();
        assert_eq!(left(&disk).await, ["after", "c", "late"]);
    }
}

#[tokio::test]
async fn with_little_room_nothing_more_is_taken_and_the_rest_goes_on() {
    let disk = Disk::default();
    let broker = disk.broker();
    broker.publish(message("a")).await.unwrap();
    let before = now();
    disk.cramp(true);
    assert!(is_no_room(&broker.publish(message("b")).await));
    assert!(is_no_room(&broker.publish_all(vec![message("c"), message("d")]).await));
    let later = Scheduled { lane: Lane::default(), key: Key::new("e").unwrap(), due: before, bytes: "e".into() };
    assert!(is_no_room(&broker.publish_at(later).await));
    assert!(broker.publish(message("a")).await.unwrap().duplicate, "it needs no room");
    // What is there is settled.
    let taken = take(&broker, 1).await;
    broker.append(log_of(&taken[0]), Version::NONE, "record".into()).await.unwrap();
    taken[0].lease.ack(None);
    broker.settled().await.unwrap();
    disk.cramp(false);
    assert!(!broker.publish(message("b")).await.unwrap().duplicate);
    assert_eq!(disk.0.reopened.load(SeqCst), 0, "nothing was broken");
    broker.close().await.unwrap();
    assert_eq!(left(&disk).await, ["b"]);
}

#[tokio::test]
async fn a_disk_that_fails_otherwise_ends_it() {
    let disk = Disk::default();
    let broker = disk.broker();
    disk.fill(|| DiskError::new(io::Error::from(io::ErrorKind::Other)), false);
    assert!(matches!(broker.publish(message("a")).await, Err(BrokerError::Retryable { .. })));
    assert!(matches!(broker.publish(message("b")).await, Err(BrokerError::Fatal { .. })));
    assert!(matches!(broker.ping().await, Err(BrokerError::Fatal { .. })));
    assert!(matches!(broker.close().await, Err(BrokerError::Fatal { .. })));
}

#[tokio::test]
async fn closed_without_room_it_says_what_it_could_not_do() {
    for room in [false, true] {
        let disk = Disk::default();
        let broker = disk.broker();
        broker.publish(message("a")).await.unwrap();
        disk.fill(storage_full, false);
        take(&broker, 1).await[0].lease.ack(None);
        assert!(broker.settled().await.is_err());
        if room {
            disk.cramp(false);
        }
        assert_eq!(broker.close().await.is_ok(), room);
        *disk.0.trouble.lock() = None;
        disk.cramp(false);
        assert_eq!(left(&disk).await.len(), usize::from(!room), "it comes again if its removal was not made");
    }
}
