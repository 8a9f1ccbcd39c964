//! Orphans: messages that their consumer delivers no more although nobody has acknowledged them.
//!
//! The factory's consumers deliver without end, so there are none, until somebody changes a consumer: past
//! `max_deliver` a work queue keeps a message for ever and gives it to nobody. Such a message becomes a dead letter,
//! as it is, with its reason; then, and not before, it is deleted. Whoever serves the lane does that: at once when the
//! server says that it has given one up, and now and then for what was not heard of. A letter is named by its message,
//! so of several who find the same orphan, or of one who comes to it again, there is one letter.
//!
//! Messages at names that no lane can have (`wf.jobs.mail:out`) are orphans from the start: whoever serves any lane makes
//! dead letters of them.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use async_nats::Message;
use futures::StreamExt as _;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::sleep;
use wf_schema::{DeadLetter, Failure, Lane, MAX_QUEUE_LEN, Remains};

use crate::api::{ApiError, StoredMessage, code};
use crate::connection::Connection;
use crate::exchange::Unanswered;
use crate::layout::Layout;
use crate::publish::with_id;
use crate::source::Flows;
use crate::unserved::{is_pattern, subjects};

/// Leases from one look around to the next. What looks like an orphan twice is one: a message that was acknowledged a
/// moment ago may still be seen.
const LEASES: u32 = 2;
/// The most messages of a lane that are looked at in one go.
const MOST: usize = 100;
/// And their bytes.
const MOST_BYTES: usize = 8 << 20;
/// What a letter has beside its message, at most, in bytes.
const BESIDE: usize = 4 << 10;
/// The most messages at names that are no lane's that are buried in one go: the next look goes on.
const MOST_MISNAMED: usize = 1_000;

/// Sweeps the orphans of the lanes that a broker serves.
pub(crate) struct Orphans {
    pub(crate) layout: Layout,
    pub(crate) asker: Arc<Connection>,
    pub(crate) listener: Arc<Connection>,
    pub(crate) flows: Arc<Flows>,
    pub(crate) lease: Duration,
    /// Whose name is on the letters.
    pub(crate) name: String,
    /// What looked like an orphan the last time: stream and sequence.
    pub(crate) suspects: HashSet<(String, u64)>,
    /// This user may not see at which names there are messages.
    pub(crate) names_denied: bool,
}

/// What the server says when it gives a message up.
#[derive(Deserialize)]
struct Advisory {
    stream: String,
    consumer: String,
    stream_seq: u64,
    #[serde(default)]
    deliveries: u64,
}

impl Orphans {
    /// Sweeps for ever; ends when this user may not.
    pub(crate) async fn keep_sweeping(mut self) {
        match self.sweep().await {
            Err(ApiError::Unanswered(Unanswered::Denied(said))) => {
                tracing::info!(said, "messages past max_deliver are left to those who may sweep them");
            }
            Err(ApiError::Unanswered(Unanswered::Closed)) | Ok(()) => {}
            Err(error) => tracing::warn!(%error, "messages past max_deliver are not swept any more"),
        }
    }

    /// Until the connection is closed.
    async fn sweep(&mut self) -> Result<(), ApiError> {
        let subject = |what: &str, stream: &str| format!("$JS.EVENT.ADVISORY.CONSUMER.{what}.{stream}.*");
        let closed = |_| ApiError::Unanswered(Unanswered::Closed);
        let mut advisories = Vec::new();
        for stream in [self.layout.jobs.clone(), self.layout.later.clone()] {
            for what in ["MAX_DELIVERIES", "MSG_TERMINATED"] {
                advisories.push(self.listener.client.subscribe(subject(what, &stream)).await.map_err(closed)?);
            }
        }
        let mut advisories = futures::stream::select_all(advisories);
        loop {
            // A quarter more or less: those who serve one lane are not to look together.
            let pause = (self.lease * LEASES).mul_f64(0.75 + fastrand::f64() / 2.0);
            let looked = tokio::select! {
                advisory = advisories.next() => match advisory {
                    Some(advisory) => self.told(&advisory).await,
                    None => return Ok(()),
                },
                () = sleep(pause) => self.look().await,
            };
            match looked {
                Err(error @ ApiError::Unanswered(Unanswered::Denied(_) | Unanswered::Closed)) => return Err(error),
                // The next look comes to it again.
                Err(error) => tracing::debug!(%error, "orphans could not be swept"),
                Ok(()) => {}
            }
        }
    }

    /// The server has given a message up.
    async fn told(&self, message: &Message) -> Result<(), ApiError> {
        let Ok(Advisory { stream, consumer, stream_seq, deliveries }) = serde_json::from_slice(&message.payload) else {
            return Ok(());
        };
        let Some(lane) = Layout::lane_of(&consumer) else { return Ok(()) };
        // All who serve the lane were told. One of them is first.
        sleep(Duration::from_millis(fastrand::u64(0..500))).await;
        match self.asker.at(&stream, stream_seq).await? {
            Some(found) => {
                let why = if message.subject.contains("MSG_TERMINATED") { "terminated by somebody" } else { "past max_deliver" };
                self.bury(&stream, &lane, found, &format!("{why} after {deliveries} deliveries")).await
            }
            None => {
                // A work queue drops what somebody terminates: there is nothing left to bury.
                tracing::warn!(stream, stream_seq, %lane, deliveries, "a message that was given up or terminated is gone");
                Ok(())
            }
        }
    }

