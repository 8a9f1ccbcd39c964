//! One connection to the servers, with what is asked and answered over it.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, HeaderMap};
use bytes::Bytes;
use tokio::sync::{broadcast, watch};

use crate::acked::AckedLately;
use crate::counters::Counters;
use crate::exchange::{Answered, Exchange, NobodyThere, Part, Unanswered};
use crate::link::{Link, LinkState, Refusal};
use crate::uptime::Uptime;

/// A connection that mends itself. Dropping it closes it.
pub(crate) struct Connection {
    pub(crate) client: Client,
    pub(crate) exchange: Exchange,
    pub(crate) counters: Arc<Counters>,
    pub(crate) uptime: Uptime,
    /// The broker's, over all its connections.
    pub(crate) acked: Arc<AckedLately>,
    link: Arc<Link>,
}

impl Connection {
    pub(crate) fn new(client: Client, link: Arc<Link>, exchange: Exchange, counters: Arc<Counters>) -> Self {
        Self { client, exchange, counters, uptime: Uptime::default(), acked: Arc::default(), link }
    }

    /// The same, sharing with others what was acknowledged lately.
    pub(crate) fn sharing(mut self, acked: &Arc<AckedLately>) -> Self {
        self.acked = acked.clone();
        self
    }

    /// How the link stands, now and from now on.
    pub(crate) fn watch(&self) -> watch::Receiver<LinkState> {
        self.link.watch()
    }

    /// Asks `subject`; what the caller waits for.
    pub(crate) async fn ask(&self, subject: &str, payload: Bytes, nobody: NobodyThere) -> Result<Answered, Unanswered> {
        self.counters.requested.add(1);
        self.exchange.ask(part(subject, None, payload), nobody).await
    }

    /// Asks `subject` for many messages; what the caller waits for.
    pub(crate) async fn ask_for_many(&self, subject: &str, payload: Bytes) -> Result<Answered, Unanswered> {
        self.counters.requested.add(1);
        self.exchange.ask_for_many(part(subject, None, payload), NobodyThere::AskAgain).await
    }

    /// Waits until everything that was settled over this connection so far is confirmed, for `patience` at most:
    /// whether it is.
    pub(crate) async fn settled(&self, patience: Duration) -> bool {
        tokio::time::timeout(patience, self.exchange.settled()).await.is_ok()
    }

    /// What the server refuses from now on.
    pub(crate) fn refusals(&self) -> broadcast::Receiver<Refusal> {
        self.link.refusals()
    }

    /// Ends it; what is asked afterwards is answered with "closed".
    pub(crate) async fn close(&self) {
        self.exchange.close();
        self.link.close();
        // Unsubscribes and sends what is still in its buffers; that it is closed already is as good.
        self.client.drain().await.ok();
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.link.close();
    }
}

/// A message to `subject`.
pub(crate) fn part(subject: &str, headers: Option<HeaderMap>, payload: Bytes) -> Part {
    Part { subject: subject.into(), headers, payload }
}
