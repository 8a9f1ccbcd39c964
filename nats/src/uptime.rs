//! Who stores a lane, and since when its delivery counts can be trusted.
//!
//! A server that stores a lane alone writes down a little later that it has delivered a message. One that is killed in
//! between comes back believing that it never did, and its next delivery of that message passes for the first. Whoever
//! takes it would not look for what was settled of it before. So a count of one is only believed for messages that were
//! stored after whoever counts began to: what is older counts as delivered before, which costs a look-up and a record.
//!
//! What is known of that, for a consumer:
//!
//! - One with replicas delivers only what a majority of them has written down, so its counts outlive the loss of any one
//!   server. They are believed from when its leader was elected, which covers that all were lost.
//! - One without replicas, at the server that this connection leads to: since this server began. Nobody tells when that
//!   was, so whoever first meets a server that it does not know makes a record of it, and the record's time is taken.
//!   The server cannot begin anew without this connection noticing.
//! - One without replicas at another server, behind a leaf node or elsewhere in a cluster: that server can be killed and
//!   come back while this connection stays up, and nothing tells. Its counts are never believed.

use std::time::Duration;

use async_nats::{HeaderMap, ServerInfo, header};
use parking_lot::Mutex;
use serde_json::{Value, json};
use wf_schema::{Lane, Millis};

use crate::api::{ApiError, code};
use crate::connection::Connection;
use crate::consume::millis;
use crate::layout::Layout;

/// How long a server is remembered. A server that was forgotten is met anew, which is only more cautious.
const REMEMBERED: Duration = Duration::from_secs(90 * 24 * 3_600);

/// By how much the clocks of a cluster's servers may differ, in milliseconds.
const CLOCKS: Millis = 1_000;

/// Since when the server is up that the connection leads to, by the generation of the connection.
#[derive(Default)]
pub(crate) struct Uptime(Mutex<Option<(u64, Millis)>>);

/// Who counts the deliveries of a consumer.
#[derive(Debug, PartialEq, Eq)]
enum Counting {
    /// Several servers, led by one since then.
    Together(Millis),
    /// The server that we are connected to, alone.
    Connected,
    /// Another server, alone.
    Elsewhere,
}

impl Counting {
    /// Who does, as `info` of a consumer says, to one who is connected to `server` and uses the JetStream of `domain`.
    fn of(info: &Value, server: &ServerInfo, domain: Option<&str>) -> Self {
        let cluster = &info["cluster"];
        if let Some(since) = cluster["leader_since"].as_str() {
            return millis(since).map_or(Self::Elsewhere, Self::Together);
        }
        let (name, its_domain) = (server.server_name.as_str(), server.domain.as_deref().filter(|domain| !domain.is_empty()));
        let here = match cluster["leader"].as_str() {
            Some(leader) => leader == name,
            // One alone does not name itself.
            None => cluster.is_null() && server.cluster.is_none(),
        };
        match here && server.jetstream && (domain.is_none() || domain == its_domain) {
            true => Self::Connected,
            false => Self::Elsewhere,
        }
    }
}

/// What is known of a lane's consumer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counted {
    /// Messages that were stored later than this, by the server's clock, have true delivery counts.
    pub(crate) since: Millis,
    /// Whether deliveries come from the very server that the connection leads to, not by way of another.
    pub(crate) direct: bool,
}

impl Counted {
    /// Nothing: no count is true.
    pub(crate) const UNKNOWN: Self = Self { since: Millis::MAX, direct: false };
}

impl Connection {
    /// What is known of the consumer of `lane` in `stream`, of which `told` was told just now. If it cannot be told, no
    /// count is true.
    pub(crate) async fn counted(&self, layout: &Layout, stream: &str, lane: &Lane, told: Option<Value>) -> Counted {
        let generation = self.watch().borrow().generation;
        let server = self.client.server_info();
        let counting = async {
            let subject = format!("CONSUMER.INFO.{stream}.{}", Layout::consumer(lane));
            let info = match told {
                Some(told) => told,
                None => self.api::<Value>(&subject, &json!({})).await?,
            };
            let counting = Counting::of(&info, &server, self.domain());
            let direct = counting == Counting::Connected && server.cluster.is_none();
            let since = match counting {
                Counting::Together(since) => since + CLOCKS,
                Counting::Connected => self.met(layout, &server, generation).await?,
                Counting::Elsewhere => Millis::MAX,
            };
            Ok(Counted { since, direct })
        };
        counting.await.unwrap_or_else(|error: ApiError| {
            let error: &dyn std::error::Error = &error;
            tracing::debug!(error, "cannot tell who counts deliveries, and since when; each counts as a later one");
            Counted::UNKNOWN
        })
    }

