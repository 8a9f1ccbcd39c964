//! What becomes of a connection while it lives: up, down, up again; and what the server refuses on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::{Client, Event, ServerError};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{broadcast, watch};

use crate::counters::Counters;

/// How a link stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LinkState {
    /// How often it was made, from 1. What was sent in one generation and not answered in it will never be answered.
    pub(crate) generation: u64,
    /// Whether it is up.
    pub(crate) up: bool,
    /// Whether it is closed for good.
    pub(crate) closed: bool,
}

/// A subject that the server does not let this user publish or subscribe to, as it said so.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    pub(crate) subject: String,
    pub(crate) said: String,
}

/// The events of one connection, sorted by what they mean to those who use it.
pub(crate) struct Link {
    name: String,
    state: watch::Sender<LinkState>,
    refusals: broadcast::Sender<Refusal>,
    /// For the events that ask for something to be done. Taken out at the end, for a client that its own events
    /// hold on to would never end.
    client: Mutex<Option<Client>>,
    /// The connection is about to be made anew, because somebody wanted it.
    leaving: AtomicBool,
    counters: Arc<Counters>,
}

impl Link {
    pub(crate) fn new(name: String, counters: Arc<Counters>) -> Self {
        Self {
            name,
            state: watch::Sender::new(LinkState { generation: 0, up: false, closed: false }),
            refusals: broadcast::Sender::new(64),
            client: Mutex::new(None),
            leaving: AtomicBool::new(false),
            counters,
        }
    }

    /// Hands over the client whose events these are.
    pub(crate) fn attach(&self, client: Client) {
        *self.client.lock() = Some(client);
    }

    /// Says that nothing more will happen.
    pub(crate) fn close(&self) {
        self.client.lock().take();
        self.state.send_modify(|state| {
            state.up = false;
            state.closed = true;
        });
    }

    /// How the link stands, now and from now on.
    pub(crate) fn watch(&self) -> watch::Receiver<LinkState> {
        self.state.subscribe()
    }

    /// Whether it is up now.
    pub(crate) fn is_up(&self) -> bool {
        self.state.borrow().up
    }

    /// What is refused from now on.
    pub(crate) fn refusals(&self) -> broadcast::Receiver<Refusal> {
        self.refusals.subscribe()
    }

    /// Takes note of `event`.
    pub(crate) fn heard(&self, event: Event) {
        let link = &self.name;
        match event {
            Event::Connected => {
                self.leaving.store(false, Ordering::Release);
                let mut generation = 0;
                self.state.send_modify(|state| {
                    state.generation += 1;
                    state.up = !state.closed;
                    generation = state.generation;
                });
                if generation > 1 {
                    self.counters.reconnected.add(1);
                    tracing::info!(link, "connected to the broker again");
                } else {
                    tracing::debug!(link, "connected to the broker");
                }
            }
            Event::Disconnected => {
                self.state.send_modify(|state| state.up = false);
                tracing::warn!(link, "lost the connection to the broker; trying again");
            }
            Event::LameDuckMode => {
                tracing::info!(link, "the server is about to stop; changing to another");
                // The client does not leave a server that is about to stop by itself. Not all at once: the others
                // would be overrun.
                self.leave(Duration::from_millis(fastrand::u64(0..500)));
            }
            Event::SlowConsumer(subscription) => {
                // Answers may be among what was dropped, and deliveries, which still count as asked for. A new
                // connection asks again for all of it; each message that is dropped until then says this once more.
                if self.leave(Duration::ZERO) {
                    tracing::warn!(
                        link,
                        subscription,
                        "messages came faster than they were taken, and some were dropped; connecting anew"
                    );
                }
            }
            Event::ServerError(error) => self.refused(&error),
            Event::ClientError(error) => tracing::debug!(link, %error, "the broker could not be reached"),
            Event::Draining => {}
            Event::Closed => self.close(),
        }
    }

    /// Leaves the server after `wait`, for another if there is one: whether that was not under way already.
    pub(crate) fn leave(&self, wait: Duration) -> bool {
        if self.leaving.swap(true, Ordering::AcqRel) {
            return false;
        }
        let client = self.client.lock().clone();
        let left = client.is_some();
        if let (Some(client), Ok(runtime)) = (client, Handle::try_current()) {
            runtime.spawn(async move {
                tokio::time::sleep(wait).await;
                if let Err(error) = client.force_reconnect().await {
                    tracing::debug!(%error, "the connection was closed before it could be changed");
                }
            });
        } else {
            self.leaving.store(false, Ordering::Release);
        }
        left
    }

    fn refused(&self, error: &ServerError) {
        let said = error.to_string();
        tracing::warn!(link = self.name, error = said, "the server refused something");
        if let Some(subject) = refused_subject(&said) {
            // Nobody listening means nobody waits for it.
            drop(self.refusals.send(Refusal { subject: subject.into(), said }));
        }
    }
}

/// The subject in a message like `Permissions Violation for Publish to "wf.jobs.q"`.
fn refused_subject(said: &str) -> Option<&str> {
    let (_, rest) = said.split_once("Permissions Violation for ")?;
    rest.split('"').nth(1)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_its_subject() {
        let said = r#"nats: Permissions Violation for Publish to "wf.jobs.q""#;
        assert_eq!(refused_subject(said), Some("wf.jobs.q"));
        let said = r#"nats: Permissions Violation for Subscription to "_INBOX.x.*" using queue "q""#;
        assert_eq!(refused_subject(said), Some("_INBOX.x.*"));
        assert_eq!(refused_subject("nats: maximum connections exceeded"), None);
    }

    #[test]
    fn generations_count_and_a_closed_link_stays_closed() {
        let link = Link::new("test".into(), Arc::default());
        let state = link.watch();
        link.heard(Event::Connected);
        link.heard(Event::Disconnected);
        assert_eq!(*state.borrow(), LinkState { generation: 1, up: false, closed: false });
        link.heard(Event::Connected);
        assert_eq!(*state.borrow(), LinkState { generation: 2, up: true, closed: false });
        link.close();
        link.heard(Event::Connected);
        assert!(!state.borrow().up && state.borrow().closed);
    }
}
