//! The consumers of the lanes: whether they are as the factory's settings say, and what waits at them.

use std::time::Duration;

use futures::StreamExt as _;
use serde_json::Value;
use wf_broker::Unserved;
use wf_schema::{Lane, Priority, Queue};

use super::{Checkup, CheckupError, everything};
use crate::api::ApiError;
use crate::exchange::Unanswered;
use crate::factory::FactorySettings;
use crate::lane_consumers::configs;
use crate::layout::Layout;
use crate::setup::{Difference, differing};
use crate::unserved::unserved;

/// Consumers that are asked about at once.
const AT_ONCE: usize = 32;

/// One of the two consumers of a lane.
#[derive(Debug)]
pub struct LaneFacts {
    /// The lane.
    pub lane: Lane,
    /// The stream that it consumes from.
    pub stream: String,
    /// How it is; [`CheckupError::Missing`] until the first executor of the lane has made it.
    pub consumer: Result<ConsumerFacts, CheckupError>,
}

/// How a consumer is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConsumerFacts {
    /// Where it differs from what the factory's settings make of it.
    pub differences: Vec<Difference>,
    /// Messages that wait to be delivered.
    pub pending: u64,
    /// Messages that are delivered and not settled,
    pub in_flight: u64,
    /// and how many may be.
    pub most_in_flight: u64,
    /// Pulls that wait for messages,
    pub pulls: u64,
    /// and how many may.
    pub most_pulls: u64,
    /// Whether it is held.
    pub paused: bool,
}

impl Checkup {
    /// The consumers of all lanes of `queues`, beside what `settings` make of them.
    pub async fn lanes(&self, queues: &[Queue], settings: &FactorySettings) -> Vec<LaneFacts> {
        let layout = &self.options.layout;
        let priorities = |queue: &Queue| [Priority::High, Priority::Normal, Priority::Low].map(|p| Lane::new(queue.clone(), p));
        let consumers = queues.iter().flat_map(priorities).flat_map(|lane| {
            let (jobs, later) = configs(layout, settings, &lane);
            [(lane.clone(), layout.jobs.clone(), jobs), (lane, layout.later.clone(), later)]
        });
        let asked = consumers.map(async |(lane, stream, wanted)| {
            let info = self.api(&format!("CONSUMER.INFO.{stream}.{}", Layout::consumer(&lane)), &everything()).await;
            let consumer = info.map(|info| read(&Layout::consumer(&lane), &info, &wanted));
            LaneFacts { lane, stream, consumer }
        });
        futures::stream::iter(asked).buffered(AT_ONCE).collect().await
    }
}

/// From one look at what nobody asks for to the next: long enough for a request that is about to be sent anew.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

impl Checkup {
    /// What waits where nobody asks for it, in all lanes, and at names that are no lane's. Seen twice in a row.
    ///
    /// # Errors
    /// When the user may not ask, or no answer came.
    pub async fn unserved(&self) -> Result<Vec<Unserved>, CheckupError> {
        let layout = &self.options.layout;
        let ask = async || {
            let asked = unserved(&self.connection, layout).await;
            // It takes two rights; which one is missing the server's own words tell.
            asked.map_err(|error| match error {
                ApiError::Unanswered(Unanswered::Denied(said)) => CheckupError::Denied { right: right(&said) },
                error => self.untold(&self.connection.api_subject(&format!("STREAM.INFO.{}", layout.jobs)), error),
            })
        };
        let first = ask().await?;
        if first.iter().all(|unserved| unserved.lane.is_none()) {
            return Ok(first);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
        let again = ask().await?;
        Ok(again.into_iter().filter(|unserved| first.iter().any(|before| before.name == unserved.name)).collect())
    }
}

/// The right that is missing, of what the server said: `Permissions Violation for Publish to "..."`.
fn right(said: &str) -> String {
    format!("publish to {}", said.split('"').nth(1).unwrap_or("$JS.API.STREAM.INFO.*, $JS.API.CONSUMER.INFO.*.*"))
}

fn read(name: &str, info: &Value, wanted: &Value) -> ConsumerFacts {
    let count = |value: &Value| value.as_u64().unwrap_or(0);
    let mut wanted = wanted.clone();
    // Words for people, and a single filter has another name at the server.
    if let Some(wanted) = wanted.as_object_mut() {
        wanted.remove("description");
        wanted.remove("filter_subjects");
    }
    ConsumerFacts {
        differences: differing(name, &info["config"], &wanted),
        pending: count(&info["num_pending"]),
        in_flight: count(&info["num_ack_pending"]),
        most_in_flight: count(&info["config"]["max_ack_pending"]),
        pulls: count(&info["num_waiting"]),
        most_pulls: count(&info["config"]["max_waiting"]),
        paused: info["paused"].as_bool().unwrap_or(false),
    }
}
