//! How to reach the servers, and how to use the link to them.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use async_nats::ServerAddr;

use crate::layout::Layout;

/// How to reach a factory's servers.
#[derive(Clone)]
pub struct NatsOptions {
    servers: Vec<ServerAddr>,
    pub(crate) layout: Layout,
    pub(crate) name: String,
    pub(crate) inbox_prefix: String,
    pub(crate) domain: Option<String>,
    pub(crate) credentials: Option<PathBuf>,
    pub(crate) root_certificates: Option<PathBuf>,
    pub(crate) link: LinkSettings,
}

impl NatsOptions {
    /// The servers at `urls`: `nats://[user:password@|token@]host[:4222]`, or `tls://` for an encrypted link. Several
    /// are several servers of one cluster.
    ///
    /// # Errors
    /// When there is none, or one that is not of this form.
    pub fn new<U: AsRef<str>>(urls: impl IntoIterator<Item = U>) -> Result<Self, OptionsError> {
        let servers = urls.into_iter().map(|url| server(url.as_ref())).collect::<Result<Vec<_>, _>>()?;
        if servers.is_empty() {
            return Err(OptionsError::NoServer);
        }
        Ok(Self {
            servers,
            layout: Layout::default(),
            name: "work-factory".into(),
            inbox_prefix: "_INBOX".into(),
            domain: None,
            credentials: None,
            root_certificates: None,
            link: LinkSettings::default(),
        })
    }

    /// The prefix that the factory's subjects begin with, and, upper-cased, its streams' names: `wf` by default.
    /// 1 to 32 of `a-z 0-9 _ -`.
    ///
    /// # Errors
    /// When it is not of this form.
    pub fn prefix(mut self, prefix: &str) -> Result<Self, OptionsError> {
        self.layout = Layout::new(prefix).ok_or_else(|| OptionsError::Prefix(prefix.chars().take(80).collect()))?;
        Ok(self)
    }

    /// What the connections are called in the server's own lists.
    #[must_use]
    pub fn name(mut self, name: &str) -> Self {
        self.name = name.chars().filter(|c| !c.is_control()).take(128).collect();
        self
    }

    /// The prefix of the subjects that answers come to, `_INBOX` by default. Give each role its own, and it cannot
    /// read the others' answers.
    ///
    /// # Errors
    /// When it cannot be the beginning of a subject.
    pub fn inbox_prefix(mut self, prefix: &str) -> Result<Self, OptionsError> {
        let fits = !prefix.is_empty()
            && prefix.len() <= 100
            && prefix.split('.').all(|token| !token.is_empty() && token.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'));
        if !fits {
            return Err(OptionsError::Inbox(prefix.chars().take(80).collect()));
        }
        self.inbox_prefix = prefix.into();
        Ok(self)
    }

    /// The JetStream domain that the factory is in, where servers have domains; without it, the JetStream of the server that
    /// is connected to. 1 to 64 of `A-Z a-z 0-9 _ -`.
    ///
    /// # Errors
    /// When it is not of this form.
    pub fn domain(mut self, domain: &str) -> Result<Self, OptionsError> {
        let fits =
            (1..=64).contains(&domain.len()) && domain.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        if !fits {
            return Err(OptionsError::Domain(domain.chars().take(80).collect()));
        }
        self.domain = Some(domain.into());
        Ok(self)
    }

    /// A credentials file (JWT and seed), instead of a user in the URL.
    #[must_use]
    pub fn credentials(mut self, file: impl Into<PathBuf>) -> Self {
        self.credentials = Some(file.into());
        self
    }

    /// A file of root certificates (PEM) to trust beside the system's, for `tls://`.
    #[must_use]
    pub fn root_certificates(mut self, file: impl Into<PathBuf>) -> Self {
        self.root_certificates = Some(file.into());
        self
    }

    /// How the link is used.
    #[must_use]
    pub fn link(mut self, link: LinkSettings) -> Self {
        self.link = link;
        self
    }

    /// The servers, in the order given.
    pub(crate) fn servers(&self) -> &[ServerAddr] {
        &self.servers
    }
}

impl fmt::Debug for NatsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsOptions")
            .field("servers", &self.servers.iter().map(shown).collect::<Vec<_>>())
            .field("layout", &self.layout)
            .field("name", &self.name)
            .field("inbox_prefix", &self.inbox_prefix)
            .field("domain", &self.domain)
            .field("credentials", &self.credentials)
            .field("root_certificates", &self.root_certificates)
            .field("link", &self.link)
            .finish()
    }
}

/// A server's address as people may see it: without user and password.
pub(crate) fn shown(server: &ServerAddr) -> String {
    format!("{}://{}:{}", server.scheme(), server.host(), server.port())
}

fn server(url: &str) -> Result<ServerAddr, OptionsError> {
    let wrong = || {
        let unsecret = url.rsplit('@').next().unwrap_or_default();
        OptionsError::Url(unsecret.chars().take(200).collect())
    };
    let address: ServerAddr = url.parse().map_err(|_| wrong())?;
    let usable = matches!(address.scheme(), "nats" | "tls") && !address.host().is_empty();
    if usable { Ok(address) } else { Err(wrong()) }
}

