//! Messages for later: JetStream's message schedules.

use async_nats::{HeaderMap, HeaderValue, header};
use bytes::Bytes;
use serde_json::{Value, json};
use wf_broker::{BoxFuture, BrokerError, Cron, Key, Result, Schedule, Scheduled};
use wf_schema::{BatchId, Lane, Millis};

use crate::api::Acknowledged;
use crate::broker::NatsBroker;
use crate::publish::full;

/// On what an interval fires: its length in milliseconds. With the time of the next firing, which the server adds, it
/// tells which tick a firing stands for.
pub(crate) const EVERY: &str = "Wf-Every-Ms";

/// The server counts nanoseconds in 64 bits: what is due after 2262 would be taken for long past.
const LATEST: Millis = 7_258_118_400_000; // 2200-01-01

/// On what stands in for a schedule that was cancelled, for as long as the schedule's id is remembered.
pub(crate) const CANCELLED: &str = "Wf-Cancelled";

const STORE_LATER: &str = "store the message for later";
const STORE_CRON: &str = "store the cron";
const CANCEL: &str = "cancel what was scheduled";

/// What a scheduled message is known by: its key, its due time and its bytes.
/// After a cancellation also by that, so that the first one after it is not taken for a repetition.
fn repeated(key: &Key, due: Millis, bytes: &Bytes, cancelled: Option<u64>) -> String {
    let cancelled = cancelled.map(u64::to_be_bytes);
    let cancelled = cancelled.as_ref().map_or(&[][..], |sequence| sequence);
    BatchId::derived(due, &[key.as_str().as_bytes(), bytes, cancelled]).to_string()
}

impl NatsBroker {
    async fn schedule(&self, scheduled: Scheduled) -> Result<()> {
        let Scheduled { lane, key, due, bytes } = scheduled;
        let mut headers = self.headers(&at(due)?, &lane, None)?;
        let subject = self.layout.at_subject(&key);
        // A repetition must not fire again, and the same subject replaces only what has not fired yet.
        headers.insert(header::NATS_MESSAGE_ID, repeated(&key, due, &bytes, None));
        let stored = self.store_schedule(&subject, headers.clone(), bytes.clone(), &lane, STORE_LATER).await?;
        if !stored.duplicate {
            return Ok(());
        }
        let Some(cancelled) = self.cancelled(&subject).await? else { return Ok(()) };
        headers.insert(header::NATS_MESSAGE_ID, repeated(&key, due, &bytes, Some(cancelled)));
        self.store_schedule(&subject, headers, bytes, &lane, STORE_LATER).await.map(drop)
    }

    /// The sequence of the cancellation that stands at `subject`, if that is the last that happened there.
    async fn cancelled(&self, subject: &str) -> Result<Option<u64>> {
        match self.ask_leader(&self.layout.later, json!({ "last_by_subj": subject })).await {
            Ok(last) => Ok(last.filter(|last| last.headers.get(CANCELLED).is_some()).map(|last| last.sequence)),
            Err(error) => match error.into_broker(STORE_LATER) {
                // Who may not look takes it for a repetition, as most are.
                BrokerError::Denied { .. } => Ok(None),
                error => Err(error),
            },
        }
    }

    async fn put(&self, cron: Cron) -> Result<()> {
        let Cron { key, spec, zone, lane, bytes } = cron;
        let mut headers = self.headers(spec.trim(), &lane, zone.as_deref())?;
        if let Some(every) = checked(spec.trim())? {
            headers.insert(EVERY, HeaderValue::from(every));
        }
        self.store_schedule(&self.layout.cron_subject(&key), headers, bytes, &lane, STORE_CRON).await.map(drop)
    }

    /// The headers of a schedule that puts its message into `lane`.
    fn headers(&self, when: &str, lane: &Lane, zone: Option<&str>) -> Result<HeaderMap> {
        let value = |text: &str| {
            let wrong = || BrokerError::fatal(STORE_CRON, "its spec or zone has characters that neither can have");
            text.parse::<HeaderValue>()
                .map_err(|_| wrong())
                .and_then(|value| if text.is_ascii() { Ok(value) } else { Err(wrong()) })
        };
        let mut headers = HeaderMap::new();
        headers.insert(header::NATS_SCHEDULE, value(when)?);
        headers.insert(header::NATS_SCHEDULE_TARGET, self.layout.fire_subject(lane));
        if let Some(zone) = zone {
            headers.insert(header::NATS_SCHEDULE_TIME_ZONE, value(zone)?);
        }
        Ok(headers)
    }

    async fn store_schedule(
        &self,
        subject: &str,
        headers: HeaderMap,
        bytes: Bytes,
        lane: &Lane,
        what: &'static str,
    ) -> Result<Acknowledged> {
        self.check_size(bytes.len())?;
        let _room = self.room(bytes.len(), 1).await;
        // The same subject replaces and the same id is stored once, so what is sent again after a lost connection does
        // no harm.
        let stored = self.publisher().store(subject, headers, bytes).await;
        stored.map_err(|error| full(error, lane, what))
    }

