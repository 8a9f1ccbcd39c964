//! Which broker, and where.

use std::fmt;
use std::path::PathBuf;

use super::setting::Setting;

/// Which broker to use, and where it is. Display and Debug leave out names, passwords and tokens.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum BrokerUrl {
    /// `embedded:PATH`: the durable broker inside this process, on this directory.
    Embedded(PathBuf),
    /// `memory://`: the same without a disk, for tests; nothing outlives the process.
    Memory,
    /// `nats://HOST:PORT` or `tls://HOST:PORT`: the servers of one NATS cluster, each a full URL, at least one.
    Nats(Vec<String>),
}

impl Setting for BrokerUrl {
    const EXPECTED: &'static str =
        "`embedded:PATH`, `memory://`, `nats://HOST:PORT` or `tls://HOST:PORT` (several servers of a cluster with commas)";
    const LIST: bool = true;

    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if let Some(path) = text.strip_prefix("embedded:") {
            return PathBuf::parse(path).map(Self::Embedded);
        }
        if text == "memory://" {
            return Some(Self::Memory);
        }
        let servers = text.split(',').map(|server| nats_server(server.trim()));
        servers.collect::<Option<Vec<_>>>().filter(|servers| servers.len() <= 100).map(Self::Nats)
    }

    fn shown(&self) -> String {
        self.to_string()
    }
}

fn nats_server(url: &str) -> Option<String> {
    let authority = url.strip_prefix("nats://").or_else(|| url.strip_prefix("tls://"))?;
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let (name, port) = match host.rsplit_once(':') {
        // The colons of an IPv6 address are inside its brackets.
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        _ => (host, None),
    };
    let bracketed = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    let plain = bracketed.is_some_and(|name| name.parse::<std::net::Ipv6Addr>().is_ok())
        || (!name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)));
    let port_fits = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    (plain && port_fits).then(|| url.to_owned())
}

impl fmt::Display for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded(path) => write!(f, "embedded:{}", path.display()),
            Self::Memory => f.write_str("memory://"),
            Self::Nats(servers) => f.write_str(&masked(&servers.join(","))),
        }
    }
}

impl fmt::Debug for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BrokerUrl({self})")
    }
}

/// `text` with what stands before an `@` replaced by `***`, for each URL in it. Works on any text, so that a URL with
/// a mistake in it does not show its password in the message about the mistake.
pub(super) fn masked(text: &str) -> String {
    let authorities = text.split("://").map(|authority| match authority.rsplit_once('@') {
        Some((_, host)) => format!("***@{host}"),
        None => authority.to_owned(),
    });
    authorities.collect::<Vec<_>>().join("://")
}
