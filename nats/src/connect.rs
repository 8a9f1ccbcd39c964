//! Reaching the servers: tries with jitter until the deadline, and says what it tried.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::{Client, ConnectErrorKind, ConnectOptions, ServerAddr};
use wf_broker::Cause;

use crate::api::ApiError;
use crate::connection::Connection;
use crate::counters::Counters;
use crate::exchange::Exchange;
use crate::link::Link;
use crate::options::{LinkSettings, NatsOptions, shown};

/// The oldest server that has all that is needed: message schedules with cron and time zones.
const OLDEST: (u64, u64) = (2, 14);

/// Commands that may wait in the client. Few: they are what is sent twice when a connection breaks. Their bytes are
/// those of the publish window, shared, not copied.
const CLIENT_CAPACITY: usize = 256;

/// Messages that may wait in one subscription. More than ever come: answers are bounded by what is asked, deliveries
/// by the credit that was granted, and so are their bytes.
const SUBSCRIPTION_CAPACITY: usize = 1 << 16;

/// An address, and why it could not be connected to when that was last tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    /// The address, without user and password.
    pub address: String,
    /// What happened.
    pub error: String,
}

/// Why a broker could not be connected to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// No server could be reached before the deadline.
    #[error("no broker could be reached within {:.1} s; tried {}", .within.as_secs_f32(), listed(.tried))]
    Unreachable {
        /// How long it was tried.
        within: Duration,
        /// Every address, with its last error.
        tried: Vec<Tried>,
    },
    /// A server knows the user not, or not with this password, token or key.
    #[error("{address} refused the login")]
    Login {
        /// The server.
        address: String,
        /// What it said.
        #[source]
        source: Cause,
    },
    /// The credentials cannot be used.
    #[error("the credentials file {file} cannot be read")]
    Credentials {
        /// The file.
        file: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A server is too old.
    #[error("{address} runs nats-server {version}; {}.{} or newer is needed", OLDEST.0, OLDEST.1)]
    TooOld {
        /// The server.
        address: String,
        /// Its version.
        version: String,
    },
    /// The server has no JetStream, or not for this account.
    #[error("{address} has JetStream off: start it with -js, or enable it for this account")]
    NoJetStream {
        /// The server.
        address: String,
    },
    /// No JetStream of the domain that is configured can be reached.
    #[error(
        "no JetStream of domain `{domain}` answers at {address}{}: correct broker.domain, or see whether the link of the leaf \
         node to its hub stands",
        whose(.own.as_deref())
    )]
    NoDomain {
        /// The server.
        address: String,
        /// The domain that is configured.
        domain: String,
        /// The server's own domain.
        own: Option<String>,
    },
    /// There is no factory, and the server is in a JetStream domain that nobody has named: a factory there would most
    /// likely be a second one.
    #[error(
        "{address} is in JetStream domain `{domain}`, which has no factory: set broker.domain to the domain that has it, or, to \
         set up a factory of its own there, run `wf broker setup --broker-domain {domain}`"
    )]
    OtherDomain {
        /// The server.
        address: String,
        /// Its domain.
        domain: String,
    },
    /// There is no factory in this JetStream, but one of the same prefix in another that takes the same subjects.
    #[error(
        "another JetStream that {address} is linked to has a factory already, in its stream {stream}: a second one would store \
         and run every job again. Set broker.domain to the domain of that factory, or give this one another broker.prefix"
    )]
    SecondFactory {
        /// The server.
        address: String,
        /// The stream that takes the jobs there.
        stream: String,
    },
    /// The factory's layout is not there.
    #[error("the broker is not set up ({missing} is missing): run `wf broker setup` once")]
    NotSetUp {
        /// What is missing.
        missing: String,
    },
    /// The thread that deliveries come in on could not be started.
    #[error("the thread that deliveries come in on cannot be started")]
    Thread(#[source] io::Error),
    /// The server was reached, and then failed to answer, or did not allow what is needed.
    #[error("{address} was reached, but could not be used")]
    Unusable {
        /// The server.
        address: String,
        /// What went wrong.
        #[source]
        source: Cause,
    },
}