    /// Replaces what is scheduled at `subject` by a sign that it was cancelled, which is over long before it is due.
    async fn cancel(&self, subject: String) -> Result<()> {
        let remembered = self.settings.dedup_window.as_secs_f64().ceil().max(1.0);
        let mut headers = self.headers(&at(LATEST)?, &Lane::default(), None)?;
        headers.insert(header::NATS_MESSAGE_TTL, format!("{remembered}s"));
        headers.insert(CANCELLED, "");
        let stored = self.publisher().store(&subject, headers, Bytes::new()).await;
        stored.map(drop).map_err(|error| error.into_broker(CANCEL))
    }

    /// Removes the cron kept at `subject`.
    async fn unschedule(&self, subject: String) -> Result<()> {
        let purge = format!("STREAM.PURGE.{}", self.layout.later);
        let purged = self.asker().api::<Value>(&purge, &json!({ "filter": subject })).await;
        let Err(error) = purged.map_err(|error| error.into_broker(CANCEL)) else { return Ok(()) };
        if !matches!(error, BrokerError::Denied { .. }) {
            return Err(error);
        }
        // Who may schedule but not purge replaces it with one that is over before it is due.
        let mut headers = self.headers(&at(LATEST)?, &Lane::default(), None)?;
        headers.insert(header::NATS_MESSAGE_TTL, "1s");
        let stored = self.publisher().store(&subject, headers, Bytes::new()).await;
        stored.map(|_| ()).map_err(|error| error.into_broker(CANCEL))
    }
}

/// The schedule of what is due once.
fn at(due: Millis) -> Result<String> {
    let due = i64::try_from(due.min(LATEST)).ok().and_then(chrono::DateTime::from_timestamp_millis);
    let due = due.ok_or_else(|| BrokerError::fatal(STORE_LATER, "it is due at a time that cannot be"))?;
    Ok(format!("@at {}", due.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)))
}

/// Checks what the server does not: an empty spec it takes for no schedule at all, and it knows names (`@hourly`)
/// that the contract does not. The length of an interval in milliseconds, if the spec is one that can be told.
fn checked(spec: &str) -> Result<Option<u64>> {
    let wrong = || BrokerError::fatal(STORE_CRON, "its spec is neither six fields nor `@every` and an interval");
    match spec.strip_prefix('@') {
        Some(rest) => rest.strip_prefix("every ").map(|interval| interval_millis(interval.trim())).ok_or_else(wrong),
        None if spec.split_ascii_whitespace().count() == 6 => Ok(None),
        None => Err(wrong()),
    }
}

/// Reads an interval like `90s` or `1h30m`. `None` if it is none; the server refuses it then.
fn interval_millis(text: &str) -> Option<u64> {
    let mut total = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(digits);
        let letters = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let millis = match unit {
            "ms" => 1.0,
            "s" => 1_000.0,
            "m" => 60_000.0,
            "h" => 3_600_000.0,
            _ => return None,
        };
        total += number.parse::<f64>().ok()? * millis;
        rest = after;
    }
    // Far below where a float would lose milliseconds.
    (1_000.0..=1e15).contains(&total).then_some(total as u64)
}

impl Schedule for NatsBroker {
    fn publish_at(&self, scheduled: Scheduled) -> BoxFuture<'_, ()> {
        Box::pin(self.schedule(scheduled))
    }

    fn cancel_at(&self, key: Key) -> BoxFuture<'_, ()> {
        Box::pin(self.cancel(self.layout.at_subject(&key)))
    }

    fn put_cron(&self, cron: Cron) -> BoxFuture<'_, ()> {
        Box::pin(self.put(cron))
    }

    fn delete_cron(&self, key: Key) -> BoxFuture<'_, ()> {
        Box::pin(self.unschedule(self.layout.cron_subject(&key)))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn specs_are_six_fields_or_an_interval() {
        for (spec, every) in
            [("* * * * * *", None), ("@every 90s", Some(90_000)), ("@every 1h30m", Some(5_400_000)), ("@every x", None)]
        {
            assert_eq!(checked(spec).unwrap(), every, "{spec}");
        }
        for spec in ["", "soon", "* * * * *", "* * * * * * *", "@every", "@hourly", "@at 2030-01-01T00:00:00Z"] {
            assert!(checked(spec).is_err(), "{spec}");
        }
    }

    #[test]
    fn a_due_time_is_kept_within_what_the_server_can_count() {
        assert_eq!(at(1_300).unwrap(), "@at 1970-01-01T00:00:01.300Z");
        assert_eq!(at(u64::MAX).unwrap(), "@at 2200-01-01T00:00:00.000Z");
    }
}
