//! The hold on a delivery: settled by telling its reply subject, until the server confirms.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::Subject;
use bytes::Bytes;
use wf_broker::Lease;

use crate::connection::Connection;
use crate::consume::Origin;
use crate::exchange::ACK;

/// The hold on one delivery.
pub(crate) struct NatsLease {
    /// The connection that the delivery came over.
    connection: Arc<Connection>,
    /// Where JetStream hears of this delivery.
    reply: Subject,
    origin: Origin,
    settled: AtomicBool,
}

impl NatsLease {
    pub(crate) fn new(connection: Arc<Connection>, reply: Subject, origin: Origin) -> Self {
        Self { connection, reply, origin, settled: AtomicBool::new(false) }
    }

    /// Settles it, if it was not before: whether it was not.
    fn settle(&self, how: Bytes) -> bool {
        let first = !self.settled.swap(true, Ordering::AcqRel);
        if first {
            self.connection.counters.settled.add(1);
            self.connection.exchange.settle(self.reply.clone(), how);
        }
        first
    }
}

impl Lease for NatsLease {
    fn ack(&self) {
        if self.settle(Bytes::from_static(ACK)) {
            self.connection.acked.remember(self.origin);
        }
    }

    fn renew(&self) {
        // Nobody confirms a renewal: the next one comes long before the lease is over.
        if !self.settled.load(Ordering::Acquire) {
            self.connection.counters.renewed.add(1);
            self.connection.exchange.tell(self.reply.clone(), Bytes::from_static(b"+WPI"));
        }
    }

    fn release(&self, delay: Duration) {
        let how = match u64::try_from(delay.as_nanos()).unwrap_or(i64::MAX as u64) {
            0 => Bytes::from_static(b"-NAK"),
            nanos => format!("-NAK {{\"delay\":{nanos}}}").into(),
        };
        self.settle(how);
    }
}