impl ConnectError {
    /// Whether it may work later without anybody changing anything.
    pub fn is_retryable(&self) -> bool {
        match self {
            // The link to the hub may come back.
            Self::Unreachable { .. } | Self::NoDomain { .. } => true,
            // What is not allowed, or cannot be read, stays so.
            Self::Unusable { source, .. } => {
                source.downcast_ref().is_none_or(ApiError::is_retryable) && !source.is::<serde_json::Error>()
            }
            _ => false,
        }
    }
}

fn whose(domain: Option<&str>) -> String {
    domain.map_or_else(String::new, |domain| format!(", whose own is `{domain}`"))
}

fn listed(tried: &[Tried]) -> String {
    tried.iter().map(|t| format!("{} ({})", t.address, t.error)).collect::<Vec<_>>().join(", ")
}

/// Connects, for `role`, trying every server again and again until `deadline`.
pub(crate) async fn connect(
    options: &NatsOptions,
    role: &str,
    deadline: Instant,
    counters: &Arc<Counters>,
) -> Result<(Connection, String), ConnectError> {
    let started = Instant::now();
    let settings = with_login(client_options(options, role), options).await?;
    let mut tried: Vec<Tried> =
        options.servers().iter().map(|server| Tried { address: shown(server), error: "not tried".into() }).collect();
    let mut round = 0;
    loop {
        for (server, tried) in options.servers().iter().zip(&mut tried) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                continue;
            }
            let link = Arc::new(Link::new(format!("{} {role}", options.name), counters.clone()));
            let timeout = options.link.connect_timeout.min(left);
            match tokio::time::timeout(timeout, client(settings.clone(), server, &link)).await {
                Ok(Ok(client)) => return opened(options, client, link, server, counters).await,
                Ok(Err(error)) => match error.kind() {
                    // Trying again would only lock the user out.
                    ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => {
                        return Err(ConnectError::Login { address: shown(server), source: Box::new(error) });
                    }
                    _ => tried.error = said(&error),
                },
                // What an earlier try was told says more than that the last one was cut short.
                Err(_) if round > 0 && timeout < options.link.connect_timeout => {}
                Err(_) => tried.error = format!("no answer within {} ms", timeout.as_millis()),
            }
            tracing::debug!(server = tried.address, error = tried.error, "could not connect");
        }
        let wait = backoff(round);
        round += 1;
        if Instant::now() + wait >= deadline {
            return Err(ConnectError::Unreachable { within: started.elapsed(), tried });
        }
        tokio::time::sleep(wait).await;
    }
}

/// What the error and its causes say, in one line.
fn said(error: &dyn std::error::Error) -> String {
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !said.contains(&more) {
            said = format!("{said}: {more}");
        }
        cause = error.source();
    }
    said
}

/// How long to wait before round `round + 1` of trying: half of it certain, half of it chance.
fn backoff(round: usize) -> Duration {
    let most = Duration::from_millis(100) * 2_u32.pow(u32::try_from(round).unwrap_or(u32::MAX).min(5));
    most.mul_f64(fastrand::f64().mul_add(0.5, 0.5))
}

fn client_options(options: &NatsOptions, role: &str) -> ConnectOptions {
    let LinkSettings { connect_timeout, request_timeout, ping_interval, .. } = options.link;
    let mut settings = ConnectOptions::new()
        .name(format!("{} {role}", options.name))
        .custom_inbox_prefix(&options.inbox_prefix)
        .connection_timeout(connect_timeout)
        .request_timeout(Some(request_timeout))
        .ping_interval(ping_interval)
        .client_capacity(CLIENT_CAPACITY)
        .subscription_capacity(SUBSCRIPTION_CAPACITY)
        // The first attempt after a loss too: a server that comes back is not to be overrun by all at once. The
        // client also asks for the very first connect, which nobody has a reason to delay.
        .reconnect_delay_callback(|attempts| match attempts {
            0 | 1 => Duration::from_millis(fastrand::u64(0..20)),
            more => backoff(more - 2),
        });
    if let Some(file) = &options.root_certificates {
        settings = settings.add_root_certificates(file.clone());
    }
    settings
}

