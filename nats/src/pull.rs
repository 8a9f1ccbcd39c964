//! Pulling: one leg of a source, which asks one consumer over one connection for what there is credit for.
//!
//! Pulls are sent ahead in chunks, so that distance costs no throughput, and every message is owned from when it
//! comes. What a pull did not bring is told by the status it ends with, and becomes credit again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::{Message, Subscriber};
use futures::StreamExt as _;
use serde_json::json;
use wf_broker::Delivery;
use wf_schema::{Lane, Millis};

use crate::broker::round_trip;
use crate::connection::Connection;
use crate::consume::{Origin, delivery};
use crate::lane_consumers::LaneConsumers;
use crate::layout::Layout;
use crate::lease::Ends;
use crate::link::LinkState;
use crate::source::Flow;

/// Settlements that may be unconfirmed before no more is pulled over a connection: what bounds their table.
const MAX_UNSETTLED: usize = 16_384;

/// How long after its end a pull may still bring something.
const SLACK: Duration = Duration::from_secs(5);

/// Messages that are pulled at once because the server ignores their acknowledgements.
const MAX_RECLAIMED: usize = 256;

/// Of a leg that got no more deliveries lately none is likely to be on its way.
const QUIET: u32 = 8;

/// How long a source that was dropped waits for what is on its way to it.
const LAST_WAIT: Duration = Duration::from_secs(2);

/// One leg of a source.
pub(crate) struct Leg {
    pub(crate) number: usize,
    pub(crate) lane: Lane,
    pub(crate) connection: Arc<Connection>,
    pub(crate) consumers: Arc<LaneConsumers>,
    pub(crate) ends: Arc<Ends>,
    /// The stream of the consumer.
    pub(crate) stream: String,
    pub(crate) flow: Arc<Flow>,
    pub(crate) expires: Duration,
    pub(crate) heartbeat: Duration,
    pub(crate) lease: Duration,
}

/// The pulls of one leg since it last began anew.
struct Pulls {
    answers: Subscriber,
    inbox: String,
    next: u64,
    /// Number, messages, and when nothing can come of it any more.
    sent: VecDeque<(u64, usize, Instant)>,
    /// Number, and messages it may still bring, of those that seem to be open at the server, in the order in which it
    /// serves them.
    open: VecDeque<(u64, usize)>,
    last_heard: Instant,
    /// Whether anything was heard at all.
    heard: bool,
    /// No pull before then: the server has refused one.
    not_before: Option<Instant>,
    /// The consumer was found to be gone.
    gone: bool,
    /// Delivery counts are true of messages stored later than this.
    counts_since: Millis,
    /// How many deliveries came since the last beat, and between the two before.
    lately: (u32, u32),
}

impl Leg {
    /// Pulls until the source is dropped.
    pub(crate) async fn run(self) {
        let mut link = self.connection.watch();
        loop {
            let state = *link.borrow_and_update();
            if state.closed {
                return self.flow.fail(crate::exchange::Unanswered::Closed.into_broker("deliver"));
            }
            if !state.up {
                tokio::select! {
                    _ = link.changed() => continue,
                    () = self.flow.stop.cancelled() => return self.release_untaken(Vec::new()),
                }
            }
            // Under an inbox of its own: what an earlier one has asked for finds nobody there, and does not come twice.
            let inbox = self.connection.client.new_inbox();
            let Ok(answers) = self.connection.client.subscribe(format!("{inbox}.*")).await else { continue };
            self.flow.at_most(self.number, 0);
            self.flow.pulling(self.number, 0);
            let counts_since = self.connection.counts_since(&self.ends.layout).await;
            let pulls = Pulls {
                answers,
                inbox,
                next: 0,
                sent: VecDeque::new(),
                open: VecDeque::new(),
                last_heard: Instant::now(),
                heard: false,
                not_before: None,
                gone: false,
                counts_since,
                lately: (0, 0),
            };
            if self.flow.stop.is_cancelled() || !self.pull(pulls, &mut link, state.generation).await {
                return;
            }
        }
    }

