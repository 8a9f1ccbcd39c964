//! Finding a factory in another JetStream, so that no second one is made beside it.
//!
//! A leaf node may have a JetStream of its own, in a domain of its own or in none. What is asked of the API there is answered
//! there, and says nothing of the hub. But jobs that are published there also reach the hub: with a factory in both, each is
//! stored and run twice. So whoever is about to make a factory first publishes a message that no stream takes, for it
//! expects another stream's name, and that each stream which takes such subjects answers.

use std::time::Duration;

use async_nats::{HeaderMap, header};
use bytes::Bytes;
use futures::StreamExt as _;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use super::{SetupError, unnamed_domain};
use crate::api::{ApiError, code};
use crate::connect::ConnectError;
use crate::connection::Connection;
use crate::layout::Layout;

/// How long an answer is waited for before a factory is made. That nobody is there is said at once.
const WITHIN: Duration = Duration::from_secs(2);

/// What no stream is called.
const NO_STREAM: &str = "WF-NO-SUCH-STREAM";

/// Refuses to make a factory where nobody has said that one is meant, or where another has the same subjects.
pub(super) async fn refuse(connection: &Connection, layout: &Layout, address: String) -> Result<(), SetupError> {
    if let Some(domain) = unnamed_domain(connection) {
        return Err(SetupError::Unmeant(ConnectError::OtherDomain { address, domain }));
    }
    if takers(connection, layout, 1, WITHIN).await == 0 {
        return Ok(());
    }
    // Somebody else may have made this very factory meanwhile.
    let info = connection.api::<Value>(&format!("STREAM.INFO.{}", layout.jobs), &json!({})).await;
    match info {
        Ok(_) => Ok(()),
        Err(error) if error.code() == Some(code::NO_STREAM) => {
            Err(SetupError::Unmeant(ConnectError::SecondFactory { address, stream: layout.jobs.clone() }))
        }
        Err(error @ ApiError::Refused { .. }) => Err(SetupError::failed(&layout.jobs, error)),
        // What could not be asked is said by whatever is asked next.
        Err(_) => Ok(()),
    }
}

/// How many factories would store a job that is published here: `most` of them at most, `within` that time. Nothing is stored. 0 where this user may not publish jobs.
pub(crate) async fn takers(connection: &Connection, layout: &Layout, most: usize, within: Duration) -> usize {
    let inbox = connection.client.new_inbox();
    let Ok(mut answers) = connection.client.subscribe(inbox.clone()).await else { return 0 };
    let mut headers = HeaderMap::new();
    headers.insert(header::NATS_EXPECTED_STREAM, NO_STREAM);
    let subject = format!("{}.jobs.default", layout.prefix);
    if connection.client.publish_with_reply_and_headers(subject, inbox, headers, Bytes::new()).await.is_err() {
        return 0;
    }
    let (until, mut takers) = (Instant::now() + within, 0);
    while takers < most
        && let Ok(Some(answer)) = timeout_at(until, answers.next()).await
    {
        // Nobody is there at all.
        if answer.status.is_some() {
            break;
        }
        // Streams of others may take these subjects as well: that is no factory.
        let told: Value = serde_json::from_slice(&answer.payload).unwrap_or_default();
        takers += usize::from(told["stream"] == layout.jobs.as_str());
    }
    takers
}