async fn with_login(settings: ConnectOptions, options: &NatsOptions) -> Result<ConnectOptions, ConnectError> {
    if let Some(file) = &options.credentials {
        let unreadable = |source| ConnectError::Credentials { file: file.display().to_string(), source };
        let credentials = tokio::fs::read_to_string(file).await.map_err(unreadable)?;
        return settings.credentials(&credentials).map_err(unreadable);
    }
    let login = options.servers().iter().find_map(|server| Some((server.username()?, server.password())));
    Ok(match login {
        Some((user, Some(password))) => settings.user_and_password(decoded(user), decoded(password)),
        Some((token, None)) => settings.token(decoded(token)),
        None => settings,
    })
}

/// `text` with its `%41`s as the characters they stand for.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let code = (first == b'%').then(|| after.get(..2)).flatten();
        let code = code.and_then(|code| u8::from_str_radix(std::str::from_utf8(code).ok()?, 16).ok());
        bytes.push(code.unwrap_or(first));
        rest = if code.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Connects to `server`, with `link` hearing of what becomes of it.
async fn client(settings: ConnectOptions, server: &ServerAddr, link: &Arc<Link>) -> Result<Client, async_nats::ConnectError> {
    let hearing = link.clone();
    let settings = settings.event_callback(move |event| {
        hearing.heard(event);
        std::future::ready(())
    });
    let client = settings.connect(server.clone()).await?;
    // The events run behind. What is sent before "connected" was heard would be sent again when it is.
    let mut state = link.watch();
    state.wait_for(|state| state.generation > 0).await.ok();
    Ok(client)
}

/// Makes a connection of `client`, if the server at the other end will do.
async fn opened(
    options: &NatsOptions,
    client: Client,
    link: Arc<Link>,
    server: &ServerAddr,
    counters: &Arc<Counters>,
) -> Result<(Connection, String), ConnectError> {
    let address = shown(server);
    let version = client.server_info().version;
    if !new_enough(&version) {
        return Err(ConnectError::TooOld { address, version });
    }
    let unusable = |source: Cause| ConnectError::Unusable { address: address.clone(), source };
    // From now on all of them are tried when this one is lost.
    client.set_server_pool(options.servers()).await.map_err(|error| unusable(Box::new(error)))?;
    let LinkSettings { request_timeout, ping_interval, .. } = options.link;
    // A dead link is noticed after three pings: only then is a missing answer the server's own doing.
    let resend_after = request_timeout.max(4 * ping_interval);
    let exchange = Exchange::new(client.clone(), link.clone(), request_timeout, resend_after, counters.clone());
    let exchange = exchange.await.map_err(|error| unusable(Box::new(error)))?;
    link.attach(client.clone());
    let connection = Connection::new(client, link, exchange, counters.clone());
    Ok((connection.in_domain(options.domain.as_deref()), address))
}

fn new_enough(version: &str) -> bool {
    let mut numbers = version.trim_start_matches('v').split(['.', '-']).map_while(|number| number.parse::<u64>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    version >= OLDEST
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        for new in ["2.14.0", "2.15.1", "2.100.0-beta.1", "3.0.0", "v2.14.2"] {
            assert!(new_enough(new), "{new}");
        }
        for old in ["2.9.25", "2.13.9", "1.4.1", "", "x", "2"] {
            assert!(!new_enough(old), "{old}");
        }
    }

    #[test]
    fn a_login_from_a_url_is_decoded() {
        assert_eq!(decoded("p%40ss%2Fw%zz%4"), "p@ss/w%zz%4");
        assert_eq!(decoded("%E2%82%AC"), "€");
    }

    #[test]
    fn backoff_grows_and_is_bounded() {
        assert!(backoff(0) <= Duration::from_millis(100) && backoff(0) >= Duration::from_millis(50));
        assert!(backoff(usize::MAX) <= Duration::from_millis(3_200));
    }
}
