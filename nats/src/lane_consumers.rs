//! The two consumers that each lane has: one for what is published to it, one for what falls due in it.

use std::collections::HashSet;

use parking_lot::Mutex;
use serde_json::{Value, json};
use wf_broker::{BrokerError, Result};
use wf_schema::{Lane, Millis, Queue, now};

use crate::api::{ApiError, code};
use crate::connection::Connection;
use crate::consume::millis;
use crate::factory::FactorySettings;
use crate::layout::Layout;

/// Lanes that are remembered to have consumers; when there are more, all are forgotten and looked up again.
const MAX_REMEMBERED: usize = 10_000;

/// Binds to the consumers of lanes, making those that are missing from the factory's settings.
pub(crate) struct LaneConsumers {
    layout: Layout,
    settings: FactorySettings,
    bound: Mutex<HashSet<Lane>>,
}

impl LaneConsumers {
    pub(crate) fn new(layout: Layout, settings: FactorySettings) -> Self {
        Self { layout, settings, bound: Mutex::default() }
    }

    /// Makes sure that `lane` has its consumers. What was told of them meanwhile, if anything: of the one for jobs, and of
    /// the one for later.
    pub(crate) async fn bind(&self, connection: &Connection, lane: &Lane) -> Result<[Option<Value>; 2]> {
        if self.bound.lock().contains(lane) {
            return Ok([None, None]);
        }
        let (jobs, later) = configs(&self.layout, &self.settings, lane);
        let made = futures::future::try_join(
            self.bind_one(connection, &self.layout.jobs, &jobs),
            self.bind_one(connection, &self.layout.later, &later),
        );
        let ((jobs_made, jobs), (later_made, later)) = made.await.map_err(|error| match error {
            error if error.code() == Some(code::NO_STREAM) => {
                BrokerError::fatal("consume: it is not set up; run `wf broker setup` once", error)
            }
            error => error.into_broker("consume from the lane"),
        })?;
        // Only after it was made: a pause that came before then is on record, and one that comes later sees it.
        if (jobs_made || later_made)
            && let Some(until) = paused(connection, &self.layout, &lane.queue).await?
        {
            pause(connection, &self.layout, lane, Some(until)).await?;
        }
        let mut bound = self.bound.lock();
        if bound.len() >= MAX_REMEMBERED {
            bound.clear();
        }
        bound.insert(lane.clone());
        Ok([jobs, later])
    }

    /// When the consumer of `lane` in `stream` was made, by the server's clock; later than anything if that cannot be told.
    pub(crate) async fn made_at(&self, connection: &Connection, stream: &str, lane: &Lane) -> Millis {
        let info = connection.api::<Value>(&format!("CONSUMER.INFO.{stream}.{}", Layout::consumer(lane)), &json!({})).await;
        info.ok().and_then(|info| millis(info["created"].as_str()?)).unwrap_or(Millis::MAX)
    }

    /// Forgets that `lane` has its consumers, for one was found to be gone.
    pub(crate) fn forget(&self, lane: &Lane) {
        self.bound.lock().remove(lane);
    }

    /// Finds the consumer, or makes it: whether it was made, and what is told of it.
    async fn bind_one(&self, connection: &Connection, stream: &str, config: &Value) -> Result<(bool, Option<Value>), ApiError> {
        let name = config["durable_name"].as_str().unwrap_or_default();
        let info = format!("CONSUMER.INFO.{stream}.{name}");
        match connection.api::<Value>(&info, &json!({})).await {
            Ok(info) => {
                if info["config"]["ack_wait"] != config["ack_wait"] {
                    tracing::warn!(consumer = name, stream, "the consumer's lease is not the factory's: run `wf broker setup`");
                }
                return Ok((false, Some(info)));
            }
            Err(error) if error.code() == Some(code::NO_CONSUMER) => {}
            Err(error) => return Err(error),
        }
        // Strictly: one that somebody has made meanwhile, in whatever way, is not overwritten.
        let create = json!({ "stream_name": stream, "action": "create", "config": config });
        match connection.api::<Value>(&format!("CONSUMER.CREATE.{stream}.{name}"), &create).await {
            Ok(info) => Ok((true, Some(info))),
            Err(error) if error.code() == Some(code::CONSUMER_EXISTS) => Ok((false, None)),
            Err(error) => Err(error),
        }
    }
}

