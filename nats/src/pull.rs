//! Pulling: one leg of a source, which asks one consumer over one connection for what there is credit for.
//!
//! Pulls are sent ahead in chunks, so that distance costs no throughput, and every message is owned from when it
//! comes. What a pull did not bring is told by the status it ends with, and becomes credit again.

mod pulls;

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::Message;
use futures::{FutureExt as _, StreamExt as _};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::unconstrained;
use wf_broker::{BrokerError, Delivery};
use wf_schema::Lane;

use self::pulls::Pulls;
use crate::broker::round_trip_within;
use crate::connection::Connection;
use crate::consume::{Origin, delivery};
use crate::lane_consumers::LaneConsumers;
use crate::layout::Layout;
use crate::lease::Ends;
use crate::link::LinkState;
use crate::source::Flow;

/// Settlements that may be unconfirmed before no more is pulled over a connection: what bounds their table.
const MAX_UNSETTLED: usize = 16_384;

/// A flow is busy for so long after a delivery.
const BUSY: Duration = Duration::from_secs(1);

/// How long a busy flow that comes by way of another server may take to bring what it was asked for, when it ends.
const FILLING: Duration = Duration::from_secs(2);

/// Messages that are pulled at once because the server ignores their acknowledgements.
const MAX_RECLAIMED: usize = 256;

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
    /// What was told of the consumer when the lane was opened.
    pub(crate) told: Mutex<Option<Value>>,
    pub(crate) expires: Duration,
    pub(crate) heartbeat: Duration,
    pub(crate) lease: Duration,
}

impl Leg {
    /// Pulls until the source is stopped or dropped, and ends the flow then.
    pub(crate) async fn run(self) {
        let (late, sure) = self.pull_on().await;
        self.flow.leave(self.number, late, sure);
    }

    /// Pulls until the source is stopped or dropped: what still came then, and whether nothing more can come.
    async fn pull_on(&self) -> (Vec<Delivery>, bool) {
        let mut link = self.connection.watch();
        loop {
            let state = *link.borrow_and_update();
            if state.closed {
                self.flow.fail(crate::exchange::Unanswered::Closed.into_broker("deliver"));
                return (Vec::new(), false);
            }
            if !state.up {
                tokio::select! {
                    _ = link.changed() => continue,
                    // The server may not know that the connection is lost, and send on.
                    () = self.flow.stop.cancelled() => return (Vec::new(), false),
                }
            }
            // Under an inbox of its own: what an earlier one has asked for finds nobody there, and does not come twice.
            let inbox = self.connection.client.new_inbox();
            let Ok(answers) = self.connection.client.subscribe(format!("{inbox}.*")).await else { continue };
            self.flow.at_most(self.number, 0);
            self.flow.pulling(self.number, 0);
            let mut pulls = Pulls::new(answers, self.connection.refusals(), inbox, state.generation);
            self.learn(&mut pulls).await;
            if let Some(ended) = self.pull(pulls, &mut link).await {
                return ended;
            }
        }
    }

    /// Learns of the consumer what there is to know, and pulls meanwhile: the answer is here when the first deliveries are.
    async fn learn(&self, pulls: &mut Pulls) {
        let mut more = self.flow.more();
        let told = self.told.lock().take();
        let counted = self.connection.counted(&self.ends.layout, &self.stream, &self.lane, told);
        tokio::pin!(counted);
        loop {
            self.ask(pulls).await;
            tokio::select! {
                biased;
                counted = &mut counted => {
                    pulls.counted = counted;
                    return;
                }
                () = self.flow.stop.cancelled() => return,
                _ = more.changed() => {}
            }
        }
    }

