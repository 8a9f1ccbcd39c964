//! How long it takes to store something, beside how long a round trip takes: whether the disk is in between.

use std::time::{Duration, Instant};

use async_nats::{HeaderMap, header};
use bytes::Bytes;

use super::{Checkup, CheckupError};

/// The least that is stored and asked for, however long it takes.
const LEAST: usize = 3;

/// What removes the record if nobody else does.
const TTL: &str = "30s";

/// Times of storing a small record and of asking for one, in turns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreTimes {
    /// Of storing.
    pub stores: Vec<Duration>,
    /// Of asking.
    pub round_trips: Vec<Duration>,
}

impl Checkup {
    /// Stores a record of its own, up to `most` times, for about `within`. It is removed again, and outlives an
    /// interruption by half a minute.
    ///
    /// # Errors
    /// When the factory is not set up, or the user may not write such a record.
    pub async fn store_times(&self, most: usize, within: Duration) -> Result<StoreTimes, CheckupError> {
        let layout = &self.options.layout;
        let subject = layout.record_subject(&format!("doctor.{:016x}", fastrand::u64(..)));
        let with_ttl = |ttl: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::NATS_MESSAGE_TTL, ttl);
            headers
        };
        // First whether there is a place for it: a request to one that is not there would be repeated for long.
        self.api(&format!("STREAM.INFO.{}", layout.state_stream), &super::everything()).await?;
        let until = Instant::now() + within;
        let mut times = StoreTimes::default();
        let mut last = 0;
        while times.stores.len() < LEAST || (times.stores.len() < most && Instant::now() < until) {
            times.round_trips.push(self.ping().await?);
            let began = Instant::now();
            let stored = self.connection.store_at(&layout.state_stream, &subject, last, with_ttl(TTL), Bytes::from_static(b"?"));
            last = stored.await.map_err(|error| self.untold(&layout.record_subject("doctor.>"), error))?;
            times.stores.push(began.elapsed());
        }
        let mut gone = with_ttl("1s");
        gone.insert("KV-Operation", "DEL");
        // If that fails, its time to live removes it.
        self.connection.store_at(&layout.state_stream, &subject, last, gone, Bytes::new()).await.ok();
        Ok(times)
    }
}