/// The settings of the two consumers of `lane`.
pub(crate) fn configs(layout: &Layout, settings: &FactorySettings, lane: &Lane) -> (Value, Value) {
    let config = |filters: &[String]| {
        json!({
            "durable_name": Layout::consumer(lane),
            "description": format!("Work Factory: lane {lane}"),
            "filter_subjects": filters,
            "deliver_policy": "all",
            "replay_policy": "instant",
            "ack_policy": "explicit",
            "ack_wait": u64::try_from(settings.lease.as_nanos()).unwrap_or(i64::MAX as u64),
            // Past a limit a work queue keeps the message as an orphan. Dead letters are made by the executor.
            "max_deliver": -1,
            "max_ack_pending": settings.lane_in_flight,
            "max_waiting": settings.lane_pulls,
        })
    };
    (config(&layout.job_filters(lane)), config(&[layout.fire_subject(lane)]))
}

/// Changes the consumers of all lanes to the factory's `settings`: the names of those that changed.
pub(crate) async fn update_all(
    connection: &Connection,
    layout: &Layout,
    settings: &FactorySettings,
) -> Result<Vec<String>, ApiError> {
    let mut updated = Vec::new();
    for (stream, is_jobs) in [(&layout.jobs, true), (&layout.later, false)] {
        let mut offset = 0;
        loop {
            let list: Value = connection.api(&format!("CONSUMER.LIST.{stream}"), &json!({ "offset": offset })).await?;
            let consumers = list["consumers"].as_array().cloned().unwrap_or_default();
            for consumer in &consumers {
                let name = consumer["name"].as_str().unwrap_or_default();
                let Some(lane) = Layout::lane_of(name) else { continue };
                let (jobs, later) = configs(layout, settings, &lane);
                let wanted = if is_jobs { jobs } else { later };
                let stands = &consumer["config"];
                let changeable = ["ack_wait", "max_ack_pending"];
                if changeable.iter().all(|key| stands[key] == wanted[key]) {
                    continue;
                }
                let mut config = stands.clone();
                for key in changeable {
                    config[key] = wanted[key].clone();
                }
                let update = json!({ "stream_name": stream, "action": "update", "config": config });
                connection.api::<Value>(&format!("CONSUMER.CREATE.{stream}.{name}"), &update).await?;
                updated.push(format!("{stream}/{name}"));
            }
            offset += consumers.len();
            if consumers.is_empty() || list["total"].as_u64().is_none_or(|total| offset as u64 >= total) {
                break;
            }
        }
    }
    Ok(updated)
}

/// Until when `queue` is held, if it is.
pub(crate) async fn paused(connection: &Connection, layout: &Layout, queue: &Queue) -> Result<Option<Millis>> {
    let subject = layout.record_subject(&Layout::pause_key(queue));
    let record = connection.last(&layout.state_stream, &subject).await;
    let record = record.map_err(|error| error.into_broker("say whether the queue is held"))?;
    let until = record.and_then(|record| std::str::from_utf8(&record.payload).ok()?.parse().ok());
    Ok(until.filter(|until| *until > now()))
}

/// Holds the consumers of `lane` until `until`, or lets them go on. Consumers that are not there are left alone.
pub(crate) async fn pause(connection: &Connection, layout: &Layout, lane: &Lane, until: Option<Millis>) -> Result<()> {
    let until = until.and_then(|until| chrono::DateTime::from_timestamp_millis(i64::try_from(until).ok()?));
    let request = until.map_or_else(|| json!({}), |until| json!({ "pause_until": until.to_rfc3339() }));
    let pause = async |stream: &str| {
        let subject = format!("CONSUMER.PAUSE.{stream}.{}", Layout::consumer(lane));
        match connection.api::<Value>(&subject, &request).await {
            Ok(_) => Ok(()),
            Err(error) if matches!(error.code(), Some(code::NO_CONSUMER | code::NO_STREAM)) => Ok(()),
            Err(error) => Err(error.into_broker("hold the queue")),
        }
    };
    futures::future::try_join(pause(&layout.jobs), pause(&layout.later)).await.map(|_| ())
}