    /// Pulls until it has to begin anew (true) or the source was dropped (false).
    async fn pull(&self, mut pulls: Pulls, link: &mut tokio::sync::watch::Receiver<LinkState>, generation: u64) -> bool {
        let (mut more, mut anew) = (self.flow.more(), self.flow.anew());
        let mut beat = tokio::time::interval(self.heartbeat.min(self.lease / 3).max(Duration::from_millis(50)));
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut renewed = Instant::now();
        loop {
            if pulls.gone {
                self.consumers.forget(&self.lane);
                match self.consumers.bind(&self.connection, &self.lane).await {
                    Ok(()) => {
                        pulls.gone = false;
                        // The new one knows nothing of what the old one had delivered.
                        let made = self.consumers.made_at(&self.connection, &self.stream, &self.lane).await;
                        pulls.counts_since = pulls.counts_since.max(made);
                    }
                    Err(error) if error.is_retryable() => pulls.wait_a_little(),
                    Err(error) => {
                        self.flow.fail(error);
                        pulls.wait_a_little();
                    }
                }
            }
            self.ask(&mut pulls).await;
            tokio::select! {
                // Deliveries first: they are owned already, and their lease runs.
                biased;
                answer = pulls.answers.next() => match answer {
                    Some(message) => self.take(&mut pulls, message),
                    None => return true,
                },
                () = self.flow.stop.cancelled() => {
                    self.end(pulls).await;
                    return false;
                }
                _ = link.changed() => {
                    let state = *link.borrow_and_update();
                    if state.generation != generation || state.closed {
                        return true;
                    }
                }
                _ = anew.changed() => {
                    self.connection.renew();
                    return true;
                }
                _ = more.changed() => {}
                // Or the next pull after a refusal would wait for a beat, and jobs with it.
                () = until(pulls.not_before), if pulls.not_before.is_some_and(|until| until > Instant::now()) => {}
                () = self.connection.exchange.unsettled_below(MAX_UNSETTLED), if self.connection.exchange.unsettled() >= MAX_UNSETTLED => {}
                _ = beat.tick() => {
                    pulls.lately = (0, pulls.lately.0);
                    if renewed.elapsed() >= self.lease / 3 {
                        renewed = Instant::now();
                        // What nobody has taken yet is owned all the same.
                        self.flow.untaken(self.number).iter().for_each(|delivery| delivery.lease.renew());
                    }
                    self.heal(&mut pulls);
                    self.reclaim(&mut pulls).await;
                    if pulls.silent(self.flow.asked(self.number), self.heartbeat) && link.borrow().up {
                        tracing::debug!(lane = %self.lane, stream = self.stream, pulls.heard, "pulls went silent; pulling anew");
                        if !pulls.heard {
                            // Nor did the ones before help: the server may be cut off from those it pulls from.
                            self.connection.renew();
                        }
                        return true;
                    }
                }
            }
        }
    }

    /// Sends the pulls there is credit for.
    async fn ask(&self, pulls: &mut Pulls) {
        if pulls.not_before.is_some_and(|until| Instant::now() < until)
            || !self.connection.watch().borrow().up
            || self.connection.exchange.unsettled() >= MAX_UNSETTLED
        {
            return;
        }
        pulls.not_before = None;
        while let Some(ask) = self.flow.ask(self.number) {
            let mut pull = json!({
                "batch": ask.messages,
                "expires": nanos(self.expires),
                "idle_heartbeat": nanos(self.heartbeat),
            });
            if let Some(bytes) = ask.bytes {
                pull["max_bytes"] = bytes.into();
            }
            if !self.send(pulls, ask.messages, &pull).await {
                return;
            }
        }
    }

    /// Pulls what the server ignores the acknowledgements of. After a crash it does not know that it has delivered
    /// those messages, and takes no word about them until it has done so again; they are acknowledged as they come.
    async fn reclaim(&self, pulls: &mut Pulls) {
        let of_consumer = format!(".{}.{}.", self.stream, Layout::consumer(&self.lane));
        let ignored = self.connection.exchange.ignored(&of_consumer).min(MAX_RECLAIMED);
        if ignored > 0 && self.connection.watch().borrow().up {
            self.flow.ask_beyond(self.number, ignored);
            let pull = json!({ "batch": ignored, "expires": nanos(self.heartbeat), "no_wait": true });
            self.send(pulls, ignored, &pull).await;
        }
    }

    /// Sends one pull for `messages`: whether it was sent.
    async fn send(&self, pulls: &mut Pulls, messages: usize, pull: &serde_json::Value) -> bool {
        let now = Instant::now();
        if pulls.sent.is_empty() {
            pulls.last_heard = now;
        }
        pulls.sent.push_back((pulls.next, messages, now + self.expires + SLACK));
        pulls.open.push_back((pulls.next, messages));
        self.flow.pulling(self.number, pulls.open.len());
        let reply = format!("{}.{}", pulls.inbox, pulls.next);
        pulls.next += 1;
        self.connection.counters.pulled.add(1);
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{}.{}", self.stream, Layout::consumer(&self.lane));
        // A pull that could not be sent is as good as lost: the silence is noticed.
        self.connection.client.publish_with_reply(subject, reply, pull.to_string().into()).await.is_ok()
    }

    /// Takes what has come: a delivery, or word of a pull.
    fn take(&self, pulls: &mut Pulls, message: Message) {
        (pulls.last_heard, pulls.heard) = (Instant::now(), true);
        if message.status.is_some() {
            return self.heard(pulls, &message);
        }
        let origin = message.reply.as_deref().and_then(Origin::of);
        let Some(delivery) = self.owned(message, pulls.counts_since) else { return };
        pulls.brought_one();
        self.flow.pulling(self.number, pulls.open.len());
        if delivery.delivered > 1 && origin.is_some_and(|origin| self.connection.acked.knows(origin)) {
            // The server has forgotten that it was acknowledged here.
            delivery.lease.ack(None);
            self.flow.ended(self.number, 1, false);
        } else {
            pulls.lately.0 += 1;
            self.flow.arrived(self.number, delivery);
        }
    }

