//! Looking at lanes, and holding them.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use parking_lot::Mutex;
use serde_json::{Value, json};
use wf_broker::{BoxFuture, BrokerError, Control, LaneStats, Result};
use wf_schema::{Lane, Millis, Queue, now};

use crate::api::{ApiError, code};
use crate::broker::NatsBroker;
use crate::lane_consumers::{pause, paused};
use crate::layout::Layout;

/// How long stats are good for.
const FRESH: Duration = Duration::from_secs(1);

/// Lanes whose stats are kept at most.
const MAX_KEPT: usize = 10_000;

/// How often a queue's record is written when others write it at the same time.
const TRIES: usize = 8;

const STATS: &str = "say how full the lane is";
const HOLD: &str = "hold the queue";

/// The stats of the last second.
#[derive(Default)]
pub(crate) struct StatsCache(Mutex<HashMap<Lane, (Instant, LaneStats)>>);

impl StatsCache {
    fn fresh(&self, lane: &Lane) -> Option<LaneStats> {
        self.0.lock().get(lane).filter(|(at, _)| at.elapsed() < FRESH).map(|(_, stats)| *stats)
    }

    fn keep(&self, lane: Lane, stats: LaneStats) {
        let mut kept = self.0.lock();
        if kept.len() >= MAX_KEPT {
            kept.retain(|_, (at, _)| at.elapsed() < FRESH);
        }
        if kept.len() < MAX_KEPT {
            kept.insert(lane, (Instant::now(), stats));
        }
    }
}

/// What one of a lane's consumers tells.
struct Told {
    stats: LaneStats,
    /// Where its waiting messages begin, if one waits.
    waiting_from: Option<u64>,
}

impl NatsBroker {
    async fn lane_stats(&self, lane: Lane) -> Result<LaneStats> {
        if let Some(stats) = self.stats.fresh(&lane) {
            return Ok(stats);
        }
        let (jobs, fire) = (self.layout.job_filters(&lane), vec![self.layout.fire_subject(&lane)]);
        let (jobs, fire) = futures::future::try_join(
            self.consumer_stats(&lane, &self.layout.jobs, &jobs),
            self.consumer_stats(&lane, &self.layout.later, &fire),
        )
        .await
        .map_err(|error| error.into_broker(STATS))?;
        let stats = LaneStats {
            pending: jobs.pending + fire.pending,
            in_flight: jobs.in_flight + fire.in_flight,
            oldest: [jobs.oldest, fire.oldest].into_iter().flatten().min(),
        };
        self.stats.keep(lane, stats);
        Ok(stats)
    }

    /// The stats of one of the two consumers of `lane`, which gets what matches `filters`.
    async fn consumer_stats(&self, lane: &Lane, stream: &str, filters: &[String]) -> Result<LaneStats, ApiError> {
        let info = self.asker().api::<Value>(&format!("CONSUMER.INFO.{stream}.{}", Layout::consumer(lane)), &json!({})).await;
        let Told { mut stats, waiting_from } = match info {
            Ok(info) => {
                let count = |key: &str| info[key].as_u64().unwrap_or(0);
                let pending = count("num_pending");
                let delivered = info["delivered"]["stream_seq"].as_u64().unwrap_or(0);
                Told {
                    stats: LaneStats { pending, in_flight: count("num_ack_pending"), oldest: None },
                    waiting_from: (pending > 0).then_some(delivered + 1),
                }
            }
            // Nobody has consumed from it yet; something may wait there all the same.
            Err(error) if error.code() == Some(code::NO_CONSUMER) => {
                let pending = self.stored(stream, filters).await?;
                let stats = LaneStats { pending, ..LaneStats::default() };
                Told { stats, waiting_from: (pending > 0).then_some(1) }
            }
            Err(error) => return Err(error),
        };
        if let Some(from) = waiting_from {
            let firsts = filters.iter().map(|filter| self.asker().page(stream, filter, from, 1, 1));
            // Not everybody may ask this.
            let firsts = futures::future::join_all(firsts).await;
            stats.oldest = firsts.into_iter().filter_map(|page| page.ok()?.0.first().map(|first| first.at)).min();
        }
        Ok(stats)
    }

    /// How many messages `stream` has at `subjects`.
    async fn stored(&self, stream: &str, subjects: &[String]) -> Result<u64, ApiError> {
        let mut stored = 0;
        for subject in subjects {
            let request = json!({ "subjects_filter": subject });
            let info = self.asker().api::<Value>(&format!("STREAM.INFO.{stream}"), &request).await?;
            stored += info["state"]["subjects"][subject].as_u64().unwrap_or(0);
        }
        Ok(stored)
    }

    async fn pause_queue(&self, queue: Queue, until: Millis) -> Result<()> {
        // First the record, then the consumers that are there: one made in between sees the record.
        let seconds = until.saturating_sub(now()).div_ceil(1_000);
        if seconds == 0 {
            return self.resume_queue(queue).await;
        }
        let mut headers = HeaderMap::new();
        headers.insert(async_nats::header::NATS_MESSAGE_TTL, format!("{}s", seconds.min(3_153_600_000)));
        self.write_pause(&queue, headers, until.to_string()).await?;
        self.pause_lanes(&queue, Some(until)).await
    }

    async fn resume_queue(&self, queue: Queue) -> Result<()> {
        let mut headers = HeaderMap::new();
        headers.insert("KV-Operation", "DEL");
        headers.insert(async_nats::header::NATS_MESSAGE_TTL, "60s");
        self.write_pause(&queue, headers, String::new()).await?;
        self.pause_lanes(&queue, None).await
    }

    /// Writes the record that holds `queue`, whoever else does so at the same time: the last one counts.
    async fn write_pause(&self, queue: &Queue, headers: HeaderMap, text: String) -> Result<()> {
        let subject = self.layout.record_subject(&Layout::pause_key(queue));
        let stream = &self.layout.state_stream;
        for _ in 0..TRIES {
            let last = self.asker().last(stream, &subject).await.map_err(|error| error.into_broker(HOLD))?;
            let expected = last.map_or(0, |last| last.sequence);
            match self.asker().store_at(stream, &subject, expected, headers.clone(), text.clone().into()).await {
                Err(error) if error.code() == Some(code::WRONG_LAST) => {}
                written => return written.map(|_| ()).map_err(|error| error.into_broker(HOLD)),
            }
        }
        Err(BrokerError::retryable(HOLD, "others hold it or let it go at the same time"))
    }

    async fn pause_lanes(&self, queue: &Queue, until: Option<Millis>) -> Result<()> {
        let lanes = Lane::of(queue);
        let paused = lanes.iter().map(|lane| pause(self.asker(), &self.layout, lane, until));
        futures::future::try_join_all(paused).await.map(|_| ())
    }
}

impl Control for NatsBroker {
    fn stats(&self, lane: Lane) -> BoxFuture<'_, LaneStats> {
        Box::pin(self.lane_stats(lane))
    }

    fn pause(&self, queue: Queue, until: Millis) -> BoxFuture<'_, ()> {
        Box::pin(self.pause_queue(queue, until))
    }

    fn resume(&self, queue: Queue) -> BoxFuture<'_, ()> {
        Box::pin(self.resume_queue(queue))
    }

    fn paused(&self, queue: Queue) -> BoxFuture<'_, Option<Millis>> {
        Box::pin(async move { paused(self.asker(), &self.layout, &queue).await })
    }
}
