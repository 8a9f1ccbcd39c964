//! Consuming: opening lanes, and what a message of a stream is as a delivery.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Message, header};
use parking_lot::Mutex;
use wf_broker::{BoxFuture, Consume, Delivery, DeliverySource, Fired, Result};
use wf_schema::{BatchId, Lane, Millis, RunId};

use crate::api::number;
use crate::broker::NatsBroker;
use crate::connection::Connection;
use crate::exchange::{About, Unanswered};
use crate::layout::Layout;
use crate::lease::{Ends, NatsLease};
use crate::pull::Leg;
use crate::schedule::EVERY;
use crate::source::{Flow, LaneSource};

impl NatsBroker {
    async fn open(&self, lane: Lane) -> Result<Box<dyn DeliverySource>> {
        if self.consuming().iter().any(|connection| connection.watch().borrow().closed) {
            return Err(Unanswered::Closed.into_broker("consume from the lane"));
        }
        let [jobs_told, later_told] = self.consumers.bind(self.asker(), &lane).await?;
        // What is published comes over all connections. What falls due is little: one will do.
        let jobs = self.consuming().iter().map(|connection| (connection, &self.layout.jobs));
        let fire = self.consuming().iter().take(1).map(|connection| (connection, &self.layout.later));
        let legs: Vec<_> = jobs.chain(fire).collect();
        let hot: Vec<bool> = legs.iter().map(|(_, stream)| **stream == self.layout.jobs).collect();
        let flow = Arc::new(Flow::new(&hot));
        self.flows.add(&lane, &flow);
        for (number, (connection, stream)) in legs.into_iter().enumerate() {
            let leg = Leg {
                number,
                lane: lane.clone(),
                connection: connection.clone(),
                consumers: self.consumers.clone(),
                ends: self.ends.clone(),
                stream: stream.clone(),
                flow: flow.clone(),
                told: Mutex::new(if *stream == self.layout.jobs { jobs_told.clone() } else { later_told.clone() }),
                expires: self.link.pull_expires,
                heartbeat: self.link.pull_heartbeat,
                lease: self.settings.lease,
            };
            // Ends when the source is dropped.
            tokio::spawn(leg.run());
        }
        self.sweep_orphans();
        Ok(Box::new(LaneSource::new(flow)))
    }
}

impl Consume for NatsBroker {
    fn lane(&self, lane: Lane) -> BoxFuture<'_, Box<dyn DeliverySource>> {
        Box::pin(self.open(lane))
    }

    fn lease(&self) -> Duration {
        self.settings.lease
    }

    fn settled(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.confirm_settled())
    }
}

/// The delivery that `message` is, if it is one; it came in this `generation` of the connection's link, or later.
pub(crate) fn delivery(
    ends: &Arc<Ends>,
    lane: &Lane,
    connection: &Arc<Connection>,
    generation: u64,
    message: Message,
) -> Option<Delivery> {
    let layout = &ends.layout;
    let reply = message.reply.clone()?;
    let origin = Origin::of(&reply)?;
    let fired = message.headers.as_ref().and_then(|headers| {
        let key = layout.cron_key(headers.get(header::NATS_SCHEDULER)?.as_str())?;
        let next = headers.get(header::NATS_SCHEDULE_NEXT).and_then(|next| Some(millis(next.as_str())? / 1_000 * 1_000));
        let every = number(headers, EVERY);
        // An interval's ticks lie anywhere, so only the next one tells which this is. Fields have whole seconds, and
        // the firing follows within one.
        let tick = next.zip(every).map_or(origin.stored_at() / 1_000 * 1_000, |(next, every)| next.saturating_sub(every));
        Some(Fired { key, tick })
    });
    let fallback_id = match &fired {
        Some(Fired { key, tick }) => BatchId::derived(*tick, &[b"cron", key.as_str().as_bytes()]),
        None => {
            let stream: &[u8] = if origin.later { b"later" } else { b"jobs" };
            let sequence = origin.sequence.to_be_bytes();
            let stored = origin.stored_nanos.to_be_bytes();
            let id = message.headers.as_ref().and_then(|headers| headers.get(header::NATS_MESSAGE_ID));
            let id = id.map_or(&b""[..], |id| id.as_str().as_bytes());
            BatchId::derived(origin.stored_at(), &[stream, &sequence, &stored, id])
        }
    };
    Some(Delivery {
        lane: lane.clone(),
        id: called(layout, &message),
        bytes: message.payload,
        run: RunId::new(if origin.later { 'l' } else { 'j' }, origin.sequence),
        delivered: origin.delivered,
        fallback_id,
        stored_at: origin.stored_at(),
        fired,
        lease: Arc::new(NatsLease::new(connection.clone(), reply, About { origin, generation }, ends.clone())),
    })
}

/// What `message` was called when it was stored. A firing has lost the id of its schedule, and tells its subject.
fn called(layout: &Layout, message: &Message) -> Arc<str> {
    let header = |name: &str| message.headers.as_ref()?.get(name).map(|value| value.as_str());
    let scheduled = || layout.schedule_key(header("Nats-Scheduler")?);
    header("Nats-Msg-Id").or_else(scheduled).unwrap_or_default().into()
}

/// The same in nanoseconds.
pub(crate) fn nanos(rfc3339: &str) -> Option<u64> {
    chrono::DateTime::parse_from_rfc3339(rfc3339).ok()?.timestamp_nanos_opt()?.try_into().ok()
}

/// The time that the server writes as `rfc3339`.
pub(crate) fn millis(rfc3339: &str) -> Option<Millis> {
    chrono::DateTime::parse_from_rfc3339(rfc3339).ok()?.timestamp_millis().try_into().ok()
}

/// Where a delivered message comes from, as its reply subject tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    /// Whether it was for later, or for now.
    pub(crate) later: bool,
    pub(crate) delivered: u64,
    pub(crate) sequence: u64,
    pub(crate) stored_nanos: u64,
}

impl Origin {
    /// Reads `$JS.ACK.<stream>.<consumer>.<delivered>.<sequence>.<consumer sequence>.<time>.<pending>`, or the form
    /// with domain and account before the stream (and a token more at the end).
    pub(crate) fn of(reply: &str) -> Option<Self> {
        let tokens: Vec<&str> = reply.strip_prefix("$JS.ACK.")?.split('.').collect();
        let at = match tokens.len() {
            7 => 0,
            9.. => 2,
            _ => return None,
        };
        let number = |n: usize| tokens.get(at + n)?.parse::<u64>().ok();
        Some(Self {
            later: tokens.get(at)?.ends_with("_LATER"),
            delivered: number(2)?,
            sequence: number(3)?,
            stored_nanos: number(5)?,
        })
    }

    fn stored_at(self) -> Millis {
        self.stored_nanos / 1_000_000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_subject_tells_where_a_message_comes_from() {
        let origin = Origin { later: false, delivered: 2, sequence: 17, stored_nanos: 1_795_352_956_978_657_619 };
        let old = "$JS.ACK.WF_JOBS.default-normal.2.17.5.1795352956978657619.9";
        assert_eq!(Origin::of(old), Some(origin));
        let new = "$JS.ACK.hub.ACCHASH.WF_LATER.default-normal.2.17.5.1795352956978657619.9.token";
        assert_eq!(Origin::of(new), Some(Origin { later: true, ..origin }));
        for wrong in ["", "$JS.ACK.", "$JS.ACK.a.b.c.d.e.f.g", "_INBOX.x.1", "$JS.ACK.a.b.1.2"] {
            assert_eq!(Origin::of(wrong), None, "{wrong}");
        }
    }
}
