//! Finding out whether a message was stored: what is scheduled, then the lanes, then the logs of runs.
//!
//! That something is there may be learnt from any replica. That it is not has to be learnt from the leader: a replica
//! has the stream as it was a moment ago, whole up to some message. So lanes are read from replicas in large pages, and
//! what comes after the last page is asked of the leader.

use std::collections::BTreeSet;
use std::time::Duration;

use async_nats::header::{self, HeaderName, IntoHeaderName};
use async_nats::{HeaderMap, HeaderValue};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use serde_json::{Value, json};
use wf_broker::{BoxFuture, BrokerError, Key, Result, TRACE_SLACK, Trace, Traced, Traces};
use wf_schema::{BatchId, Lane};

use crate::api::{ApiError, Start, StoredMessage, code};
use crate::broker::NatsBroker;
use crate::consume::millis;
use crate::outcome_log::{END, MESSAGE};
use crate::schedule::CANCELLED;

/// Messages and bytes of one page: what is held in memory at a time.
const PAGE: usize = 1_000;
const PAGE_BYTES: usize = 4 << 20;

/// How many batches are asked about at a time.
const AT_ONCE: usize = 16;

const TRACE: &str = "look for a message";

impl Traces for NatsBroker {
    fn trace(&self, wanted: Vec<Trace>, within: Duration) -> BoxFuture<'_, Vec<Traced>> {
        Box::pin(async move {
            let mut found = vec![None; wanted.len()];
            match tokio::time::timeout(within, self.look(&wanted, &mut found)).await {
                Ok(Ok(())) => found.iter_mut().for_each(|traced| *traced = traced.or(Some(Traced::Absent))),
                Ok(Err(error)) => match error.into_broker(TRACE) {
                    error @ BrokerError::Retryable { .. } => return Err(error),
                    error => {
                        tracing::warn!(error = &error as &dyn std::error::Error, "messages cannot be looked for");
                    }
                },
                Err(_) => tracing::warn!(within_s = within.as_secs_f32(), "there was too much to look at"),
            }
            Ok(found.into_iter().map(|traced| traced.unwrap_or(Traced::Unknown)).collect())
        })
    }
}

impl NatsBroker {
    /// Looks for `wanted` and notes what is `found`. What was not found once this is done is not there.
    async fn look(&self, wanted: &[Trace], found: &mut [Option<Traced>]) -> Result<(), ApiError> {
        // Most of what was stored has run: a look at the logs is cheaper than one at the lanes.
        self.logs(wanted, found, Asked::AnyReplica).await?;
        // From here on in the order in which messages move, so that none slips by.
        self.schedules(wanted, found).await?;
        self.lanes(wanted, found).await?;
        self.logs(wanted, found, Asked::Leader).await
    }

    async fn schedules(&self, wanted: &[Trace], found: &mut [Option<Traced>]) -> Result<(), ApiError> {
        let missing = missing(wanted, found, |trace| trace.later || trace.id.is_none());
        let looks = missing.into_iter().map(|n| async move { Ok::<_, ApiError>((n, self.scheduled(&wanted[n]).await?)) });
        let answers: Vec<_> = futures::stream::iter(looks).buffered(AT_ONCE).try_collect().await?;
        for (n, traced) in answers {
            found[n] = traced;
        }
        Ok(())
    }

    /// Whether it is scheduled. One that was cancelled was stored, and will not come.
    async fn scheduled(&self, trace: &Trace) -> Result<Option<Traced>, ApiError> {
        let name = trace.id.clone().unwrap_or_else(|| trace.batch.to_string().into());
        let Ok(key) = Key::new(&name) else { return Ok(None) };
        let subject = self.layout.at_subject(&key);
        let is_cancelled = |message: &StoredMessage| message.headers.get(CANCELLED).is_some();
        match self.ask_leader(&self.layout.later, json!({ "last_by_subj": subject })).await? {
            Some(message) if !is_cancelled(&message) => return Ok(Some(Traced::Stored)),
            Some(_) if trace.id.is_some() => return Ok(Some(Traced::Ended)),
            _ if trace.id.is_some() => return Ok(None),
            _ => {}
        }
        let (filter, mut from) = (format!("{subject}.>"), 1);
        while let Some(message) = self.next(&self.layout.later, &filter, from).await? {
            if !is_cancelled(&message) {
                return Ok(Some(Traced::Stored));
            }
            from = message.sequence + 1;
        }
        Ok(None)
    }