/// How the link to the servers is used: what a profile tunes. The defaults suit a local network.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LinkSettings {
    /// For one attempt to reach one server, the handshake included.
    pub connect_timeout: Duration,
    /// For all attempts at the start together; then it is given up with what was tried.
    pub connect_deadline: Duration,
    /// For the answer to a request, from when it was last sent.
    pub request_timeout: Duration,
    /// Between pings. A link whose pings stay unanswered three times is taken for dead.
    pub ping_interval: Duration,
    /// Connections to publish over, and as many again to consume over.
    pub connections: usize,
    /// How long a pull stays with the server before it is sent anew. A lost one is noticed after
    /// `pull_heartbeat`, so this only bounds how long a wrong count of credit may live.
    pub pull_expires: Duration,
    /// How often the server says that a pull is still there; at most half of `pull_expires`.
    pub pull_heartbeat: Duration,
    /// The most bytes that may be published and not answered yet, over all connections.
    pub publish_bytes: usize,
    /// The most messages that may be published and not answered yet, over all connections.
    pub publish_messages: usize,
}

impl Default for LinkSettings {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            connect_deadline: Duration::from_secs(10),
            request_timeout: Duration::from_secs(10),
            ping_interval: Duration::from_secs(2),
            connections: 1,
            pull_expires: Duration::from_secs(15),
            pull_heartbeat: Duration::from_secs(5),
            publish_bytes: 16 << 20,
            publish_messages: 512,
        }
    }
}

impl LinkSettings {
    /// These settings, with each one that could not work moved to the nearest that can.
    pub(crate) fn workable(mut self) -> Self {
        self.connections = self.connections.clamp(1, 16);
        self.pull_expires = self.pull_expires.clamp(Duration::from_millis(500), Duration::from_secs(120));
        self.pull_heartbeat = self.pull_heartbeat.clamp(Duration::from_millis(100), self.pull_expires / 2);
        self.ping_interval = self.ping_interval.max(Duration::from_millis(100));
        self.publish_messages = self.publish_messages.clamp(1, 16_384);
        // The window is counted in semaphore permits.
        self.publish_bytes = self.publish_bytes.clamp(1, 1 << 30);
        self
    }
}

/// Options that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OptionsError {
    /// No server was named.
    #[error("no server is named: expected at least one URL like nats://127.0.0.1:4222")]
    NoServer,
    /// An address that is none.
    #[error("`{0}` is not a server's URL: expected nats://HOST[:PORT] or tls://HOST[:PORT]")]
    Url(String),
    /// A prefix that cannot be one.
    #[error("prefix `{0}` is not valid: expected 1 to 32 characters of a-z 0-9 _ -")]
    Prefix(String),
    /// A domain that cannot be one.
    #[error("JetStream domain `{0}` is not valid: expected 1 to 64 characters of A-Z a-z 0-9 _ -")]
    Domain(String),
    /// An inbox prefix that cannot be one.
    #[error("inbox prefix `{0}` is not valid: expected tokens of A-Z a-z 0-9 _, joined by dots")]
    Inbox(String),
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn wrong_options_are_refused_without_their_secrets() {
        assert_eq!(NatsOptions::new::<&str>([]).unwrap_err(), OptionsError::NoServer);
        for url in ["http://host", "nats://", "ws://host:1", "nats://user:secret@ho st", "://"] {
            let error = NatsOptions::new([url]).unwrap_err();
            assert!(matches!(error, OptionsError::Url(_)) && !error.to_string().contains("secret"), "{error}");
        }
        let options = NatsOptions::new(["nats://user:secret@host", "tls://other:4333"]).unwrap();
        let debug = format!("{options:?}");
        assert!(debug.contains("nats://host:4222") && debug.contains("tls://other:4333") && !debug.contains("secret"), "{debug}");
        for prefix in ["", "WF", "a.b", "a b", "a*"] {
            assert!(options.clone().prefix(prefix).is_err(), "{prefix}");
        }
        for inbox in ["", ".", "a.", "a b", "a.>"] {
            assert!(options.clone().inbox_prefix(inbox).is_err(), "{inbox}");
        }
        for domain in ["", "a.b", "a b", "*", ">"] {
            assert!(options.clone().domain(domain).is_err(), "{domain}");
        }
        assert!(options.clone().domain("hub-1").is_ok());
        assert!(options.prefix("acme-2").unwrap().inbox_prefix("_INBOX.ingest").is_ok());
    }

    #[test]
    fn settings_that_could_not_work_are_moved() {
        let link =
            LinkSettings { connections: 0, publish_bytes: 0, pull_heartbeat: Duration::from_secs(60), ..Default::default() };
        let link = link.workable();
        assert_eq!((link.connections, link.publish_bytes, link.pull_heartbeat), (1, 1, Duration::from_millis(7_500)));
    }
}
