//! The one place that sends questions, as long as the link is up.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::client::PublishErrorKind;
use async_nats::{HeaderValue, header};

use super::{Part, Shared, Unanswered};

/// How often what waits for its time to be sent again is looked at.
const TICK: Duration = Duration::from_millis(50);

/// Sends questions: the one place that does, so that they go out in order.
pub(super) async fn write(shared: Arc<Shared>) {
    let mut link = shared.link.watch();
    loop {
        let state = *link.borrow_and_update();
        if state.closed {
            return shared.close();
        }
        if !state.up {
            shared.table.lock().lost();
            if link.changed().await.is_err() {
                return shared.close();
            }
            continue;
        }
        let (next, timed, gathers) = {
            let (mut table, now) = (shared.table.lock(), Instant::now());
            table.at_generation(state.generation);
            table.send_due(now);
            let doubts = table.doubt_count();
            let next = match table.gathers_until(now) {
                Some(until) => (None, table.has_timed(), until - now),
                None => (table.next(now), table.has_timed(), TICK),
            };
            if table.doubt_count() > doubts {
                shared.doubted.notify_waiters();
            }
            next
        };
        if let Some(next) = next {
            if next.again {
                shared.counters.resent.add(1);
            }
            shared.send(next.id, next.ahead, next.last, next.answer_wanted).await;
            continue;
        }
        tokio::select! {
            () = shared.work.notified() => {}
            _ = link.changed() => {}
            () = tokio::time::sleep(gathers.min(TICK)), if timed || gathers < TICK => {}
        }
    }
}

impl Shared {
    /// Sends what is due, `parts` being one atomic batch if there are several.
    async fn send(&self, id: u64, mut ahead: Vec<Part>, mut last: Part, answer_wanted: bool) {
        if !ahead.is_empty() {
            // Each time under a new name: of an earlier attempt the server may have kept a part.
            let name = format!("{:032x}", fastrand::u128(..));
            for (number, part) in (1_u64..).zip(ahead.iter_mut().chain([&mut last])) {
                let headers = part.headers.get_or_insert_default();
                headers.insert(header::NATS_BATCH_ID, name.as_str());
                headers.insert(header::NATS_BATCH_SEQUENCE, HeaderValue::from(number));
            }
            last.headers.get_or_insert_default().insert(header::NATS_BATCH_COMMIT, header::NATS_BATCH_COMMIT_FINAL);
        }
        let client = &self.client;
        let mut sent = Ok(());
        for Part { subject, headers, payload } in ahead {
            if sent.is_ok() {
                sent = match headers {
                    Some(headers) => client.publish_with_headers(subject, headers, payload).await,
                    None => client.publish(subject, payload).await,
                };
            }
        }
        let Part { subject, headers, payload } = last;
        let size = payload.len();
        let reply = answer_wanted.then(|| format!("{}{id}", self.inbox));
        if sent.is_ok() {
            sent = match (reply, headers) {
                (Some(reply), Some(headers)) => client.publish_with_reply_and_headers(subject, reply, headers, payload).await,
                (Some(reply), None) => client.publish_with_reply(subject, reply, payload).await,
                (None, _) => client.publish(subject, payload).await,
            };
        }
        if let Err(error) = sent {
            let error = match error.kind() {
                PublishErrorKind::MaxPayloadExceeded => Unanswered::TooLarge { size, limit: client.max_payload() },
                PublishErrorKind::Send => Unanswered::Closed,
                PublishErrorKind::InvalidSubject => Unanswered::Unsendable(error),
            };
            if self.table.lock().failed(id, error) {
                self.confirmed.notify_waiters();
            }
        }
    }
}
