//! What a server tells only its operators: over its HTTP monitoring, or to users of the system account.

use std::time::Duration;

use futures::StreamExt as _;
use serde_json::Value;

use super::{Checkup, CheckupError, limit};

/// Whom every server of a cluster answers.
const EVERY_SERVER: &str = "$SYS.REQ.SERVER.PING.VARZ";

/// Servers whose answers are waited for, at most.
const MOST_SERVERS: usize = 100;

/// How long the servers have to answer after the first did, at the least: they are beside each other.
const BESIDE: Duration = Duration::from_millis(300);

/// When a server syncs what it has stored to disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncPolicy {
    /// Before it answers the publisher.
    Always,
    /// This often; it answers before.
    Every(Duration),
}

/// A server's variables, as far as they matter to a factory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerVars {
    /// The server's name.
    pub server: String,
    /// Its version.
    pub version: String,
    /// When it syncs; `None` if JetStream is off there.
    pub sync: Option<SyncPolicy>,
    /// Bytes that all streams of all accounts may take on its disk.
    pub max_storage: Option<u64>,
    /// Bytes that they have reserved.
    pub reserved_storage: u64,
    /// Bytes that they take.
    pub used_storage: u64,
}

impl ServerVars {
    /// Reads what `GET /varz` answers.
    ///
    /// # Errors
    /// When it is not that.
    pub fn read(json: &[u8]) -> Result<Self, CheckupError> {
        let told: Value = serde_json::from_slice(json).map_err(|error| CheckupError::Unreadable(error.into()))?;
        Self::of(&told).ok_or_else(|| CheckupError::Missing("a server's variables".into()))
    }

    fn of(told: &Value) -> Option<Self> {
        let (config, stats) = (&told["jetstream"]["config"], &told["jetstream"]["stats"]);
        let sync = match (config["sync_always"].as_bool(), config["sync_interval"].as_u64()) {
            (Some(true), _) => Some(SyncPolicy::Always),
            (_, Some(nanos)) => Some(SyncPolicy::Every(Duration::from_nanos(nanos))),
            _ => None,
        };
        Some(Self {
            server: told["server_name"].as_str()?.to_owned(),
            version: told["version"].as_str()?.to_owned(),
            sync,
            max_storage: limit(&config["max_storage"]),
            reserved_storage: stats["reserved_storage"].as_u64().unwrap_or(0),
            used_storage: stats["storage"].as_u64().unwrap_or(0),
        })
    }
}

impl Checkup {
    /// The variables of all servers, which they tell to users of the system account only. Waits for the answers that
    /// come soon after the first.
    ///
    /// # Errors
    /// When the user is of another account.
    pub async fn server_vars(&self) -> Result<Vec<ServerVars>, CheckupError> {
        let failed = |error: wf_broker::Cause| CheckupError::Failed(error);
        // The first by itself: it tells whether anybody may be asked at all.
        let asked = std::time::Instant::now();
        self.ask(EVERY_SERVER).await?;
        let beside = BESIDE + 2 * asked.elapsed();
        let client = &self.connection.client;
        let inbox = client.new_inbox();
        let mut answers = client.subscribe(inbox.clone()).await.map_err(|error| failed(error.into()))?;
        let sent = client.publish_with_reply(EVERY_SERVER, inbox, bytes::Bytes::new()).await;
        sent.map_err(|error| failed(error.into()))?;
        let mut found = Vec::new();
        while found.len() < MOST_SERVERS {
            let Ok(Some(answer)) = tokio::time::timeout(beside, answers.next()).await else { break };
            let told: Value = serde_json::from_slice(&answer.payload).map_err(|error| CheckupError::Unreadable(error.into()))?;
            found.extend(ServerVars::of(&told["data"]));
        }
        if found.is_empty() { Err(CheckupError::Missing(EVERY_SERVER.into())) } else { Ok(found) }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_read_with_jetstream_and_without() {
        let two_minutes = br#"{"server_name":"n1","version":"2.15.1","jetstream":{"config":{"max_storage":100,"sync_interval":120000000000},"stats":{"storage":1,"reserved_storage":2}}}"#;
        let vars = ServerVars::read(two_minutes).unwrap();
        assert_eq!((vars.server.as_str(), vars.sync), ("n1", Some(SyncPolicy::Every(Duration::from_secs(120)))));
        assert_eq!((vars.max_storage, vars.reserved_storage, vars.used_storage), (Some(100), 2, 1));
        let always = br#"{"server_name":"n1","version":"2.15.1","jetstream":{"config":{"sync_interval":120000000000,"sync_always":true}}}"#;
        assert_eq!(ServerVars::read(always).unwrap().sync, Some(SyncPolicy::Always));
        assert_eq!(ServerVars::read(br#"{"server_name":"n1","version":"2.15.1","jetstream":{}}"#).unwrap().sync, None);
        assert!(ServerVars::read(b"{}").is_err());
        assert!(ServerVars::read(b"<html>").is_err());
    }
}
