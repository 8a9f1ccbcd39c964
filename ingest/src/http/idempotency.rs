//! `Idempotency-Key`: a request that is repeated is not done twice, not even when the broker has forgotten it.
//!
//! A keyed record holds the ids that the jobs have and a hash of the body. The order is what makes it work:
//! 1. **claim** the key, with ids nobody has used;
//! 2. **publish** under those ids;
//! 3. mark the record **complete**.
//!
//! Who finds a complete record answers with its ids. Who finds an incomplete one asks the broker what became of each
//! message, publishes those that were never stored, under the same ids, and does step 3. The broker's deduplication would
//! not do: it forgets after minutes, and a key holds for a day. So these batches ask the broker to remember the ends of
//! their runs for as long as the key holds. Where it cannot tell whether a message was stored, nothing is published, and
//! the caller is told so.
//!
//! Two may complete one claim at the same time: both publish under the same ids within seconds, and the broker stores one.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, StatusCode};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use wf_broker::{BrokerError, Key, Revision};

use super::HttpState;
use super::bulk::demand_atomic;
use super::media;
use super::problem::Problem;
use crate::batcher::Incoming;
use crate::parcel::{Failed, Parcel, Plan};

/// What a caller calls its request: 1 to 255 visible ASCII characters.
pub(super) struct IdempotencyKey(String);

/// A request that was done, now or before.
pub(super) struct Once {
    pub(super) parcel: Parcel,
    /// Whether the ids are those of an earlier request.
    pub(super) replayed: bool,
}

/// The keyed record.
#[derive(Serialize, Deserialize)]
struct Claim {
    version: u32,
    /// The hash of path and body.
    body: String,
    complete: bool,
    plan: Plan,
}

/// The most ranges of ids in an answer that is not sure.
const MOST_IDS: usize = 1_000;

const UNTOLD: &str = "an earlier request with this Idempotency-Key was broken off, and the broker cannot tell for now whether its jobs are \
                      stored: nothing was published again";

/// The largest record, in bytes. A request of so many lanes or times that its plan takes more is refused.
const RECORD_LIMIT: usize = 256 << 10;

/// The key of a request, if it has one.
pub(super) fn key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, Problem> {
    let name = HeaderName::from_static("idempotency-key");
    let Some(text) = media::text(headers, &name)? else { return Ok(None) };
    // The draft writes it as a string in quotes; most people do not.
    let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    if !(1..=255).contains(&text.len()) || !text.bytes().all(|b| b.is_ascii_graphic() || b == b' ') {
        return Err(
            Problem::bad_request("Idempotency-Key must have 1 to 255 visible ASCII characters").with("field", name.as_str())
        );
    }
    Ok(Some(IdempotencyKey(text.to_owned())))
}

/// Publishes `jobs`, which were read from `body` sent to `path`, unless that was done before under `key`. If
/// `atomic`, also jobs for later must go together.
pub(super) async fn publish_once(
    state: &HttpState,
    key: &IdempotencyKey,
    path: &str,
    body: &[u8],
    atomic: bool,
    jobs: &[Incoming<'_>],
) -> Result<Once, Problem> {
    // The claim is a record at the broker, and so is the only proof that a request was done: the spool, which is this
    // process's own, cannot stand in for it.
    let publisher = state.producer.publisher().without_spool().certain();
    if let Some(refusal) = publisher.refusal() {
        let why = "an Idempotency-Key needs the broker, which keeps its record; without a key the jobs may be taken";
        return Err(Problem::from(refusal).with("hint", why));
    }
    // There is one principal as long as there is no authentication.
    let record = record_key("", key)?;
    let broker = state.broker();
    let ttl = Some(state.options.idempotency_ttl);
    let remember = u32::try_from(state.options.idempotency_ttl.as_secs()).unwrap_or(u32::MAX).max(1);
    let parcel = Parcel::pack(jobs, &state.producer.options().batch, broker.max_message(), remember);
    if atomic {
        demand_atomic(&parcel)?;
    }
    let mut claim =
        Claim { version: 2, body: hash(&[path.as_bytes(), &[atomic.into()], body]), complete: false, plan: parcel.plan() };
    let bytes = encode(&claim)?;
    // A record may run out, or be taken back, between the create that it refuses and the look at it.
    for _ in 0..3 {
        match broker.create(record.clone(), bytes.clone(), ttl).await {
            Ok(revision) => {
                let publishing = parcel.publish(&publisher).await.map(drop);
                finish(state, &record, revision, &mut claim, &parcel, publishing).await?;
                return Ok(Once { parcel, replayed: false });
            }
            Err(BrokerError::Fenced) => {}
            Err(error) => return Err(error.into()),
        }
        let Some(entry) = broker.get(record.clone()).await? else { continue };
        let mut found: Claim = serde_json::from_slice(&entry.bytes)
            .map_err(|error| Problem::internal(format!("the record of this Idempotency-Key cannot be read: {error}")))?;
        if found.body != claim.body {
            let detail = "this Idempotency-Key was used with another request: use a fresh key for a fresh request";
            return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "key-reused", "Key used before", detail));
        }
        let parcel = Parcel::repack(jobs, &found.plan)
            .ok_or_else(|| Problem::internal("the record of this Idempotency-Key was made under other limits"))?;
        if !found.complete {
            let publishing = match parcel.publish_missing(&publisher).await {
                Ok(true) => Ok(()),
                Ok(false) => return Err(with_ids(Problem::unconfirmed(UNTOLD), &parcel)),
                Err(failed) => Err(failed),
            };
            finish(state, &record, entry.revision, &mut found, &parcel, publishing).await?;
        }
        return Ok(Once { parcel, replayed: true });
    }
    Err(Problem::unreachable("the record of this Idempotency-Key keeps changing; retry"))
}

