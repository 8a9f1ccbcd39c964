//! JetStream's own requests and answers.

use std::time::Duration;

use async_nats::{HeaderMap, HeaderValue, Message, header};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use wf_broker::BrokerError;

use crate::connection::{Connection, part};
use crate::consume::nanos;
use crate::exchange::{Answered, NobodyThere, Part, Unanswered};

/// The codes of the answers that mean something to us.
pub(crate) mod code {
    /// The consumer is not there.
    pub(crate) const NO_CONSUMER: u64 = 10_014;
    /// JetStream is not enabled for the account.
    pub(crate) const NOT_FOR_ACCOUNT: u64 = 10_039;
    /// There is no such message.
    pub(crate) const NO_MESSAGE: u64 = 10_037;
    /// There was such a message, but it is gone.
    pub(crate) const NO_SEQUENCE: u64 = 10_043;
    /// The store failed; for a sequence that never was, too.
    pub(crate) const STORE: u64 = 10_057;
    /// There is a stream of that name already, with other settings.
    pub(crate) const STREAM_DIFFERS: u64 = 10_058;
    /// The stream is not there.
    pub(crate) const NO_STREAM: u64 = 10_059;
    /// A compare-and-set found another value.
    pub(crate) const WRONG_LAST: u64 = 10_071;
    /// JetStream is not enabled.
    pub(crate) const NOT_ENABLED: u64 = 10_076;
    /// There is no room.
    pub(crate) const NO_ROOM: u64 = 10_077;
    /// There is a consumer of that name already, with other settings.
    pub(crate) const CONSUMER_EXISTS: u64 = 10_148;
    /// In a cluster: a message of the same id is being stored right now.
    pub(crate) const SAME_ID_UNDER_WAY: u64 = 10_158;
    /// In a cluster: another compare-and-set of the same subject is under way, and may yet fail.
    pub(crate) const WRITE_UNDER_WAY: u64 = 10_164;
    /// Some of an atomic batch did not arrive, or too many batches are open.
    pub(crate) const BATCH_INCOMPLETE: u64 = 10_176;
    /// A message of an atomic batch was stored before.
    pub(crate) const BATCH_DUPLICATE: u64 = 10_201;
    /// No server has room for a stream or a copy of it now, or is there at all.
    const NO_PEERS: u64 = 10_005;

    /// Whether a refusal with this code is only for now, although its status says that the request is wrong.
    pub(crate) fn passes(code: u64) -> bool {
        matches!(code, BATCH_INCOMPLETE | SAME_ID_UNDER_WAY | WRITE_UNDER_WAY | NO_PEERS)
    }
}

/// How often something is stored again that met another attempt at it under way.
const TRIES: u32 = 20;

/// Why JetStream did not do as asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    #[error("the server answered {code}: {said}")]
    Refused { status: u64, code: u64, said: String },
    #[error("no answer")]
    Unanswered(#[from] Unanswered),
    #[error("the server's answer cannot be read")]
    Unreadable(#[source] serde_json::Error),
    #[error("the server answered {0}")]
    Status(String),
}

impl ApiError {
    /// The code of the server's refusal.
    pub(crate) fn code(&self) -> Option<u64> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// Whether the same may work later without anybody changing anything.
    pub(crate) fn is_retryable(&self) -> bool {
        match self {
            Self::Refused { code: code::WRONG_LAST | code::NOT_FOR_ACCOUNT | code::NOT_ENABLED, .. } | Self::Unreadable(_) => {
                false
            }
            // Other 4xx are requests that are wrong and stay wrong.
            Self::Refused { status, code, .. } => *status >= 500 || matches!(status, 408 | 429) || code::passes(*code),
            Self::Status(_) => true,
            Self::Unanswered(error) => error.is_retryable(),
        }
    }

    /// The error of the contract that it is, when `what` was asked.
    pub(crate) fn into_broker(self, what: &'static str) -> BrokerError {
        match self {
            Self::Refused { code: code::WRONG_LAST, .. } => BrokerError::Fenced,
            Self::Unanswered(error) => error.into_broker(what),
            error if error.is_retryable() => BrokerError::retryable(what, error),
            error => BrokerError::fatal(what, error),
        }
    }
}

impl Unanswered {
    /// Whether an answer may come later without anybody changing anything.
    fn is_retryable(&self) -> bool {
        matches!(self, Self::TimedOut(_) | Self::Down(_) | Self::NobodyThere)
    }

    /// The error of the contract that it is, when `what` was asked.
    pub(crate) fn into_broker(self, what: &'static str) -> BrokerError {
        match self {
            Self::Denied(_) => BrokerError::denied(what, self),
            Self::TooLarge { size, limit } => BrokerError::TooLarge { size, limit },
            Self::Closed | Self::Unsendable(_) => BrokerError::fatal(what, self),
            Self::TimedOut(_) | Self::Down(_) | Self::NobodyThere => BrokerError::retryable(what, self),
        }
    }
}

/// Where and whether a message was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Acknowledged {
    /// Its sequence in the stream.
    pub(crate) sequence: u64,
    /// Whether one of its id was there already.
    pub(crate) duplicate: bool,
}

