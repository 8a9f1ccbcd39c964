//! Giving back to a disk what was removed from a database and is still there.
//!
//! fjall clears as it writes: a journal goes when memtables are written out, a file of values when a compaction finds
//! that most of it was removed. When nothing more is written for want of room, neither comes of itself, and what takes
//! the room may be no more than that. So both are asked for.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fjall::{Database, Keyspace};

/// The shortest and the longest pause between two clearings, as long as there is no room.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// How long memtables may take to be written out, before what follows is done with what was.
const FLUSH: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(20);

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

    /// There is none: whether it is time to clear the database, for that is not under way and was not done lately.
    pub(super) fn is_due(&mut self) -> bool {
        let now = Instant::now();
        if self.next.is_some_and(|next| now < next) || self.thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
            return false;
        }
        self.next = Some(now + self.pause.mul_f64(0.5 + fastrand::f64() / 2.0));
        self.pause = (self.pause * 2).min(PAUSES.1);
        true
    }

    /// Clears the database, each of whose keyspaces has something that was not yet written out.
    pub(super) fn begin(&mut self, database: &Database, keyspaces: &[Keyspace]) {
        let (database, keyspaces) = (database.clone(), keyspaces.to_vec());
        let clear = move || {
            if let Err(error) = clear(&database, &keyspaces) {
                tracing::debug!(error = &error as &dyn std::error::Error, "what was removed could not be cleared from the disk");
            }
        };
        self.thread = std::thread::Builder::new().name("wf-clearing".to_owned()).spawn(clear).ok();
    }
}

fn clear(database: &Database, keyspaces: &[Keyspace]) -> Result<(), fjall::Error> {
    for keyspace in keyspaces {
        keyspace.rotate_memtable()?;
    }
    let begun = Instant::now();
    while database.outstanding_flushes() > 0 && begun.elapsed() < FLUSH {
        std::thread::sleep(LOOK);
    }
    keyspaces.iter().try_for_each(Keyspace::major_compact)
}

impl Drop for Clearing {
    fn drop(&mut self) {
        // It has the database, which must be closed with its owner.
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
