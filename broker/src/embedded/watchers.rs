//! Who waits for something to change, by its name.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{broadcast, watch};

/// How many changes one who watches everything may lag behind before it is told that it missed some.
const BACKLOG: usize = 4096;

/// Tells of changes to things named by `K`.
pub(super) struct Watchers<K> {
    shared: Arc<Mutex<Shared<K>>>,
}

struct Shared<K> {
    /// A channel for each name that is watched, and for no other.
    named: HashMap<K, watch::Sender<()>>,
    /// `None` after the end.
    all: Option<broadcast::Sender<K>>,
}

impl<K> Default for Watchers<K>
where
    K: Clone,
{
    fn default() -> Self {
        let shared = Shared { named: HashMap::new(), all: Some(broadcast::Sender::new(BACKLOG)) };
        Self { shared: Arc::new(Mutex::new(shared)) }
    }
}

impl<K: Clone + Eq + Hash> Watchers<K> {
    /// Watches `name` from now on; `None` after the end.
    pub(super) fn watch(&self, name: K) -> Option<Watch<K>> {
        let mut shared = self.shared.lock();
        shared.all.as_ref()?;
        let changes = shared.named.entry(name.clone()).or_default().subscribe();
        Some(Watch { name, changes, shared: Arc::clone(&self.shared) })
    }

    /// Watches all names from now on; `None` after the end.
    pub(super) fn watch_all(&self) -> Option<broadcast::Receiver<K>> {
        self.shared.lock().all.as_ref().map(broadcast::Sender::subscribe)
    }

    /// `name` has changed.
    pub(super) fn changed(&self, name: &K) {
        let shared = self.shared.lock();
        if let Some(changes) = shared.named.get(name) {
            changes.send_replace(());
        }
        if let Some(all) = &shared.all
            && all.receiver_count() > 0
        {
            let _ = all.send(name.clone());
        }
    }

    /// No more will change.
    pub(super) fn end(&self) {
        let mut shared = self.shared.lock();
        shared.named.clear();
        shared.all = None;
    }
}

/// Watches one name.
pub(super) struct Watch<K: Eq + Hash> {
    name: K,
    changes: watch::Receiver<()>,
    shared: Arc<Mutex<Shared<K>>>,
}

impl<K: Clone + Eq + Hash> Watch<K> {
    /// Waits for the next change: its name, `None` after the end. Changes while nobody waited are one change. Cancel
    /// safe.
    pub(super) async fn changed(&mut self) -> Option<K> {
        self.changes.changed().await.ok().map(|()| self.name.clone())
    }
}

impl<K: Eq + Hash> Drop for Watch<K> {
    fn drop(&mut self) {
        let mut shared = self.shared.lock();
        // This one is the last that watches it.
        if shared.named.get(&self.name).is_some_and(|changes| changes.receiver_count() == 1) {
            shared.named.remove(&self.name);
        }
    }
}
