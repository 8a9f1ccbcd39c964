//! Where a server tells what only its operators may know.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use wf_nats::{Checkup, CheckupError, ConnectError, LinkSettings, NatsOptions, ServerVars};

/// How long a monitor may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The most that is read of an answer, in bytes.
const LONGEST: usize = 4 << 20;

/// Where to ask: a server's HTTP monitoring, or a cluster as a user of its system account.
#[derive(Clone, PartialEq, Eq)]
pub enum Monitor {
    /// `http://HOST:8222`.
    Http(String),
    /// `nats://USER:PASSWORD@HOST:4222`, or `tls://`.
    System(String),
}

/// A text that is no monitor.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected http://HOST:8222 (a server's monitoring) or nats://USER:PASSWORD@HOST:4222 (a user of its system account)")]
pub struct NoMonitor;

impl FromStr for Monitor {
    type Err = NoMonitor;

    fn from_str(text: &str) -> Result<Self, NoMonitor> {
        let text = text.trim_end_matches('/');
        match text.split_once("://") {
            Some(("http", host)) if !host.is_empty() => Ok(Self::Http(text.trim_end_matches("/varz").to_owned())),
            Some(("nats" | "tls", _)) if NatsOptions::new([text]).is_ok() => Ok(Self::System(text.to_owned())),
            _ => Err(NoMonitor),
        }
    }
}

/// Without user and password.
impl fmt::Display for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Http(url) | Self::System(url)) = self;
        match url.split_once("://") {
            Some((scheme, rest)) => write!(f, "{scheme}://{}", rest.rsplit('@').next().unwrap_or(rest)),
            None => f.write_str(url),
        }
    }
}

impl fmt::Debug for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Monitor({self})")
    }
}

/// Why a monitor told nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum MonitorError {
    #[error("it cannot be asked")]
    Http(#[source] reqwest::Error),
    #[error("it answers {0}")]
    Status(u16),
    #[error("its answer has more than {LONGEST} bytes")]
    TooLong,
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Checkup(#[from] CheckupError),
    #[error(transparent)]
    Options(#[from] wf_nats::OptionsError),
}

/// What a monitor told.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// The servers' variables.
    pub(super) vars: Vec<ServerVars>,
    /// Why the server says that it is not well, if it does.
    pub(super) unwell: Option<String>,
}

impl Monitor {
    /// Asks.
    pub(super) async fn ask(&self) -> Result<Told, MonitorError> {
        match self {
            Self::Http(url) => {
                let client = reqwest::Client::builder().timeout(PATIENCE).no_proxy().build().map_err(MonitorError::Http)?;
                let (status, vars) = get(&client, &format!("{url}/varz")).await?;
                if status != 200 {
                    return Err(MonitorError::Status(status));
                }
                let vars = vec![ServerVars::read(&vars)?];
                let (status, health) = get(&client, &format!("{url}/healthz")).await?;
                let unwell = (status != 200).then(|| String::from_utf8_lossy(&health).into_owned());
                Ok(Told { vars, unwell })
            }
            Self::System(url) => {
                let mut link = LinkSettings::default();
                (link.connect_deadline, link.connect_timeout, link.request_timeout) = (PATIENCE, PATIENCE, PATIENCE);
                let checkup = Checkup::connect(NatsOptions::new([url])?.link(link)).await?;
                let vars = checkup.server_vars().await;
                checkup.close().await;
                Ok(Told { vars: vars?, unwell: None })
            }
        }
    }
}

/// The status and the body of an answer.
async fn get(client: &reqwest::Client, url: &str) -> Result<(u16, Vec<u8>), MonitorError> {
    let mut answer = client.get(url).send().await.map_err(|error| MonitorError::Http(error.without_url()))?;
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| MonitorError::Http(error.without_url()))? {
        if body.len() + chunk.len() > LONGEST {
            return Err(MonitorError::TooLong);
        }
        body.extend_from_slice(&chunk);
    }
    Ok((answer.status().as_u16(), body))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn monitors_are_read_and_shown_without_their_secrets() {
        for (text, shown) in [
            ("http://127.0.0.1:8222", "http://127.0.0.1:8222"),
            ("http://127.0.0.1:8222/varz", "http://127.0.0.1:8222"),
            ("http://me:secret@host/base/", "http://host/base"),
            ("nats://sys:secret@host:4222", "nats://host:4222"),
            ("tls://sys:s%40cret@host", "tls://host"),
        ] {
            let monitor: Monitor = text.parse().unwrap();
            assert_eq!((monitor.to_string(), format!("{monitor:?}")), (shown.to_owned(), format!("Monitor({shown})")));
        }
        for text in ["", "https://host", "host:8222", "http://", "nats://"] {
            assert_eq!(text.parse::<Monitor>(), Err(NoMonitor), "{text}");
        }
    }
}
