//! One connection to the servers, with what is asked and answered over it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_nats::{Client, HeaderMap};
use bytes::Bytes;
use tokio::sync::{broadcast, watch};

use crate::acked::AckedLately;
use crate::counters::Counters;
use crate::exchange::{Answered, Exchange, NobodyThere, Part, Unanswered};
use crate::home::Home;
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
    /// The JetStream domain whose API is asked; `None` for that of the server at the other end.
    domain: Option<Arc<str>>,
    link: Arc<Link>,
    /// The thread it lives on, if it has one of its own.
    home: Option<Arc<Home>>,
    /// Bytes of messages that are published over it and not answered yet.
    unanswered: AtomicUsize,
}

/// Bytes that count as unanswered until this is dropped.
pub(crate) struct Load<'a> {
    connection: &'a Connection,
    bytes: usize,
}

impl Connection {
    pub(crate) fn new(client: Client, link: Arc<Link>, exchange: Exchange, counters: Arc<Counters>) -> Self {
        Self {
            client,
            exchange,
            counters,
            uptime: Uptime::default(),
            acked: Arc::default(),
            domain: None,
            link,
            home: None,
            unanswered: AtomicUsize::new(0),
        }
    }

    /// The same, sharing with others what was acknowledged lately.
    pub(crate) fn sharing(mut self, acked: &Arc<AckedLately>) -> Self {
        self.acked = acked.clone();
        self
    }

    /// The same, asking the JetStream of `domain`.
    pub(crate) fn in_domain(mut self, domain: Option<&str>) -> Self {
        self.domain = domain.map(Into::into);
        self
    }

    /// The JetStream domain that is asked, if one was configured.
    pub(crate) fn domain(&self) -> Option<&str> {
        self.domain.as_deref()
    }

    /// The JetStream domain of the server at the other end, if it has one.
    pub(crate) fn own_domain(&self) -> Option<String> {
        self.client.server_info().domain.filter(|domain| !domain.is_empty())
    }

    /// Where JetStream's API is asked `what`.
    pub(crate) fn api_subject(&self, what: &str) -> String {
        match &self.domain {
            Some(domain) => format!("$JS.{domain}.API.{what}"),
            None => format!("$JS.API.{what}"),
        }
    }

    /// Where a message for `subject` is published. Keyed records do not pass from one domain to another by their own
    /// subjects, but by the API's.
    pub(crate) fn publish_subject(&self, subject: &str) -> String {
        match &self.domain {
            Some(_) if subject.starts_with("$KV.") => self.api_subject(subject),
            _ => subject.to_owned(),
        }
    }

    /// The same, keeping the thread that it lives on.
    pub(crate) fn living_at(mut self, home: &Arc<Home>) -> Self {
        self.home = Some(home.clone());
        self
    }

    /// Makes the connection anew, to another server if there is one. What was not answered is sent again.
    pub(crate) fn renew(&self) {
        self.link.leave(Duration::ZERO);
    }

    /// How the link stands, now and from now on.
    pub(crate) fn watch(&self) -> watch::Receiver<LinkState> {
        self.link.watch()
    }

    /// Whether it is up.
    pub(crate) fn is_up(&self) -> bool {
        self.link.is_up()
    }

    /// Counts `bytes` as published and not answered yet.
    pub(crate) fn load(&self, bytes: usize) -> Load<'_> {
        self.unanswered.fetch_add(bytes, Ordering::Relaxed);
        Load { connection: self, bytes }
    }

    /// Bytes of messages that are published and not answered yet.
    pub(crate) fn unanswered(&self) -> usize {
        self.unanswered.load(Ordering::Relaxed)
    }

    /// Asks `subject`; what the caller waits for.
    pub(crate) async fn ask(&self, subject: &str, payload: Bytes, nobody: NobodyThere) -> Result<Answered, Unanswered> {
        self.counters.requested.add(1);
        self.exchange.ask(part(subject, None, payload), nobody).await
    }

    /// Asks `subject`, and waits up to `patience` for the answer.
    pub(crate) async fn ask_within(&self, subject: &str, patience: Duration) -> Result<Answered, Unanswered> {
        self.counters.requested.add(1);
        self.exchange.ask_within(part(subject, None, Bytes::new()), patience).await
    }

    /// Asks `subject` for many messages; what the caller waits for.
    pub(crate) async fn ask_for_many(&self, subject: &str, payload: Bytes) -> Result<Answered, Unanswered> {
        self.counters.requested.add(1);
        self.exchange.ask_for_many(part(subject, None, payload), NobodyThere::AskAgain).await
    }

    /// Waits until everything that was settled over this connection so far is confirmed, for `patience` at most:
    /// whether it is.
    pub(crate) async fn settled(&self, patience: Duration) -> bool {
        tokio::time::timeout(patience, self.exchange.settled()).await.unwrap_or(false)
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

impl Load<'_> {
    /// They are answered: the server has stored them.
    pub(crate) fn stored(self) {
        self.connection.counters.stored_bytes.add(self.bytes as u64);
    }
}

impl Drop for Load<'_> {
    fn drop(&mut self) {
        self.connection.unanswered.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A message to `subject`.
pub(crate) fn part(subject: &str, headers: Option<HeaderMap>, payload: Bytes) -> Part {
    Part { subject: subject.into(), headers, payload }
}