    async fn lanes(&self, wanted: &[Trace], found: &mut [Option<Traced>]) -> Result<(), ApiError> {
        let lanes: BTreeSet<&Lane> = wanted.iter().map(|trace| &trace.lane).collect();
        for lane in lanes {
            let of_lane = |trace: &Trace| trace.lane == *lane;
            let (jobs, id) = (self.layout.job_subject(lane), |headers: &HeaderMap| named(headers, header::NATS_MESSAGE_ID));
            let now = missing(wanted, found, |trace| of_lane(trace) && !trace.later);
            self.scan(&self.layout.jobs, &jobs, wanted, &now, found, id).await?;
            let (fired, key) = (self.layout.fire_subject(lane), |headers: &HeaderMap| {
                let subject = named(headers, header::NATS_SCHEDULER)?;
                self.layout.schedule_key(&subject).map(str::to_owned)
            });
            let later = missing(wanted, found, |trace| of_lane(trace) && (trace.later || trace.id.is_none()));
            self.scan(&self.layout.later, &fired, wanted, &later, found, key).await?;
        }
        Ok(())
    }

    /// Reads `subject` from where the first of `missing` may lie, until all of them are found or all is read.
    async fn scan(
        &self,
        stream: &str,
        subject: &str,
        wanted: &[Trace],
        missing: &[usize],
        found: &mut [Option<Traced>],
        name: impl Fn(&HeaderMap) -> Option<String>,
    ) -> Result<(), ApiError> {
        let Some(since) = missing.iter().map(|n| wanted[*n].since).min() else { return Ok(()) };
        let mut missing = missing.to_vec();
        let mut note = |message: &StoredMessage| {
            let Some(name) = name(&message.headers) else { return false };
            missing.retain(|n| {
                let is_it = wanted[*n].is_called(&name);
                if is_it {
                    found[*n] = Some(Traced::Stored);
                }
                !is_it
            });
            missing.is_empty()
        };
        let mut from = Start::Time(since.saturating_sub(TRACE_SLACK));
        loop {
            let (page, more) = self.asker().page(stream, subject, from, PAGE, PAGE_BYTES).await?;
            for message in &page {
                from = Start::Sequence(message.sequence + 1);
                if note(message) {
                    return Ok(());
                }
            }
            if more && !page.is_empty() {
                continue;
            }
            // The replica that answered may be behind.
            let mut request = from.request();
            request["next_by_subj"] = subject.into();
            let Some(message) = self.ask_leader(stream, request).await? else { return Ok(()) };
            from = Start::Sequence(message.sequence + 1);
            if note(&message) {
                return Ok(());
            }
        }
    }

    async fn logs(&self, wanted: &[Trace], found: &mut [Option<Traced>], asked: Asked) -> Result<(), ApiError> {
        // Runs that have ended say nothing of what else there is of a batch, so these come last.
        let wants = |trace: &Trace| trace.id.is_some() || asked == Asked::Leader;
        let missing = missing(wanted, found, wants);
        let batches: BTreeSet<BatchId> = missing.iter().map(|n| wanted[*n].batch).collect();
        let looks = batches.into_iter().map(|batch| async move { Ok::<_, ApiError>((batch, self.runs_of(batch, asked).await?)) });
        let mut looks = futures::stream::iter(looks).buffered(AT_ONCE);
        while let Some((batch, runs)) = looks.try_next().await? {
            for n in missing.iter().filter(|n| wanted[**n].batch == batch) {
                let trace = &wanted[*n];
                let mut of_it = runs.iter().filter(|run| trace.id.as_ref().is_none_or(|id| **id == *run.message)).peekable();
                if of_it.peek().is_some() {
                    // One without an end is of a message that was settled a moment ago, or whose executor died then.
                    found[*n] = Some(if of_it.all(|run| run.ended) { Traced::Ended } else { Traced::Stored });
                }
                if trace.id.is_none() && found[*n].is_some() {
                    // Nothing of the batch is stored: that was looked up before.
                    found[*n] = Some(Traced::Ended);
                }
            }
        }
        Ok(())
    }

