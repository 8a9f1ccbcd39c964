//! The hold on a delivery: settled by telling its reply subject, until the server confirms.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::Subject;
use bytes::Bytes;
use wf_broker::{BoxFuture, Lease, LogEnd};

use crate::connection::Connection;
use crate::doubt::is_stored;
use crate::exchange::{ACK, About, Part};
use crate::layout::Layout;
use crate::outcome_log::end_of;

/// The hold on one delivery.
pub(crate) struct NatsLease {
    /// The connection that the delivery came over.
    connection: Arc<Connection>,
    /// Where JetStream hears of this delivery.
    reply: Subject,
    about: About,
    /// What ends of logs are made with.
    ends: Arc<Ends>,
    settled: AtomicBool,
}

/// Where logs end, and for how long that is remembered at least.
#[derive(Debug)]
pub(crate) struct Ends {
    pub(crate) layout: Layout,
    pub(crate) window: Duration,
}

impl NatsLease {
    pub(crate) fn new(connection: Arc<Connection>, reply: Subject, about: About, ends: Arc<Ends>) -> Self {
        Self { connection, reply, about, ends, settled: AtomicBool::new(false) }
    }

    /// Settles it, if it was not before, and stores `then` once that is confirmed: whether it was not.
    fn settle(&self, how: Bytes, then: Option<Part>) -> bool {
        let first = !self.settled.swap(true, Ordering::AcqRel);
        if first {
            self.connection.counters.settled.add(1);
            self.connection.exchange.settle(self.reply.clone(), how, self.about, then);
        }
        first
    }
}

impl Lease for NatsLease {
    fn ack(&self, end: Option<LogEnd>) {
        let then = end.map(|end| end_of(&self.ends.layout, &end, self.ends.window));
        if self.settle(Bytes::from_static(ACK), then) {
            self.connection.acked.remember(self.about.origin);
        }
    }

    fn stored(&self) -> BoxFuture<'_, bool> {
        Box::pin(async {
            let stored = is_stored(&self.connection, &self.ends.layout, self.about.origin).await;
            stored.map_err(|error| error.into_broker("look for a message"))
        })
    }

    fn renew(&self) {
        // Nobody confirms a renewal: the next one comes long before the lease is over.
        if !self.settled.load(Ordering::Acquire) {
            self.connection.counters.renewed.add(1);
            self.connection.exchange.tell(self.reply.clone(), Bytes::from_static(b"+WPI"), self.about);
        }
    }

    fn release(&self, delay: Duration) {
        let how = match u64::try_from(delay.as_nanos()).unwrap_or(i64::MAX as u64) {
            0 => Bytes::from_static(b"-NAK"),
            nanos => format!("-NAK {{\"delay\":{nanos}}}").into(),
        };
        self.settle(how, None);
    }
}
