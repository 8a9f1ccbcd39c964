//! Where things are measured: a nats-server, and a link to it of any length.

use std::time::Duration;

use wf_nats::testing::{Conditions, DelayProxy, ServerOptions, TestServer};
use wf_schema::config::{Config, Loader};
use work_factory::Factory;

/// A server of its own behind a link. Also at no distance the link is in between, so that its cost is in every side.
pub(crate) struct Yard {
    server: TestServer,
    link: DelayProxy,
    /// Another of the same kind, for executors elsewhere than the producers.
    other: DelayProxy,
}

impl Yard {
    /// A server, synced to disk before it answers if `sync_always`, behind a link of `conditions`.
    pub(crate) fn new(sync_always: bool, conditions: Conditions) -> Self {
        let server = TestServer::start(ServerOptions::new().sync_always(sync_always));
        let other = DelayProxy::with(server.address(), conditions.clone());
        Self { link: DelayProxy::with(server.address(), conditions), other, server }
    }

    /// The same, a round trip of `rtt` away.
    pub(crate) fn at(rtt: Duration) -> Self {
        Self::new(false, Conditions { delay: rtt / 2, ..Conditions::default() })
    }

    pub(crate) fn server(&self) -> &TestServer {
        &self.server
    }

    pub(crate) fn link(&self) -> &DelayProxy {
        &self.link
    }

    /// The second link.
    pub(crate) fn other(&self) -> &DelayProxy {
        &self.other
    }

    /// As [`Yard::factory`], over the second link.
    pub(crate) async fn other_factory(&self, profile: &str, settings: &[(&str, &str)]) -> anyhow::Result<Factory> {
        Ok(Box::pin(Factory::with(config(&self.other.url(), profile, settings)?)).await?)
    }

    /// A connection over the link as `profile` has it, with `settings` (keys and values) in addition. Nothing from the
    /// environment: a benchmark measures what it says.
    pub(crate) async fn factory(&self, profile: &str, settings: &[(&str, &str)]) -> anyhow::Result<Factory> {
        Ok(Box::pin(Factory::with(config(&self.link.url(), profile, settings)?)).await?)
    }
}

/// The configuration of a node with its broker at `url`.
pub(crate) fn config(url: &str, profile: &str, settings: &[(&str, &str)]) -> anyhow::Result<Config> {
    let flags = [("broker.url", url), ("profile", profile)].into_iter().chain(settings.iter().copied());
    Ok(Loader::new().flags(flags).load()?.config)
}