    /// Makes a record of the server that the connection leads to, if there is none: the sooner it is known, the more
    /// delivery counts are true.
    pub(crate) async fn meet(&self, layout: &Layout) {
        let generation = self.watch().borrow().generation;
        let server = self.client.server_info();
        if server.jetstream
            && let Err(error) = self.met(layout, &server, generation).await
        {
            let error: &dyn std::error::Error = &error;
            tracing::debug!(error, "cannot make a record of the server");
        }
    }

    /// When `server`, that this connection leads to in `generation`, was first met.
    async fn met(&self, layout: &Layout, server: &ServerInfo, generation: u64) -> Result<Millis, ApiError> {
        if let Some((known, since)) = *self.uptime.0.lock()
            && known == generation
        {
            return Ok(since);
        }
        let subject = layout.record_subject(&format!("server.{}", server.server_id));
        let margin = if server.cluster.is_some() { CLOCKS } else { 0 };
        let since = loop {
            if let Some(record) = self.last(&layout.state_stream, &subject).await? {
                break record.at + margin;
            }
            let mut headers = HeaderMap::new();
            headers.insert(header::NATS_MESSAGE_TTL, format!("{}s", REMEMBERED.as_secs()));
            match self.store_at(&layout.state_stream, &subject, 0, headers, server.server_name.clone().into()).await {
                // By us, or by somebody else meanwhile: when is in the record.
                Ok(_) => {}
                Err(error) if error.code() == Some(code::WRONG_LAST) => {}
                Err(error) => return Err(error),
            }
        };
        *self.uptime.0.lock() = Some((generation, since));
        Ok(since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(name: &str, cluster: Option<&str>, domain: Option<&str>) -> ServerInfo {
        ServerInfo {
            server_name: name.to_owned(),
            cluster: cluster.map(str::to_owned),
            domain: domain.map(str::to_owned),
            jetstream: true,
            ..ServerInfo::default()
        }
    }

    #[test]
    fn only_who_stores_a_lane_can_tell_how_often_it_has_delivered() {
        let alone = json!({});
        let of = |info: &Value, server: &ServerInfo, domain| Counting::of(info, server, domain);
        assert_eq!(of(&alone, &server("hub", None, None), None), Counting::Connected);
        assert_eq!(of(&alone, &server("hub", None, Some("hub")), None), Counting::Connected);
        assert_eq!(of(&alone, &server("hub", None, Some("hub")), Some("hub")), Counting::Connected);
        // Behind leaf nodes: without JetStream, with one of its own, and extending that of the hub.
        let bare = ServerInfo { jetstream: false, ..server("leaf", None, None) };
        assert_eq!(of(&alone, &bare, None), Counting::Elsewhere);
        assert_eq!(of(&alone, &server("leaf", None, Some("leaf")), Some("hub")), Counting::Elsewhere);
        assert_eq!(of(&json!({ "cluster": { "leader": "hub" } }), &server("leaf", None, None), None), Counting::Elsewhere);
        // In a cluster.
        let (here, there) = (server("a", Some("c"), None), server("b", Some("c"), None));
        let single = json!({ "cluster": { "name": "c", "leader": "a" } });
        assert_eq!((of(&single, &here, None), of(&single, &there, None)), (Counting::Connected, Counting::Elsewhere));
        let since = "2026-11-28T12:00:00.5Z";
        let replicated = json!({ "cluster": { "name": "c", "leader": "a", "leader_since": since, "replicas": [] } });
        assert_eq!(of(&replicated, &there, None), Counting::Together(millis(since).unwrap_or(0)));
        assert_eq!(of(&alone, &there, None), Counting::Elsewhere, "it has no leader now");
    }
}