    /// The delivery that `message` is, if it is one.
    fn owned(&self, message: Message, counts_since: Millis) -> Option<Delivery> {
        if message.status.is_some() {
            return None;
        }
        self.connection.counters.delivered.add(1);
        self.connection.counters.delivered_bytes.add(message.payload.len() as u64);
        let mut delivery = delivery(&self.ends, &self.lane, &self.connection, message)?;
        if delivery.stored_at <= counts_since {
            delivery.delivered = delivery.delivered.max(2);
        }
        Some(delivery)
    }

    fn heard(&self, pulls: &mut Pulls, message: &Message) {
        let status = message.status.map_or(0, |status| status.as_u16());
        if status == 100 {
            return;
        }
        let number = message.subject.strip_prefix(pulls.inbox.as_str()).and_then(|rest| rest.strip_prefix('.')?.parse().ok());
        let Some(at) = pulls.sent.iter().position(|(sent, ..)| Some(*sent) == number) else { return };
        let Some((_, messages, _)) = pulls.sent.remove(at) else { return };
        pulls.open.retain(|(open, _)| Some(*open) != number);
        self.flow.pulling(self.number, pulls.open.len());
        let told = message.headers.as_ref().and_then(|headers| crate::api::number(headers, "Nats-Pending-Messages"));
        let left = told.and_then(|left| usize::try_from(left).ok()).unwrap_or(messages).min(messages);
        let said = message.description.as_deref().unwrap_or_default();
        match status {
            // It waited to its end, or there was nothing: the usual.
            404 | 408 => {}
            // It brought all the bytes it asked for: the usual too, and no reason to wait before the next.
            409 if said.contains("Batch Completed") => {}
            409 if said.contains("MaxBytes") => self.flow.too_small(self.number),
            409 if said.contains("Consumer Deleted") => {
                pulls.gone = true;
                pulls.wait_a_little();
            }
            503 => {
                pulls.gone = true;
                pulls.wait_a_little();
            }
            _ => {
                tracing::debug!(lane = %self.lane, stream = self.stream, status, said, "a pull was refused");
                pulls.wait_a_little();
            }
        }
        self.flow.ended(self.number, left, matches!(status, 404 | 408) && left > 0);
    }

    /// Drops pulls of which nothing can come any more, and with them what they were still thought to bring.
    fn heal(&self, pulls: &mut Pulls) {
        let now = Instant::now();
        while pulls.sent.front().is_some_and(|(_, _, end)| *end <= now) {
            pulls.sent.pop_front();
        }
        let oldest = pulls.sent.front().map_or(u64::MAX, |(number, ..)| *number);
        pulls.open.retain(|(number, _)| *number >= oldest);
        self.flow.pulling(self.number, pulls.open.len());
        self.flow.at_most(self.number, pulls.sent.iter().map(|(_, messages, _)| messages).sum());
    }

    /// The source was dropped: nothing more is to come, and what has come is released.
    async fn end(&self, mut pulls: Pulls) {
        let mut late = Vec::new();
        let since = pulls.counts_since;
        // What the server has sent until now comes before its answer to this. In a busy flow that is much, and
        // waiting for it spares those messages from waiting for the end of their lease. In a quiet one it is nothing,
        // and a message that came meanwhile would only be delivered once more than it need be.
        if pulls.lately.0 + pulls.lately.1 > QUIET {
            let answered = tokio::time::timeout(LAST_WAIT, round_trip(&self.connection, &self.ends.layout));
            tokio::pin!(answered);
            loop {
                tokio::select! {
                    biased;
                    message = pulls.answers.next() => match message {
                        Some(message) => late.extend(self.owned(message, since)),
                        None => break,
                    },
                    _ = &mut answered => break,
                }
            }
        }
        // Before the release: what is released could come right back.
        pulls.answers.unsubscribe().await.ok();
        while let Some(message) = pulls.answers.next().await {
            late.extend(self.owned(message, since));
        }
        self.release_untaken(late);
    }

    fn release_untaken(&self, late: Vec<Delivery>) {
        let untaken = self.flow.take_untaken(self.number);
        untaken.iter().chain(&late).for_each(|delivery| delivery.lease.release(Duration::ZERO));
    }
}

impl Pulls {
    /// A message has come. Nothing tells which pull has brought it, but the server serves them in turn: one that wants
    /// more goes behind the others.
    fn brought_one(&mut self) {
        if let Some((number, left)) = self.open.pop_front()
            && left > 1
        {
            self.open.push_back((number, left - 1));
        }
    }

    /// Not to be refused again at once, and not together with all others.
    fn wait_a_little(&mut self) {
        self.not_before = Some(Instant::now() + Duration::from_millis(fastrand::u64(250..750)));
    }

    /// Whether the server has not said a word although pulls are with it.
    fn silent(&self, asked: usize, heartbeat: Duration) -> bool {
        asked > 0 && !self.sent.is_empty() && self.last_heard.elapsed() > 2 * heartbeat + Duration::from_secs(1)
    }
}

/// Waits until `time`, if there is one.
async fn until(time: Option<Instant>) {
    if let Some(time) = time {
        tokio::time::sleep_until(time.into()).await;
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(i64::MAX as u64)
}
