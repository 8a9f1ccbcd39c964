//! Looking at lanes, and holding them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use parking_lot::Mutex;
use serde_json::{Value, json};
use wf_broker::{BoxFuture, BrokerError, Control, LaneStats, Result, Unserved};
use wf_schema::{Lane, Millis, Queue, now};

use crate::api::{ApiError, code};
use crate::broker::NatsBroker;
use crate::exchange::Unanswered;
use crate::lane_consumers::{pause, paused};
use crate::layout::Layout;

/// How long stats are good for, and the age of the oldest message among them, which takes more requests.
const FRESH: Duration = Duration::from_millis(200);
const OLDEST_FRESH: Duration = Duration::from_secs(1);

/// Lanes whose stats are kept at most.
const MAX_KEPT: usize = 10_000;

/// How often a queue's record is written when others write it at the same time.
const TRIES: usize = 8;

const STATS: &str = "say how full the lane is";
const HOLD: &str = "hold the queue";

/// The stats of the last moments.
#[derive(Default)]
pub(crate) struct StatsCache {
    kept: Mutex<HashMap<Lane, Kept>>,
    /// This user may not look into the streams.
    denied: AtomicBool,
}

#[derive(Clone, Copy)]
struct Kept {
    stats: LaneStats,
    at: Instant,
    /// When the oldest was looked for.
    looked: Instant,
}

impl StatsCache {
    fn get(&self, lane: &Lane) -> Option<Kept> {
        self.kept.lock().get(lane).copied()
    }

    fn keep(&self, lane: Lane, new: Kept) {
        let mut kept = self.kept.lock();
        if kept.len() >= MAX_KEPT {
            kept.retain(|_, old| old.at.elapsed() < OLDEST_FRESH);
        }
        if kept.len() < MAX_KEPT {
            kept.insert(lane, new);
        }
    }
}

/// What one of a lane's consumers tells.
struct Told {
    pending: u64,
    in_flight: u64,
    /// The pulls that wait for a message; `None` if none would get one, for there is no consumer or it is held.
    pulls: Option<u64>,
    /// Where its waiting messages begin, if one waits.
    waiting_from: Option<u64>,
}

impl NatsBroker {
    async fn lane_stats(&self, lane: Lane) -> Result<LaneStats> {
        let kept = self.stats.get(&lane);
        if let Some(kept) = kept.filter(|kept| kept.at.elapsed() < FRESH) {
            return Ok(kept.stats);
        }
        let (jobs_stream, later_stream) = (&self.layout.jobs, &self.layout.later);
        let (job_filters, fire_filters) = (self.layout.job_filters(&lane), vec![self.layout.fire_subject(&lane)]);
        // What this node asks for itself is known here, and better: a source has many pulls.
        let (own_pulls, own_sources) = self.flows.open(&lane, self.consuming().len());
        let (jobs, fire) = futures::future::try_join(
            self.consumer_stats(&lane, jobs_stream, &job_filters),
            self.consumer_stats(&lane, later_stream, &fire_filters),
        )
        .await
        .map_err(|error| error.into_broker(STATS))?;
        let mut stats = LaneStats {
            pending: jobs.pending + fire.pending,
            in_flight: jobs.in_flight + fire.in_flight,
            oldest: None,
            // Every source pulls what is published; what falls due it waits for too, but that tells nothing more.
            waiting: jobs.pulls.map_or(0, |pulls| pulls.saturating_sub(own_pulls as u64) + own_sources as u64),
        };
        let at = Instant::now();
        let mut looked = at;
        if stats.pending > 0 {
            match kept.filter(|kept| kept.looked.elapsed() < OLDEST_FRESH && kept.stats.pending > 0) {
                Some(kept) => (stats.oldest, looked) = (kept.stats.oldest, kept.looked),
                None => {
                    let (jobs, fire) = futures::future::join(
                        self.oldest(jobs_stream, &job_filters, jobs.waiting_from),
                        self.oldest(later_stream, &fire_filters, fire.waiting_from),
                    )
                    .await;
                    stats.oldest = [jobs, fire].into_iter().flatten().min();
                }
            }
        }
        self.stats.keep(lane, Kept { stats, at, looked });
        Ok(stats)
    }

    /// The stats of one of the two consumers of `lane`, which gets what matches `filters`.
    async fn consumer_stats(&self, lane: &Lane, stream: &str, filters: &[String]) -> Result<Told, ApiError> {
        let info = self.asker().api::<Value>(&format!("CONSUMER.INFO.{stream}.{}", Layout::consumer(lane)), &json!({})).await;
        match info {
            Ok(info) => {
                let count = |key: &str| info[key].as_u64().unwrap_or(0);
                let pending = count("num_pending");
                let in_flight = count("num_ack_pending");
                let delivered = info["delivered"]["stream_seq"].as_u64().unwrap_or(0);
                // No limit is -1.
                let most = info["config"]["max_ack_pending"].as_u64().unwrap_or(u64::MAX);
                let held = info["paused"] == true || (pending > 0 && in_flight >= most);
                Ok(Told {
                    pending,
                    in_flight,
                    pulls: (!held).then(|| count("num_waiting")),
                    waiting_from: (pending > 0).then_some(delivered + 1),
                })
            }
            // Nobody has consumed from it yet; something may wait there all the same.
            Err(error) if error.code() == Some(code::NO_CONSUMER) => {
                let pending = self.stored(stream, filters).await?;
                Ok(Told { pending, in_flight: 0, pulls: None, waiting_from: (pending > 0).then_some(1) })
            }
            Err(error) => Err(error),
        }
    }

    /// When the oldest message of `stream` at `subjects` was stored, from sequence `from` on.
    async fn oldest(&self, stream: &str, subjects: &[String], from: Option<u64>) -> Option<Millis> {
        let from = from.filter(|_| !self.stats.denied.load(Ordering::Relaxed))?;
        let firsts = subjects.iter().map(|subject| self.asker().page(stream, subject, from, 1, 1));
        let firsts = futures::future::join_all(firsts).await;
        // Not everybody may ask this; once is enough to know.
        if firsts.iter().any(|first| matches!(first, Err(ApiError::Unanswered(Unanswered::Denied(_))))) {
            self.stats.denied.store(true, Ordering::Relaxed);
        }
        firsts.into_iter().filter_map(|page| page.ok()?.0.first().map(|first| first.at)).min()
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

    fn unserved(&self) -> BoxFuture<'_, Vec<Unserved>> {
        Box::pin(self.look_for_unserved())
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
