//! What waits where nobody asks for it: lanes without executors, and names that are no lane's.
//!
//! The streams say which subjects they have messages at, which is cheap for those of lanes: `wf.jobs.>`, `wf.fire.>`. Each
//! lane's consumer says whether anybody asks.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use futures::StreamExt as _;
use serde_json::{Value, json};
use wf_broker::{Result, Unserved};
use wf_schema::{Lane, Millis, Queue, now};

use crate::api::{ApiError, code};
use crate::broker::NatsBroker;
use crate::connection::Connection;
use crate::exchange::Unanswered;
use crate::layout::Layout;

/// Lanes whose consumers are asked about at most: those with the most messages.
const MOST_LANES: usize = 500;
/// Names that are no lane's that are told at most.
const MOST_NAMES: usize = 100;
/// Consumers that are asked about at once.
const AT_ONCE: usize = 16;

const WHAT: &str = "look for lanes that nobody serves";

impl NatsBroker {
    /// What waits where nobody asks for it.
    pub(crate) async fn look_for_unserved(&self) -> Result<Vec<Unserved>> {
        let mut found = unserved(self.asker(), &self.layout).await.map_err(|error| error.into_broker(WHAT))?;
        // What this node consumes from is served, also while it has no request open.
        let own = self.flows.lanes();
        found.retain(|unserved| unserved.lane.as_ref().is_none_or(|lane| !own.contains(lane)));
        Ok(found)
    }
}

/// A lane with messages in one of the streams.
struct Used {
    stream: String,
    lane: Lane,
    subjects: Vec<String>,
    messages: u64,
}

/// The subjects that match `filter` and have messages in `stream`, with how many. The server tells 100,000 at most.
pub(crate) async fn subjects(connection: &Connection, stream: &str, filter: &str) -> Result<BTreeMap<String, u64>, ApiError> {
    let request = json!({ "subjects_filter": filter });
    let info = connection.api::<Value>(&format!("STREAM.INFO.{stream}"), &request).await?;
    let subjects = info["state"]["subjects"].as_object().into_iter().flatten();
    Ok(subjects.map(|(subject, messages)| (subject.clone(), messages.as_u64().unwrap_or(0))).collect())
}

/// What waits where nobody asks for it, at this moment.
pub(crate) async fn unserved(connection: &Connection, layout: &Layout) -> Result<Vec<Unserved>, ApiError> {
    let mut found: BTreeMap<String, Unserved> = BTreeMap::new();
    let mut used: Vec<Used> = Vec::new();
    for (stream, filter) in layout.lane_subjects() {
        let mut of_stream: BTreeMap<String, Used> = BTreeMap::new();
        for (subject, messages) in subjects(connection, stream, &filter).await? {
            match layout.lane_at(&subject) {
                Some(lane) => {
                    // A subject has a short and a long form.
                    let empty = || Used { stream: stream.to_owned(), lane: lane.clone(), subjects: Vec::new(), messages: 0 };
                    let used = of_stream.entry(lane.to_string()).or_insert_with(empty);
                    used.subjects.push(subject);
                    used.messages += messages;
                }
                None if found.len() < MOST_NAMES => {
                    let oldest = oldest(connection, stream, std::slice::from_ref(&subject)).await?;
                    found.insert(subject.clone(), Unserved { name: subject, lane: None, messages, oldest });
                }
                None => {}
            }
        }
        used.extend(of_stream.into_values());
    }
    used.sort_by_key(|used| Reverse(used.messages));
    used.truncate(MOST_LANES);
    let asked = used.into_iter().map(|used| if_unserved(connection, layout, used));
    let asked: Vec<Result<Option<Unserved>, ApiError>> = futures::stream::iter(asked).buffered(AT_ONCE).collect().await;
    for unserved in asked {
        let Some(unserved) = unserved? else { continue };
        match found.get_mut(&unserved.name) {
            Some(both) => {
                both.messages += unserved.messages;
                both.oldest = [both.oldest, unserved.oldest].into_iter().flatten().min();
            }
            None => drop(found.insert(unserved.name.clone(), unserved)),
        }
    }
    Ok(found.into_values().collect())
}

/// What there is to say of a lane with messages, if nobody asks for them.
async fn if_unserved(connection: &Connection, layout: &Layout, used: Used) -> Result<Option<Unserved>, ApiError> {
    let Used { stream, lane, subjects, messages } = used;
    if is_served(connection, layout, &stream, &lane).await? {
        return Ok(None);
    }
    let oldest = oldest(connection, &stream, &subjects).await?;
    Ok(Some(Unserved { name: lane.to_string(), lane: Some(lane), messages, oldest }))
}

/// Whether somebody asks for messages of `lane`, or holds some, or it is held on purpose.
async fn is_served(connection: &Connection, layout: &Layout, stream: &str, lane: &Lane) -> Result<bool, ApiError> {
    match connection.api::<Value>(&format!("CONSUMER.INFO.{stream}.{}", Layout::consumer(lane)), &json!({})).await {
        Ok(info) => {
            let some = |key: &str| info[key].as_u64().unwrap_or(0) > 0;
            Ok(some("num_waiting") || some("num_ack_pending") || info["paused"] == true)
        }
        // A lane that is held before anybody has served it has no consumer that could say so.
        Err(error) if error.code() == Some(code::NO_CONSUMER) => Ok(is_held(connection, layout, &lane.queue).await?),
        Err(error) => Err(error),
    }
}

/// Whether `subject` is a pattern as well as a name. The server stores messages there too (with an error to their sender),
/// but whoever asks for them by name is answered with those of other lanes.
pub(crate) fn is_pattern(subject: &str) -> bool {
    subject.split('.').any(|token| matches!(token, "*" | ">"))
}

/// Whether `queue` is held on purpose.
async fn is_held(connection: &Connection, layout: &Layout, queue: &Queue) -> Result<bool, ApiError> {
    let record = connection.last(&layout.state_stream, &layout.record_subject(&Layout::pause_key(queue))).await?;
    let until = record.and_then(|record| std::str::from_utf8(&record.payload).ok()?.parse::<Millis>().ok());
    Ok(until.is_some_and(|until| until > now()))
}

/// When the oldest message at any of `subjects` was stored, if this user may see it.
async fn oldest(connection: &Connection, stream: &str, subjects: &[String]) -> Result<Option<Millis>, ApiError> {
    let mut oldest: Option<Millis> = None;
    for subject in subjects.iter().filter(|subject| !is_pattern(subject)) {
        match connection.page(stream, subject, 1, 1, 1).await {
            Ok((found, _)) => oldest = oldest.into_iter().chain(found.first().map(|message| message.at)).min(),
            Err(ApiError::Unanswered(Unanswered::Denied(_))) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    Ok(oldest)
}
