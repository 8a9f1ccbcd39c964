//! Since when a server's delivery counts can be trusted.
//!
//! A server writes down a little later that it has delivered a message. One that is killed in between comes back
//! believing that it never did, and its next delivery of that message passes for the first. Whoever takes it would
//! not look for what was settled of it before. So a count of one is only believed for messages that were stored
//! after this run of the server began: as nobody tells when that was, whoever first meets a server that it does not
//! know makes a record of it, and the record's time is taken. What is older counts as delivered before.

use std::time::Duration;

use async_nats::{HeaderMap, header};
use parking_lot::Mutex;
use wf_schema::Millis;

use crate::api::{ApiError, code};
use crate::connection::Connection;
use crate::layout::Layout;

/// How long a server is remembered. A server that was forgotten is met anew, which is only more cautious.
const REMEMBERED: Duration = Duration::from_secs(90 * 24 * 3_600);

/// By how much the clocks of a cluster's servers may differ, in milliseconds.
const CLOCKS: Millis = 1_000;

/// What is known for the current generation of a connection.
#[derive(Default)]
pub(crate) struct Uptime(Mutex<Option<(u64, Millis)>>);

impl Connection {
    /// Messages that were stored later than this, by the server's clock, have true delivery counts. If it cannot be
    /// told, none has.
    pub(crate) async fn counts_since(&self, layout: &Layout) -> Millis {
        let generation = self.watch().borrow().generation;
        if let Some((known, since)) = *self.uptime.0.lock()
            && known == generation
        {
            return since;
        }
        match self.met(layout).await {
            Ok(since) => {
                *self.uptime.0.lock() = Some((generation, since));
                since
            }
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::debug!(error, "cannot tell since when the server is up; every delivery counts as a later one");
                Millis::MAX
            }
        }
    }

    /// When this server was first met.
    async fn met(&self, layout: &Layout) -> Result<Millis, ApiError> {
        let server = self.client.server_info();
        let subject = layout.record_subject(&format!("server.{}", server.server_id));
        let margin = if server.cluster.is_some() { CLOCKS } else { 0 };
        loop {
            if let Some(record) = self.last(&layout.state_stream, &subject).await? {
                return Ok(record.at + margin);
            }
            let mut headers = HeaderMap::new();
            headers.insert(header::NATS_MESSAGE_TTL, format!("{}s", REMEMBERED.as_secs()));
            match self.store_at(&layout.state_stream, &subject, 0, headers, server.server_name.clone().into()).await {
                // By us, or by somebody else meanwhile: when is in the record.
                Ok(_) => {}
                Err(error) if error.code() == Some(code::WRONG_LAST) => {}
                Err(error) => return Err(error),
            }
        }
    }
}