/// A message as a stream has it.
#[derive(Clone, Debug)]
pub(crate) struct StoredMessage {
    pub(crate) subject: String,
    pub(crate) sequence: u64,
    /// Milliseconds since the Unix epoch.
    pub(crate) at: u64,
    pub(crate) headers: HeaderMap,
    pub(crate) payload: Bytes,
}

/// Where to begin to read a stream.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Start {
    /// At this sequence.
    Sequence(u64),
    /// At what was stored then, in milliseconds since the Unix epoch.
    Time(u64),
}

impl Start {
    /// What a request says of it.
    pub(crate) fn request(self) -> Value {
        let time = |millis| chrono::DateTime::from_timestamp_millis(i64::try_from(millis).ok()?);
        match self {
            Self::Sequence(sequence) => serde_json::json!({ "seq": sequence.max(1) }),
            Self::Time(millis) => match time(millis) {
                Some(time) if millis > 0 => serde_json::json!({ "start_time": time.to_rfc3339() }),
                _ => Self::Sequence(1).request(),
            },
        }
    }
}

impl From<u64> for Start {
    fn from(sequence: u64) -> Self {
        Self::Sequence(sequence)
    }
}

impl Connection {
    /// Asks JetStream's API `subject` (without `$JS.API.`), of the domain that is configured.
    pub(crate) async fn api<T: DeserializeOwned>(&self, subject: &str, request: &impl Serialize) -> Result<T, ApiError> {
        self.api_at_once(subject, request, NobodyThere::AskAgain).await
    }

    /// The same; whether to ask again when nobody is there is said by `nobody`.
    pub(crate) async fn api_at_once<T: DeserializeOwned>(
        &self,
        subject: &str,
        request: &impl Serialize,
        nobody: NobodyThere,
    ) -> Result<T, ApiError> {
        let payload = serde_json::to_vec(request).map_err(ApiError::Unreadable)?;
        let answer = self.ask(&self.api_subject(subject), payload.into(), nobody).await?;
        serde_json::from_value(accepted(&answer.message.payload)?).map_err(ApiError::Unreadable)
    }

    /// Stores one message in the stream that takes `subject`.
    pub(crate) async fn store(&self, subject: &str, headers: HeaderMap, payload: Bytes) -> Result<Acknowledged, ApiError> {
        self.counters.published.add(1);
        let load = self.load(payload.len());
        let (answer, _) = self.put(part(&self.publish_subject(subject), Some(headers), payload)).await?;
        let acknowledged = answer?;
        load.stored();
        Ok(acknowledged)
    }

    /// Stores `message`: what came of it, and whether it was sent more than once. What is under way already, as happens
    /// in a cluster when it is sent again over another server, is waited for.
    async fn put(&self, message: Part) -> Result<(Result<Acknowledged, ApiError>, bool), ApiError> {
        let (mut tries, mut resent) = (0, false);
        loop {
            let answer = self.exchange.ask(message.clone(), NobodyThere::AskAgain).await?;
            resent |= answer.resent;
            match acknowledged(&answer) {
                Err(error) if matches!(error.code(), Some(code::SAME_ID_UNDER_WAY | code::WRITE_UNDER_WAY)) && tries < TRIES => {
                    tries += 1;
                    tokio::time::sleep(Duration::from_millis(fastrand::u64(20..100))).await;
                }
                answer => return Ok((answer, resent)),
            }
        }
    }

    /// Stores one message in `stream` at `subject`, if the last one there has the sequence `expected` (0: there is
    /// none). Refused with [`code::WRONG_LAST`] if it has another.
    pub(crate) async fn store_at(
        &self,
        stream: &str,
        subject: &str,
        expected: u64,
        mut headers: HeaderMap,
        payload: Bytes,
    ) -> Result<u64, ApiError> {
        let refused = || ApiError::Refused { status: 400, code: code::WRONG_LAST, said: "wrong last sequence".into() };
        // The server reads a signed number, and takes one that it cannot read for none at all.
        if i64::try_from(expected).is_err() {
            return Err(refused());
        }
        let token = format!("{:032x}", fastrand::u128(..));
        headers.insert(header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, HeaderValue::from(expected));
        headers.insert(header::NATS_MESSAGE_ID, token.as_str());
        self.counters.published.add(1);
        let load = self.load(payload.len());
        let (answer, resent) = self.put(part(&self.publish_subject(subject), Some(headers), payload)).await?;
        match answer {
            // Sent again after a lost connection, it may have fenced itself: then the last one there is ours.
            Err(error) if resent && error.code() == Some(code::WRONG_LAST) => {
                let last = self.last(stream, subject).await?;
                let ours =
                    |last: &StoredMessage| last.headers.get(header::NATS_MESSAGE_ID).is_some_and(|id| id.as_str() == token);
                last.filter(ours).map(|last| last.sequence).ok_or(error)
            }
            answer => {
                let sequence = answer?.sequence;
                load.stored();
                Ok(sequence)
            }
        }
    }