    /// The runs of `batch` whose logs are there.
    async fn runs_of(&self, batch: BatchId, asked: Asked) -> Result<Vec<Run>, ApiError> {
        let (stream, filter) = (&self.layout.runs, self.layout.runs_filter(batch));
        let run = |message: &StoredMessage| Run {
            message: named(&message.headers, MESSAGE).unwrap_or_default(),
            ended: message.headers.get(END).is_some(),
        };
        let mut runs = Vec::new();
        let mut from = 1;
        loop {
            let page = match asked {
                Asked::Leader => self.next(stream, &filter, from).await?.into_iter().collect(),
                Asked::AnyReplica => self.asker().page(stream, &filter, Start::Sequence(from), PAGE, PAGE_BYTES).await?.0,
            };
            let Some(last) = page.last() else { return Ok(runs) };
            from = last.sequence + 1;
            runs.extend(page.iter().map(run));
        }
    }

    /// The first message at subjects that match `filter`, from `sequence` on, as the leader has it.
    async fn next(&self, stream: &str, filter: &str, sequence: u64) -> Result<Option<StoredMessage>, ApiError> {
        self.ask_leader(stream, json!({ "seq": sequence, "next_by_subj": filter })).await
    }

    /// A message of `stream`, as its leader has it.
    pub(crate) async fn ask_leader(&self, stream: &str, request: Value) -> Result<Option<StoredMessage>, ApiError> {
        let answer: Result<Value, _> = self.asker().api(&format!("STREAM.MSG.GET.{stream}"), &request).await;
        match answer {
            Ok(answer) => Ok(Some(from_leader(&answer["message"]).ok_or_else(|| ApiError::Status("no message".into()))?)),
            Err(error) if error.code() == Some(code::NO_MESSAGE) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// A log, as far as it matters here.
struct Run {
    message: String,
    ended: bool,
}

/// Who is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    /// Whoever answers, who may be behind.
    AnyReplica,
    /// Who knows.
    Leader,
}

/// The places of those that were not found yet and that `wants`.
fn missing(wanted: &[Trace], found: &[Option<Traced>], wants: impl Fn(&Trace) -> bool) -> Vec<usize> {
    let missing = wanted.iter().zip(found).enumerate().filter(|(_, (trace, found))| found.is_none() && wants(trace));
    missing.map(|(n, _)| n).collect()
}

fn named(headers: &HeaderMap, name: impl IntoHeaderName) -> Option<String> {
    headers.get(name).map(|value| value.as_str().to_owned())
}

/// The message in a leader's answer, without its payload.
fn from_leader(message: &Value) -> Option<StoredMessage> {
    let headers = match message["hdrs"].as_str() {
        Some(encoded) => headers(&String::from_utf8(BASE64_STANDARD.decode(encoded).ok()?).ok()?)?,
        None => HeaderMap::new(),
    };
    Some(StoredMessage {
        subject: message["subject"].as_str()?.to_owned(),
        sequence: message["seq"].as_u64()?,
        at: millis(message["time"].as_str()?)?,
        headers,
        payload: Bytes::new(),
    })
}

/// Reads headers as they go over the wire: a line with the protocol's version, then a line for each.
fn headers(text: &str) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    for line in text.split("\r\n").skip(1).take_while(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':')?;
        headers.insert(name.parse::<HeaderName>().ok()?, value.trim().parse::<HeaderValue>().ok()?);
    }
    Some(headers)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_leaders_answer_is_read() {
        let encoded = BASE64_STANDARD.encode("NATS/1.0\r\nNats-Msg-Id: a:b\r\nWf-End:\r\n\r\n");
        let answer = json!({ "subject": "s", "seq": 7, "time": "2026-11-28T12:00:00.5Z", "hdrs": encoded, "data": "eA==" });
        let message = from_leader(&answer).unwrap();
        assert_eq!((message.sequence, named(&message.headers, header::NATS_MESSAGE_ID).unwrap().as_str()), (7, "a:b"));
        assert_eq!(named(&message.headers, "Wf-End"), Some(String::new()));
        assert!(from_leader(&json!({ "subject": "s", "seq": 7, "time": "2026-11-28T12:00:00Z" })).is_some());
        assert!(from_leader(&json!({})).is_none());
        assert!(from_leader(&json!({ "subject": "s", "seq": 7, "time": "2026-11-28T12:00:00Z", "hdrs": "?" })).is_none());
    }
}
