//! Disks of processes: they stay when the process is gone.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;
use wf_broker::DiskError;
use wf_ingest::{SpoolChange, SpoolError, SpoolSpace, SpoolStore};
use work_factory::run::Outlet;

use super::broker::Session;
use super::history::{Mishap, Op};

/// What a disk holds: by keyspace and key.
type Held = BTreeMap<(u8, Vec<u8>), Bytes>;

/// What is on a spool's disk.
#[derive(Clone, Default)]
pub(crate) struct Disk(Arc<Mutex<Held>>);

/// It, as one life of its process sees it: what a dead process writes gets nowhere.
pub(crate) struct Mounted {
    pub(crate) disk: Disk,
    pub(crate) session: Arc<Session>,
}

/// What a write comes to.
enum Written {
    Whole,
    Nothing,
    Failed,
    WholeAndFailed,
}

impl Mounted {
    fn fate(&self) -> Written {
        let (node, life) = (self.session.node, self.session.life);
        let mut world = self.session.world().lock();
        if !world.is_alive(node, life) {
            return Written::Nothing;
        }
        if world.disks_full.get(&node).is_some_and(|until| Instant::now() < *until) {
            return Written::Failed;
        }
        world.note(Op::Disk, node, 0);
        let mishap = world.mishap(Op::Disk, node);
        if matches!(mishap, Some(Mishap::CrashBefore | Mishap::CrashAfter)) {
            world.kill(node);
        }
        match mishap {
            Some(Mishap::CrashBefore) => Written::Nothing,
            Some(Mishap::LoseRequest) => Written::Failed,
            Some(Mishap::LoseAnswer) => Written::WholeAndFailed,
            _ => Written::Whole,
        }
    }
}

impl SpoolStore for Mounted {
    fn get(&self, space: SpoolSpace, key: &[u8]) -> Result<Option<Bytes>, DiskError> {
        Ok(self.disk.0.lock().get(&(space as u8, key.to_vec())).cloned())
    }

    fn pairs(&self, space: SpoolSpace, prefix: &[u8], from: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, DiskError> {
        let pairs = self.disk.0.lock();
        let range = pairs.range((space as u8, from.max(prefix).to_vec())..);
        let own = range.take_while(|((of, key), _)| *of == space as u8 && key.starts_with(prefix));
        Ok(own.take(limit).map(|((_, key), value)| (key.clone().into(), value.clone())).collect())
    }

    fn commit(&self, changes: Vec<SpoolChange>) -> Result<(), DiskError> {
        let fate = self.fate();
        if matches!(fate, Written::Whole | Written::WholeAndFailed) {
            let mut pairs = self.disk.0.lock();
            for SpoolChange { space, key, value } in changes {
                match value {
                    Some(value) => drop(pairs.insert((space as u8, key), value)),
                    None => drop(pairs.remove(&(space as u8, key))),
                }
            }
        }
        match fate {
            Written::Failed | Written::WholeAndFailed => Err(DiskError::new(io::Error::other("the disk does not take anything"))),
            // Who is told so by a dead process cannot be told.
            Written::Whole | Written::Nothing => Ok(()),
        }
    }

    fn reopen(&self) -> Result<(), SpoolError> {
        Ok(())
    }

    fn has_room(&self) -> bool {
        let node = self.session.node;
        let world = self.session.world().lock();
        world.disks_full.get(&node).is_none_or(|until| Instant::now() >= *until)
    }
}

/// The results of `wf run`: what is written, and how much of it is synced.
#[derive(Clone, Default)]
pub(crate) struct Lines(Arc<Mutex<(Vec<u8>, usize)>>);

/// They, as one life of the process writes them.
pub(crate) struct Writing {
    pub(crate) lines: Lines,
    pub(crate) session: Arc<Session>,
}

impl Lines {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().0).into_owned()
    }

    /// The machine is gone: of what was not synced, as much is left as `share` says, of 256.
    pub(crate) fn tear(&self, share: u8) {
        let mut lines = self.0.lock();
        let (len, synced) = (lines.0.len(), lines.1);
        lines.0.truncate(synced + (len - synced) * usize::from(share) / 256);
    }
}

impl Outlet for Writing {
    fn read(&self) -> io::Result<Vec<u8>> {
        Ok(self.lines.0.lock().0.clone())
    }

    fn cut(&self, len: u64) -> io::Result<()> {
        if self.session.is_alive() {
            let mut lines = self.lines.0.lock();
            lines.0.truncate(len as usize);
            lines.1 = lines.0.len();
        }
        Ok(())
    }

    fn write(&self, lines: &[u8]) {
        let node = self.session.node;
        let mut world = self.session.world().lock();
        if !world.is_alive(node, self.session.life) {
            return;
        }
        world.note(Op::Results, node, lines.len() as u64);
        let mishap = world.mishap(Op::Results, node);
        if mishap != Some(Mishap::CrashBefore) {
            self.lines.0.lock().0.extend_from_slice(lines);
        }
        if matches!(mishap, Some(Mishap::CrashBefore | Mishap::CrashAfter)) {
            world.kill(node);
        }
    }

    fn sync(&self) -> io::Result<()> {
        if self.session.is_alive() {
            let mut lines = self.lines.0.lock();
            lines.1 = lines.0.len();
        }
        Ok(())
    }
}
