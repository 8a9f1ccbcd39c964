//! Giving back to a disk what was removed from a database and is still there.
//!
//! fjall clears as it writes: a journal goes when memtables are written out, a file of values when compactions find that
//! all of it was removed. When nothing more is written for want of room, neither comes of itself, and what takes the room
//! may be no more than that. So both are asked for.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fjall::Keyspace;

use super::{Change, Data, DiskError, Durability};

/// The shortest and the longest pause between two clearings, as long as there is no room.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// How long memtables may take to be written out, before what follows is done with what was.
const FLUSH: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(20);
/// A first compaction finds what was removed, a second lets go of its files, and they are removed with the third.
const ROUNDS: usize = 3;
/// A key that never has a value.
const NOTHING: [u8; 2] = [0; 2];

/// Clears a database, in a thread of its own, now and then. Dropped, it waits for that.
#[derive(Debug)]
pub(super) struct Clearing {
    thread: Option<JoinHandle<()>>,
    next: Option<Instant>,
    pause: Duration,
}

impl Default for Clearing {
    fn default() -> Self {
        Self { thread: None, next: None, pause: PAUSES.0 }
    }
}

impl Clearing {
    /// There is room.
    pub(super) fn is_needless(&mut self) {
        (self.next, self.pause) = (None, PAUSES.0);
    }

    /// There is little: clears the database, unless that is under way or was done lately.
    pub(super) fn is_needed(&mut self, data: &Data) {
        let now = Instant::now();
        if self.next.is_some_and(|next| now < next) || self.thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
            return;
        }
        self.next = Some(now + self.pause.mul_f64(0.5 + fastrand::f64() / 2.0));
        self.pause = (self.pause * 2).min(PAUSES.1);
        let data = data.clone();
        let clear = move || {
            if let Err(error) = (0..ROUNDS).try_for_each(|_| clear(&data)) {
                tracing::debug!(error = &error as &dyn std::error::Error, "what was removed could not be cleared from the disk");
            }
        };
        self.thread = std::thread::Builder::new().name("wf-clearing".to_owned()).spawn(clear).ok();
    }
}

fn clear(data: &Data) -> Result<(), DiskError> {
    // What the very last commit removed is not cleared, nor a keyspace looked at that has nothing new: so all get
    // something new.
    let nothing = |keyspace| Change { keyspace, key: NOTHING.to_vec(), value: None };
    data.commit((0..data.keyspaces.len()).map(nothing), Durability::Buffered)?;
    for keyspace in &data.keyspaces {
        keyspace.rotate_memtable().map_err(DiskError::new)?;
    }
    let begun = Instant::now();
    while data.database.outstanding_flushes() > 0 && begun.elapsed() < FLUSH {
        std::thread::sleep(LOOK);
    }
    data.keyspaces.iter().try_for_each(Keyspace::major_compact).map_err(DiskError::new)
}

impl Drop for Clearing {
    fn drop(&mut self) {
        // It has the database, which must be closed with its owner.
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