    /// The last message of `stream` at `subject`.
    pub(crate) async fn last(&self, stream: &str, subject: &str) -> Result<Option<StoredMessage>, ApiError> {
        let answer =
            self.ask(&self.api_subject(&format!("DIRECT.GET.{stream}.{subject}")), Bytes::new(), NobodyThere::AskAgain).await?;
        one(answer.message)
    }

    /// The message of `stream` with `sequence`.
    pub(crate) async fn at(&self, stream: &str, sequence: u64) -> Result<Option<StoredMessage>, ApiError> {
        let request = serde_json::json!({ "seq": sequence }).to_string();
        let answer = self.ask(&self.api_subject(&format!("DIRECT.GET.{stream}")), request.into(), NobodyThere::AskAgain).await?;
        one(answer.message)
    }

    /// When the message of `stream` with `sequence` was stored, in nanoseconds, if it still is, as the stream's leader
    /// says: a replica may have what is gone.
    pub(crate) async fn stored_nanos(&self, stream: &str, sequence: u64) -> Result<Option<u64>, ApiError> {
        let found = self.api::<Value>(&format!("STREAM.MSG.GET.{stream}"), &serde_json::json!({ "seq": sequence })).await;
        match found {
            Ok(found) => Ok(found["message"]["time"].as_str().and_then(nanos)),
            Err(error) if matches!(error.code(), Some(code::NO_MESSAGE | code::NO_SEQUENCE | code::STORE)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Up to `most` messages of `stream` at subjects that match `filter`, from `from` on, and whether there are
    /// more. One request; at most `max_bytes` in all, but one message at least.
    pub(crate) async fn page(
        &self,
        stream: &str,
        filter: &str,
        from: impl Into<Start>,
        most: usize,
        max_bytes: usize,
    ) -> Result<(Vec<StoredMessage>, bool), ApiError> {
        let mut request = from.into().request();
        request["next_by_subj"] = filter.into();
        request["batch"] = most.into();
        request["max_bytes"] = max_bytes.into();
        let answer = self.ask_for_many(&self.api_subject(&format!("DIRECT.GET.{stream}")), request.to_string().into()).await?;
        let end = answer.message;
        match end.status.map(|status| status.as_u16()) {
            Some(204) => {}
            Some(404) => return Ok((Vec::new(), false)),
            _ => return Err(status(&end)),
        }
        let pending = end.headers.as_ref().and_then(|headers| number(headers, "Nats-Num-Pending"));
        Ok((answer.before.into_iter().filter_map(stored).collect(), pending.unwrap_or(0) > 0))
    }
}

/// The answer to a publish.
pub(crate) fn acknowledged(answer: &Answered) -> Result<Acknowledged, ApiError> {
    let answer = accepted(&answer.message.payload)?;
    Ok(Acknowledged { sequence: answer["seq"].as_u64().unwrap_or(0), duplicate: answer["duplicate"].as_bool().unwrap_or(false) })
}

/// The answer, if it is no error.
pub(crate) fn accepted(answer: &[u8]) -> Result<Value, ApiError> {
    let answer: Value = serde_json::from_slice(answer).map_err(ApiError::Unreadable)?;
    match &answer["error"] {
        Value::Null => Ok(answer),
        error => Err(ApiError::Refused {
            status: error["code"].as_u64().unwrap_or(500),
            code: error["err_code"].as_u64().unwrap_or(0),
            said: error["description"].as_str().unwrap_or("no reason given").chars().take(300).collect(),
        }),
    }
}

/// The answer to a request for one message.
fn one(answer: Message) -> Result<Option<StoredMessage>, ApiError> {
    match answer.status.map(|status| status.as_u16()) {
        None => Ok(stored(answer)),
        Some(404) => Ok(None),
        Some(_) => Err(status(&answer)),
    }
}

fn status(answer: &Message) -> ApiError {
    let status = answer.status.map_or(0, |status| status.as_u16());
    ApiError::Status(format!("{status} {}", answer.description.as_deref().unwrap_or_default()))
}

fn stored(message: Message) -> Option<StoredMessage> {
    let headers = message.headers?;
    let subject = headers.get(header::NATS_SUBJECT)?.to_string();
    let sequence = number(&headers, "Nats-Sequence")?;
    let at = chrono::DateTime::parse_from_rfc3339(headers.get(header::NATS_TIME_STAMP)?.as_str()).ok()?;
    let at = u64::try_from(at.timestamp_millis()).ok()?;
    Some(StoredMessage { subject, sequence, at, headers, payload: message.payload })
}

/// The number in the header called `name`.
pub(crate) fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.as_str().parse().ok()
}