    /// Looks at what lies behind where the consumers are.
    async fn look(&mut self) -> Result<(), ApiError> {
        let before = std::mem::take(&mut self.suspects);
        for lane in self.flows.lanes() {
            for (stream, filters) in [
                (self.layout.jobs.clone(), self.layout.job_filters(&lane)),
                (self.layout.later.clone(), vec![self.layout.fire_subject(&lane)]),
            ] {
                for found in self.behind(&stream, &lane, &filters).await? {
                    let suspect = (stream.clone(), found.sequence);
                    if before.contains(&suspect) {
                        self.bury(&stream, &lane, found, "its consumer does not deliver it any more").await?;
                    } else {
                        self.suspects.insert(suspect);
                    }
                }
            }
        }
        if self.names_denied {
            return Ok(());
        }
        match self.bury_misnamed().await {
            Err(ApiError::Unanswered(Unanswered::Denied(said))) => {
                tracing::info!(said, "messages at names that no executor can serve are left to those who may see them");
                self.names_denied = true;
                Ok(())
            }
            done => done,
        }
    }

    /// Makes dead letters of what was published to names that are no lane's. Nobody can ever serve them.
    async fn bury_misnamed(&self) -> Result<(), ApiError> {
        let mut left = MOST_MISNAMED;
        for (stream, filter) in self.layout.lane_subjects() {
            let names = subjects(&self.asker, stream, &filter).await?.into_keys();
            // Those of patterns are left to an operator: they cannot be found without reading all lanes.
            for name in names.filter(|name| self.layout.lane_at(name).is_none() && !is_pattern(name)) {
                if left == 0 {
                    return Ok(());
                }
                let (found, _) = self.asker.page(stream, &name, 1, MOST.min(left), MOST_BYTES).await?;
                // A name may look like a filter of others.
                for message in found.into_iter().filter(|message| message.subject == name) {
                    left -= 1;
                    self.bury_as(stream, &Lane::default(), message, misnamed(&name)).await?;
                }
            }
        }
        Ok(())
    }

    /// Messages of `stream` that are there although the consumer of `lane` is through with them.
    async fn behind(&self, stream: &str, lane: &Lane, filters: &[String]) -> Result<Vec<StoredMessage>, ApiError> {
        let info = self.asker.api::<Value>(&format!("CONSUMER.INFO.{stream}.{}", Layout::consumer(lane)), &json!({})).await;
        let info = match info {
            Err(error) if matches!(error.code(), Some(code::NO_CONSUMER | code::NO_STREAM)) => return Ok(Vec::new()),
            info => info?,
        };
        // Up to here all are acknowledged, or given up. What is given up does not move the floor, and while something is
        // in flight it may be owned by anybody: so mostly this finds something only once the lane has come to rest.
        let through = match info["num_ack_pending"].as_u64() {
            Some(0) => info["delivered"]["stream_seq"].as_u64(),
            _ => info["ack_floor"]["stream_seq"].as_u64(),
        };
        let through = through.unwrap_or(0);
        let mut behind = Vec::new();
        for filter in filters.iter().filter(|_| through > 0) {
            let (found, _) = self.asker.page(stream, filter, 1, MOST, MOST_BYTES).await?;
            behind.extend(found.into_iter().filter(|message| message.sequence <= through));
        }
        Ok(behind)
    }

    /// Makes a dead letter of `found`, and then deletes it: in this order, or a crash in between would lose it.
    async fn bury(&self, stream: &str, lane: &Lane, found: StoredMessage, why: &str) -> Result<(), ApiError> {
        let failure = Failure::new("undeliverable", format!("{why}; it was message {} of {stream}", found.sequence));
        self.bury_as(stream, lane, found, failure).await
    }

    /// The same, for the reason that `failure` gives.
    async fn bury_as(&self, stream: &str, lane: &Lane, found: StoredMessage, failure: Failure) -> Result<(), ApiError> {
        let most = self.asker.client.max_payload().saturating_sub(BESIDE);
        let why = failure.message.clone();
        let bytes = found.payload.slice(..found.payload.len().min(most));
        let remains = Remains::Raw { failure, bytes };
        let letter = DeadLetter { lane: lane.clone(), at: wf_schema::now(), executor: self.name.clone(), remains }.encode();
        let id: Arc<str> = format!("orphan.{stream}.{}.{}", found.sequence, found.at).into();
        let Ok(headers) = with_id(&id) else { return Ok(()) };
        self.asker.store(&self.layout.dead_subject(&lane.queue), headers, letter).await?;
        tracing::warn!(%lane, stream, sequence = found.sequence, why, "an orphaned message becomes a dead letter");
        let request = json!({ "seq": found.sequence, "no_erase": true });
        match self.asker.api::<Value>(&format!("STREAM.MSG.DELETE.{stream}"), &request).await {
            // Somebody else did, or whoever had it last has acknowledged it after all.
            Err(error) if matches!(error.code(), Some(code::NO_SEQUENCE | code::NO_MESSAGE | code::STORE)) => Ok(()),
            deleted => deleted.map(|_| ()),
        }
    }
}

/// Why a message at `subject` is a dead letter.
fn misnamed(subject: &str) -> Failure {
    let shown: String = subject.chars().take(200).collect();
    let why = format!(
        "`{shown}` names no lane, so no executor can serve it: expected a queue of 1 to {MAX_QUEUE_LEN} of A-Z a-z 0-9 _ - and a \
         priority of high, normal or low"
    );
    Failure::new("invalid_queue", why)
}
