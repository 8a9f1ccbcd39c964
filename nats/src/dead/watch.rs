//! Noticing that the server drops dead letters to make room.
//!
//! It says so to nobody. What tells is the stream itself: its first sequence has moved on although the letter there was
//! not old enough to go, and the stream is far from empty. (Letters that somebody removes by hand from the front of a
//! full stream look the same.)

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use wf_broker::{DeadStats, Episode};
use wf_schema::{Millis, now};

use crate::api::ApiError;
use crate::connection::Connection;
use crate::consume::millis;
use crate::counters::Counters;
use crate::exchange::Unanswered;
use crate::layout::Layout;

/// From one look to the next, while letters are buried.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// How often it is said that letters are dropped.
const SAID_EVERY: Duration = Duration::from_secs(600);

/// Watches the stream of dead letters while this node buries some.
#[derive(Debug)]
pub(crate) struct DeadWatch {
    counters: Arc<Counters>,
    seen: Mutex<Seen>,
    /// Somebody looks, or will in a moment.
    looking: AtomicBool,
    /// This user may not look.
    denied: AtomicBool,
}

#[derive(Debug)]
struct Seen {
    last: Option<Look>,
    dropping: Episode,
}

/// How the stream was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Look {
    first: u64,
    /// When the first was buried.
    first_at: Option<Millis>,
    /// Letters that were in it once.
    gone: u64,
    letters: u64,
    bytes: u64,
    most_bytes: u64,
    most_age: Millis,
}

impl Look {
    fn read(info: &Value) -> Self {
        let (config, state) = (&info["config"], &info["state"]);
        let count = |value: &Value| value.as_u64().unwrap_or(0);
        let letters = count(&state["messages"]);
        Self {
            first: count(&state["first_seq"]),
            first_at: state["first_ts"].as_str().and_then(millis).filter(|_| letters > 0),
            gone: count(&state["last_seq"]).saturating_sub(letters),
            letters,
            bytes: count(&state["bytes"]),
            most_bytes: count(&config["max_bytes"]),
            most_age: count(&config["max_age"]) / 1_000_000,
        }
    }

    /// How many letters made room between `before` and this, at `now`.
    fn dropped_since(&self, before: &Self, now: Millis) -> u64 {
        let too_old = |at: Millis| before.most_age > 0 && at.saturating_add(before.most_age) <= now;
        let before_their_time = before.first_at.is_none_or(|at| !too_old(at));
        let full = self.most_bytes > 0 && self.bytes >= self.most_bytes / 2;
        if self.first > before.first && before_their_time && full { self.gone.saturating_sub(before.gone) } else { 0 }
    }
}

impl DeadWatch {
    pub(crate) fn new(counters: Arc<Counters>) -> Self {
        let seen = Mutex::new(Seen { last: None, dropping: Episode::new(SAID_EVERY) });
        Self { counters, seen, looking: AtomicBool::new(false), denied: AtomicBool::new(false) }
    }

    /// A letter was buried: looks soon what that did, without anybody waiting for it.
    pub(crate) fn buried(self: &Arc<Self>, asker: &Arc<Connection>, layout: &Layout) {
        if self.denied.load(Ordering::Relaxed) || self.looking.swap(true, Ordering::Relaxed) {
            return;
        }
        let (watch, asker, layout) = (self.clone(), Arc::downgrade(asker), layout.clone());
        tokio::spawn(async move {
            // Once for how it is before the others, once for what became of it.
            for pause in [Duration::ZERO, LOOK_EVERY.mul_f64(0.75 + fastrand::f64() / 2.0)] {
                tokio::time::sleep(pause).await;
                let Some(asker) = asker.upgrade() else { break };
                match watch.look(&asker, &layout).await {
                    Err(ApiError::Unanswered(Unanswered::Denied(said))) => {
                        watch.denied.store(true, Ordering::Relaxed);
                        tracing::info!(said, "this user may not see whether the server drops dead letters; `wf doctor` can");
                    }
                    Err(error) => tracing::debug!(%error, "the stream of dead letters could not be looked at"),
                    Ok(_) => {}
                }
            }
            watch.looking.store(false, Ordering::Relaxed);
        });
    }

    /// Looks how full the stream is, and what was dropped since the last look.
    pub(crate) async fn look(&self, asker: &Connection, layout: &Layout) -> Result<DeadStats, ApiError> {
        let info = asker.api::<Value>(&format!("STREAM.INFO.{}", layout.dead), &json!({})).await?;
        let look = Look::read(&info);
        let mut seen = self.seen.lock();
        // An answer that was overtaken by another says nothing new.
        let dropped = match seen.last {
            Some(before) if look.gone >= before.gone => look.dropped_since(&before, now()),
            _ => 0,
        };
        self.counters.dead_dropped.add(dropped);
        seen.last = Some(look);
        if let Some(dropped) = seen.dropping.happened(dropped) {
            tracing::warn!(
                dropped,
                kept = look.letters,
                kept_bytes = look.bytes,
                limit_bytes = look.most_bytes,
                oldest_s = look.first_at.map_or(0, |at| now().saturating_sub(at) / 1_000),
                "the store of dead letters is full: the oldest letters are dropped to make room; \
                 see what fails, requeue or export what you need, or raise factory.dead_bytes \
                 and run `wf broker setup --update`"
            );
        }
        Ok(DeadStats {
            letters: look.letters,
            bytes: look.bytes,
            most_bytes: look.most_bytes,
            oldest: look.first_at,
            dropped: self.counters.dead_dropped.value(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_made_room_is_told_from_what_grew_old_or_was_removed() {
        const DAY: Millis = 86_400_000;
        let before = Look {
            first: 5,
            first_at: Some(10 * DAY),
            gone: 4,
            letters: 100,
            bytes: 1_000,
            most_bytes: 1_000,
            most_age: 14 * DAY,
        };
        let after = Look { first: 15, gone: 14, ..before };
        assert_eq!(after.dropped_since(&before, 11 * DAY), 10);
        assert_eq!(after.dropped_since(&before, 24 * DAY), 0, "they were too old");
        assert_eq!(Look { first: 5, gone: 14, ..before }.dropped_since(&before, 11 * DAY), 0, "from the middle: by hand");
        assert_eq!(Look { bytes: 10, ..after }.dropped_since(&before, 11 * DAY), 0, "there was room enough");
    }
}
