//! The servers' clock: the one by which jobs for later fall due. What this machine's clock says is checked against it, or
//! a node whose clock is an hour ahead would put off every retry by an hour.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use wf_schema::{Millis, follow_clock};

use crate::connection::Connection;
use crate::exchange::NobodyThere;
use crate::layout::Layout;

/// How often it is asked for, on average.
const EVERY: Duration = Duration::from_secs(10);
/// An answer that took longer says too little: nobody knows which way took how long of it.
const LATE: Duration = Duration::from_secs(1);

/// What a server's clock says now, that `told` the time in an answer which took `took`: it was most likely told half-way.
pub(crate) fn by_now(told: &str, took: Duration) -> Option<SystemTime> {
    Some(SystemTime::from(chrono::DateTime::parse_from_rfc3339(told).ok()?) + took / 2)
}

/// What the servers' clock says now, if they tell.
pub(crate) async fn ask(connection: &Connection, layout: &Layout) -> Option<Millis> {
    let sent = Instant::now();
    // What every role may ask.
    let subject = format!("STREAM.INFO.{}", layout.state_stream);
    let info: Value = connection.api_at_once(&subject, &json!({}), NobodyThere::Fail).await.ok()?;
    let took = Some(sent.elapsed()).filter(|took| *took <= LATE)?;
    let there = by_now(info["ts"].as_str()?, took)?;
    there.duration_since(UNIX_EPOCH).ok()?.as_millis().try_into().ok()
}

/// Goes on asking.
pub(crate) async fn keep_asking(connection: Arc<Connection>, layout: Layout) {
    let mut wrong = false;
    loop {
        if let Some(told) = ask(&connection, &layout).await {
            let ahead = follow_clock(told);
            if let Some(ahead) = ahead.filter(|_| !wrong) {
                let (by, way) = (Duration::from_millis(ahead.unsigned_abs()), if ahead > 0 { "ahead of" } else { "behind" });
                tracing::warn!("this machine's clock is {} s {way} the broker's, which is used in its place", by.as_secs());
            }
            wrong = ahead.is_some();
        }
        tokio::time::sleep(EVERY.mul_f64(0.75 + fastrand::f64() / 2.0)).await;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use wf_schema::now;

    use super::*;
    use crate::testing::{ServerOptions, TestServer};
    use crate::{FactorySettings, NatsBroker, NatsOptions};

    #[tokio::test]
    async fn a_server_tells_its_time() {
        let server = TestServer::start(ServerOptions::new());
        let options = NatsOptions::new([server.url()]).unwrap();
        let broker = NatsBroker::connect_or_setup(options, &FactorySettings::default()).await.unwrap();
        let told = ask(broker.asker(), &broker.layout).await.unwrap();
        assert!(now().abs_diff(told) < 60_000, "one machine has one clock: {told}");
    }
}