    /// Pulls until it has to begin anew (`None`), or until the source was stopped and the flow ended: see
    /// [`Leg::pull_on`].
    async fn pull(&self, mut pulls: Pulls, link: &mut watch::Receiver<LinkState>) -> Option<(Vec<Delivery>, bool)> {
        let (mut more, mut anew) = (self.flow.more(), self.flow.anew());
        let mut beat = tokio::time::interval(self.heartbeat.min(self.lease / 3).max(Duration::from_millis(50)));
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut renewed = Instant::now();
        loop {
            if pulls.gone {
                self.consumers.forget(&self.lane);
                match self.consumers.bind(&self.connection, &self.lane).await {
                    Ok(_) => {
                        pulls.gone = false;
                        // The new one knows nothing of what the old one had delivered.
                        let made = self.consumers.made_at(&self.connection, &self.stream, &self.lane).await;
                        pulls.counted.since = pulls.counted.since.max(made);
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
                    None => return None,
                },
                () = self.flow.stop.cancelled() => return Some(self.end(pulls, link).await),
                _ = link.changed() => {
                    let state = *link.borrow_and_update();
                    if state.generation != pulls.generation || state.closed {
                        return None;
                    }
                }
                _ = anew.changed() => {
                    self.connection.renew();
                    return None;
                }
                _ = more.changed() => {}
                // Refusals that were missed are followed by others: what is refused is asked again.
                Ok(refusal) = pulls.refusals.recv() => if refusal.subject == self.pull_subject() {
                    self.flow.fail(BrokerError::denied("consume from the lane", refusal.said));
                    pulls.wait_a_little();
                },
                // Or the next pull after a refusal would wait for a beat, and jobs with it.
                () = until(pulls.not_before), if pulls.not_before.is_some_and(|until| until > Instant::now()) => {}
                () = self.connection.exchange.unsettled_below(MAX_UNSETTLED), if self.connection.exchange.unsettled() >= MAX_UNSETTLED => {}
                _ = beat.tick() => {
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
                        return None;
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
    async fn send(&self, pulls: &mut Pulls, messages: usize, pull: &Value) -> bool {
        let reply = pulls.begin(messages, self.expires);
        self.flow.pulling(self.number, pulls.open.len());
        self.connection.counters.pulled.add(1);
        let subject = self.pull_subject();
        // A pull that could not be sent is as good as lost: the silence is noticed.
        self.connection.client.publish_with_reply(subject, reply, pull.to_string().into()).await.is_ok()
    }

    /// Where pulls are sent.
    fn pull_subject(&self) -> String {
        self.connection.api_subject(&format!("CONSUMER.MSG.NEXT.{}.{}", self.stream, Layout::consumer(&self.lane)))
    }

    /// Takes what has come: a delivery, or word of a pull.
    fn take(&self, pulls: &mut Pulls, message: Message) {
        (pulls.last_heard, pulls.heard) = (Instant::now(), true);
        if message.status.is_some() {
            return self.heard(pulls, &message);
        }
        match self.owned(message, pulls) {
            Came::Other => {}
            Came::Acked => {
                pulls.brought_one();
                self.flow.pulling(self.number, pulls.open.len());
                self.flow.ended(self.number, 1, false);
            }
            Came::Delivery(delivery) => {
                pulls.delivered = Some(pulls.last_heard);
                pulls.brought_one();
                self.flow.pulling(self.number, pulls.open.len());
                self.flow.arrived(self.number, delivery);
            }
        }
    }

    /// What `message` is.
    fn owned(&self, message: Message, pulls: &Pulls) -> Came {
        if message.status.is_some() {
            return Came::Other;
        }
        let origin = message.reply.as_deref().and_then(Origin::of);
        self.connection.counters.delivered.add(1);
        self.connection.counters.delivered_bytes.add(message.payload.len() as u64);
        let delivery = delivery(&self.ends, &self.lane, &self.connection, pulls.generation, message);
        let Some(mut delivery) = delivery else { return Came::Other };
        if delivery.stored_at <= pulls.counted.since {
            delivery.delivered = delivery.delivered.max(2);
        }
        if delivery.delivered > 1 && origin.is_some_and(|origin| self.connection.acked.knows(origin)) {
            // The server has forgotten that it was acknowledged here.
            delivery.lease.ack(None);
            return Came::Acked;
        }
        Came::Delivery(delivery)
    }

    fn heard(&self, pulls: &mut Pulls, message: &Message) {
        let status = message.status.map_or(0, |status| status.as_u16());
        if status == 100 {
            return;
        }
        let Some(messages) = pulls.ended(&message.subject) else { return };
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
        pulls.drop_ended();
        self.flow.pulling(self.number, pulls.open.len());
        self.flow.at_most(self.number, pulls.sent.iter().map(|(_, messages, _)| messages).sum());
    }

    /// Ends the flow: what still came, and whether nothing more can come.
    ///
    /// The server is told first that nobody listens any more, and this side listens on until a round trip is over. What
    /// the server sent before it heard that comes before its answer; what it tried to send afterwards finds nobody, and
    /// goes back into the lane at once, not counted as delivered.
    ///
    /// Where deliveries come by way of another server, which hears it first and drops what comes for nobody, a busy flow
    /// is first given some time to bring all that it was asked for. What is between the two servers after that waits
    /// for its lease.
    async fn end(&self, mut pulls: Pulls, link: &mut watch::Receiver<LinkState>) -> (Vec<Delivery>, bool) {
        let mut late = Vec::new();
        if pulls.sent.is_empty() {
            // It asks for nothing, and all that it asked for has come.
            return (late, true);
        }
        let busy = pulls.delivered.is_some_and(|at| at.elapsed() < BUSY);
        if busy && !pulls.counted.direct {
            let filled = async {
                while self.flow.asked(self.number) > 0
                    && let Some(message) = pulls.answers.next().await
                {
                    self.take(&mut pulls, message);
                }
            };
            // Not in time is as usual as in time: it goes on either way.
            tokio::time::timeout(FILLING, filled).await.ok();
        }
        if pulls.lose_interest().await.is_err() {
            return (late, false);
        }
        // As long as what came first is owned. The answer waits behind deliveries, on a slow link for long.
        let patience = self.lease / 2;
        let answered = round_trip_within(&self.connection, &self.ends.layout, patience);
        tokio::pin!(answered);
        let sure = loop {
            tokio::select! {
                biased;
                message = pulls.answers.next() => match message {
                    Some(message) => late.extend(self.owned(message, &pulls).delivery()),
                    None => break false,
                },
                answer = &mut answered => break answer.is_ok(),
                _ = link.changed() => {
                    let state = *link.borrow_and_update();
                    if state.generation != pulls.generation || !state.up {
                        break false;
                    }
                }
            }
        };
        // The answer came by another way than the deliveries before it, which are all here now. Out of the scheduler's
        // budget, which would have some of them look as if they were not.
        while let Some(Some(message)) = unconstrained(pulls.answers.next()).now_or_never() {
            late.extend(self.owned(message, &pulls).delivery());
        }
        (late, sure)
    }
}

/// What has come.
enum Came {
    Delivery(Delivery),
    /// A delivery of what was acknowledged already, and is once more.
    Acked,
    Other,
}

impl Came {
    fn delivery(self) -> Option<Delivery> {
        match self {
            Self::Delivery(delivery) => Some(delivery),
            Self::Acked | Self::Other => None,
        }
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
