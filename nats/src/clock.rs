//! The servers' clock: the one by which jobs for later fall due. What this machine's clock says is checked against it, or
//! a node whose clock is an hour ahead would put off every retry by an hour.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wf_schema::{Millis, follow_clock};

use crate::connection::Connection;
use crate::exchange::NobodyThere;
use crate::layout::Layout;

/// How often it is asked for, on average.
const EVERY: Duration = Duration::from_secs(10);
/// An answer that took longer says too little: nobody knows which way took how long of it.
const LATE: Duration = Duration::from_secs(1);
/// What is worth a word, in ms.
const WRONG: u64 = 1_000;

/// Asks the servers for their time and follows it; what cannot be asked for is not followed. By how much this machine's
/// clock is ahead, in ms.
pub(crate) async fn ask(connection: &Connection, layout: &Layout) -> Option<i64> {
    let sent = Instant::now();
    // What every role may ask.
    let subject = format!("STREAM.INFO.{}", layout.state_stream);
    let info: Value = connection.api_at_once(&subject, &json!({}), NobodyThere::Fail).await.ok()?;
    let took = sent.elapsed();
    let told = chrono::DateTime::parse_from_rfc3339(info["ts"].as_str()?).ok()?.timestamp_millis();
    let told = Millis::try_from(told).ok().filter(|_| took <= LATE)?;
    Some(follow_clock(told + (took / 2).as_millis() as Millis))
}

/// Goes on asking.
pub(crate) async fn keep_asking(connection: Arc<Connection>, layout: Layout) {
    let mut wrong = false;
    loop {
        if let Some(ahead) = ask(&connection, &layout).await {
            let was = std::mem::replace(&mut wrong, ahead.unsigned_abs() > WRONG);
            if wrong && !was {
                let (by, way) = (Duration::from_millis(ahead.unsigned_abs()), if ahead > 0 { "ahead of" } else { "behind" });
                tracing::warn!("this machine's clock is {} s {way} the broker's, which is used in its place", by.as_secs());
            }
        }
        tokio::time::sleep(EVERY.mul_f64(0.75 + fastrand::f64() / 2.0)).await;
    }
}
