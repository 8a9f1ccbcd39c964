//! Leases of what the model delivers, and one of nothing.

use std::sync::Arc;
use std::time::Duration;

use wf_broker::{BoxFuture, Lease, LogEnd};
use wf_schema::RunId;

use super::{Fault, Session};

/// The lease of what a session was delivered.
pub(super) struct SessionLease {
    session: Arc<Session>,
    run: RunId,
}

impl SessionLease {
    pub(super) fn new(session: Arc<Session>, run: RunId) -> Self {
        Self { session, run }
    }
}

impl Lease for SessionLease {
    fn stored(&self) -> BoxFuture<'_, bool> {
        self.session.ask("stored", move |store| {
            Ok(store.owned.contains_key(&self.run) || store.ready.iter().any(|waiting| waiting.run == self.run))
        })
    }

    fn ack(&self, end: Option<LogEnd>) {
        let fault = self.session.fault();
        if self.session.is_dead() || matches!(fault, Fault::CrashBefore) {
            return self.session.die();
        }
        let mut store = self.session.store.lock();
        store.calls.push("ack");
        store.owned.remove(&self.run);
        // A late one removes what was delivered anew.
        store.ready.retain(|waiting| waiting.run != self.run);
        if let Some(end) = end {
            store.end(&end);
        }
    }

    fn renew(&self) {}

    fn release(&self, _: Duration) {
        if !self.session.is_dead() {
            let mut store = self.session.store.lock();
            store.calls.push("release");
            if let Some(waiting) = store.owned.remove(&self.run) {
                store.ready.push_back(waiting);
            }
        }
    }
}

/// A lease of nothing.
pub(crate) struct NoLease;

impl Lease for NoLease {
    fn ack(&self, _: Option<LogEnd>) {}
    fn stored(&self) -> BoxFuture<'_, bool> {
        Box::pin(std::future::ready(Ok(true)))
    }
    fn renew(&self) {}
    fn release(&self, _: Duration) {}
}
