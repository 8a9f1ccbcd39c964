//! What the account may use of JetStream, and does.

use serde_json::Value;

use super::{Checkup, CheckupError, everything, limit};

/// How much of something is used, and how much may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// How much is.
    pub used: u64,
    /// How much may be; `None` is as much as the server has.
    pub limit: Option<u64>,
}

/// What an account may use of JetStream, and does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccountFacts {
    /// Its name, if the server told.
    pub name: Option<String>,
    /// Bytes on disk.
    pub storage: Usage,
    /// Bytes on disk that streams may take and have reserved; where the account has no limit, none are.
    pub reserved: u64,
    /// Streams.
    pub streams: Usage,
    /// Consumers.
    pub consumers: Usage,
    /// The most messages that a consumer may have under way.
    pub max_ack_pending: Option<u64>,
    /// The most bytes on disk that one stream may ask for.
    pub max_stream_bytes: Option<u64>,
}

impl Checkup {
    /// What the account may use of JetStream, and does; `replicas` is the factory's, for accounts that have a limit
    /// for each.
    ///
    /// # Errors
    /// When JetStream is off, or the user may not ask.
    pub async fn account(&self, replicas: u8) -> Result<AccountFacts, CheckupError> {
        let told = self.api("INFO", &everything()).await?;
        let mut facts = read(&told, replicas);
        // Only for people; who may not ask for it does without.
        if let Ok(user) = self.user().await {
            facts.name = user["data"]["account_name"].as_str().or_else(|| user["data"]["account"].as_str()).map(str::to_owned);
        }
        Ok(facts)
    }
}

fn read(told: &Value, replicas: u8) -> AccountFacts {
    // Accounts of an operator may have limits for each number of replicas, and then no others.
    let tier = &told["tiers"][format!("R{replicas}")];
    let told = if tier.is_object() { tier } else { told };
    let limits = &told["limits"];
    let used = |key: &str| told[key].as_u64().unwrap_or(0);
    // Here zero is no limit either.
    let positive = |key: &str| limit(&limits[key]).filter(|limit| *limit > 0);
    AccountFacts {
        name: None,
        storage: Usage { used: used("storage"), limit: limit(&limits["max_storage"]) },
        reserved: used("reserved_storage"),
        streams: Usage { used: used("streams"), limit: limit(&limits["max_streams"]) },
        consumers: Usage { used: used("consumers"), limit: limit(&limits["max_consumers"]) },
        max_ack_pending: positive("max_ack_pending"),
        max_stream_bytes: positive("storage_max_stream_bytes"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn limits_are_read_with_and_without_tiers() {
        let unlimited = json!({
            "storage": 5, "reserved_storage": 0, "streams": 2, "consumers": 3,
            "limits": { "max_storage": -1, "max_streams": -1, "max_consumers": -1, "max_ack_pending": -1, "storage_max_stream_bytes": 0 },
        });
        let facts = read(&unlimited, 1);
        assert_eq!(facts.storage, Usage { used: 5, limit: None });
        assert_eq!(
            (facts.streams.used, facts.consumers.limit, facts.max_ack_pending, facts.max_stream_bytes),
            (2, None, None, None)
        );

        let tiered = json!({
            "storage": 9, "limits": { "max_storage": 0 },
            "tiers": { "R3": { "storage": 7, "reserved_storage": 6, "limits": { "max_storage": 100, "max_ack_pending": 50 } } },
        });
        let facts = read(&tiered, 3);
        assert_eq!((facts.storage, facts.reserved), (Usage { used: 7, limit: Some(100) }, 6));
        assert_eq!(facts.max_ack_pending, Some(50));
        assert_eq!(read(&tiered, 1).storage, Usage { used: 9, limit: Some(0) });
        assert_eq!(read(&Value::Null, 1), AccountFacts::default());
    }
}