/// Step 3, after step 2 has gone as `published` says.
async fn finish(
    state: &HttpState,
    record: &Key,
    revision: Revision,
    claim: &mut Claim,
    parcel: &Parcel,
    published: Result<(), Failed>,
) -> Result<(), Problem> {
    let broker = state.broker();
    if let Err(Failed { error, in_part }) = published {
        if !in_part && !error.is_retryable() {
            // It never works like this: leave the key to a request that does. Should this fail, it runs out.
            let _ = broker.delete(record.clone(), revision).await;
        }
        let problem = Problem::from(error);
        // What is stored is stored under these ids, whatever comes of the key.
        return Err(if in_part && problem.is_unconfirmed() { with_ids(problem, parcel) } else { problem });
    }
    claim.complete = true;
    let bytes = encode(claim)?;
    let ttl = Some(state.options.idempotency_ttl);
    let mut pause = Duration::from_millis(50);
    for _ in 0..3 {
        let marked = match broker.update(record.clone(), revision, bytes.clone(), ttl).await {
            // Somebody repeats the request at the same time, and marks it too; or the store was rolled back to before the
            // claim. Then it is claimed anew, or the next repeat would publish its jobs under other ids.
            Err(BrokerError::Fenced) => match broker.create(record.clone(), bytes.clone(), ttl).await {
                Err(BrokerError::Fenced) => return Ok(()),
                created => created,
            },
            updated => updated,
        };
        match marked {
            Ok(_) => return Ok(()),
            Err(error) => tracing::warn!(record = %record, error = %error, "an idempotency record was not marked complete"),
        }
        tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        pause *= 4;
    }
    // The jobs are stored, and that is what the caller wants to know. Should it repeat the request all the same, the
    // broker is asked whether they are.
    Ok(())
}

/// `problem`, which says under which ids the jobs are stored if they are.
fn with_ids(problem: Problem, parcel: &Parcel) -> Problem {
    let ids = parcel.ids().into_iter().take(MOST_IDS);
    let ids = ids.map(|ids| json!({ "batch": ids.batch, "first": ids.first, "count": ids.count }));
    problem.with("ids", Value::Array(ids.collect()))
}

fn encode(claim: &Claim) -> Result<Bytes, Problem> {
    let bytes = serde_json::to_vec(claim).map_err(|error| Problem::internal(error.to_string()))?;
    if bytes.len() > RECORD_LIMIT {
        let detail = "its jobs change lane or time too often for an Idempotency-Key: sort them by queue, priority and run_at";
        return Err(Problem::too_large(detail));
    }
    Ok(bytes.into())
}

/// `idem.` and the hash of principal and key.
fn record_key(principal: &str, key: &IdempotencyKey) -> Result<Key, Problem> {
    let name = format!("idem.{}", hash(&[principal.as_bytes(), key.0.as_bytes()]));
    Key::new(&name).map_err(|error| Problem::internal(error.to_string()))
}

/// The SHA-256 of `parts`, each with its length, in hex.
fn hash(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}
