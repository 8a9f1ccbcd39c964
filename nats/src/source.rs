//! The deliveries of one lane: the credit that was granted, and what has come and was not taken yet.
//!
//! Several *legs* pull into it, one for each of the lane's consumers on each connection. This file says how much each
//! may ask for: together no more than the credit, so that messages lie where they will be run. A leg that has seen
//! messages lately is *hot* and shares in all the credit there is; a cold one has a small part of it waiting, enough
//! to notice when something comes.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use wf_broker::{BoxFuture, BrokerError, Delivery, DeliverySource};
use wf_schema::Lane;

/// The most messages of one pull.
const MAX_CHUNK: usize = 128;

/// The most bytes under way to one source: the server closes a connection that has 64 MiB waiting to be written.
const MAX_BYTES_UNDER_WAY: i64 = 32 << 20;

/// What a message is taken to measure before one was seen, in bytes.
const FIRST_GUESS: i64 = 64 << 10;

/// The part of the way back from the largest message to those that come now which each of them goes.
const FORGET: i64 = 16;

/// What the server counts beside a message's bytes: subjects and headers.
const OVERHEAD: i64 = 768;

/// What a leg may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) messages: usize,
    /// At most so many bytes, `None` for a single message of whatever size.
    pub(crate) bytes: Option<i64>,
}

/// What legs and source share.
pub(crate) struct Flow {
    state: Mutex<State>,
    /// Something has come, or failed.
    arrived: Notify,
    /// There is more to ask for than before.
    more: watch::Sender<()>,
    /// All that was asked for is to be asked for anew.
    anew: watch::Sender<()>,
    /// The source was stopped or dropped.
    pub(crate) stop: CancellationToken,
    /// All legs have ended, and what came and was not taken is released.
    over: CancellationToken,
}

/// The flows of a broker object: what it asks of each lane itself.
#[derive(Default)]
pub(crate) struct Flows(Mutex<HashMap<Lane, Vec<Weak<Flow>>>>);

impl Flows {
    /// Remembers `flow` for as long as it is used.
    pub(crate) fn add(&self, lane: &Lane, flow: &Arc<Flow>) {
        let mut flows = self.0.lock();
        flows.retain(|_, of_lane| {
            of_lane.retain(|flow| flow.strong_count() > 0);
            !of_lane.is_empty()
        });
        flows.entry(lane.clone()).or_default().push(Arc::downgrade(flow));
    }

    /// The lanes that are consumed from.
    pub(crate) fn lanes(&self) -> Vec<Lane> {
        let flows = self.0.lock();
        let used = flows.iter().filter(|(_, of_lane)| of_lane.iter().any(|flow| flow.strong_count() > 0));
        used.map(|(lane, _)| lane.clone()).collect()
    }

    /// Of the first `legs` legs of the lane's flows: how many pulls they have open at the server, and how many of the
    /// flows wait in vain.
    pub(crate) fn open(&self, lane: &Lane, legs: usize) -> (usize, usize) {
        let flows = self.0.lock();
        let open = flows.get(lane).into_iter().flatten().filter_map(Weak::upgrade).map(|flow| flow.open(legs));
        open.fold((0, 0), |(pulls, waiting), (open, waits)| (pulls + open, waiting + usize::from(waits)))
    }
}

struct State {
    messages: i64,
    bytes: i64,
    waiting: VecDeque<(usize, Delivery)>,
    waiting_bytes: i64,
    legs: Vec<Leg>,
    /// What a message measures: at once as much as the largest, then slowly less; once one was seen.
    typical: Option<i64>,
    /// The credit was withdrawn, and there is none anew.
    withdrawn: bool,
    failed: Option<BrokerError>,
    end: End,
}

/// How the legs of a flow ended.
#[derive(Clone, Copy, Default)]
struct End {
    /// How many have.
    legs: usize,
    /// Some of them could not make sure that nothing more is on its way to them.
    unsure: bool,
    /// Deliveries that came, were not taken, and were released.
    released: u64,
}

#[derive(Clone, Copy)]
struct Leg {
    asked: usize,
    /// The pulls that are open at the server.
    pulls: usize,
    hot: bool,
    /// The next message may be larger than what was allowed for.
    overdraw: bool,
}

impl Flow {
    /// A flow of legs without credit; `hot` says which of them expect messages.
    pub(crate) fn new(hot: &[bool]) -> Self {
        let legs = hot.iter().map(|&hot| Leg { asked: 0, pulls: 0, hot, overdraw: false }).collect();
        Self {
            state: Mutex::new(State {
                messages: 0,
                bytes: 0,
                waiting: VecDeque::new(),
                waiting_bytes: 0,
                legs,
                typical: None,
                withdrawn: false,
                failed: None,
                end: End::default(),
            }),
            arrived: Notify::new(),
            more: watch::Sender::new(()),
            anew: watch::Sender::new(()),
            stop: CancellationToken::new(),
            over: CancellationToken::new(),
        }
    }

    /// Tells when there is more to ask for.
    pub(crate) fn more(&self) -> watch::Receiver<()> {
        self.more.subscribe()
    }

    /// Tells when all is to be asked for anew.
    pub(crate) fn anew(&self) -> watch::Receiver<()> {
        self.anew.subscribe()
    }

    /// What `leg` is to ask for now, if anything. It counts as asked.
    pub(crate) fn ask(&self, leg: usize) -> Option<Ask> {
        let mut state = self.state.lock();
        let ask = state.ask(leg)?;
        state.legs[leg].asked += ask.messages;
        Some(ask)
    }

    /// Counts `messages` as asked for by `leg`, whatever credit there is.
    pub(crate) fn ask_beyond(&self, leg: usize, messages: usize) {
        self.state.lock().legs[leg].asked += messages;
    }

    /// A delivery has come to `leg`.
    pub(crate) fn arrived(&self, leg: usize, delivery: Delivery) {
        let mut state = self.state.lock();
        let size = delivery.bytes.len() as i64;
        state.typical = Some(state.typical.map_or(size, |typical| size.max(typical - (typical - size) / FORGET)));
        let this = &mut state.legs[leg];
        this.asked = this.asked.saturating_sub(1);
        this.hot = true;
        this.overdraw = false;
        if state.withdrawn {
            // It was on its way. Kept until there is credit, it would be kept from others who wait for it.
            return delivery.lease.release(Duration::ZERO);
        }
        state.waiting_bytes += size;
        state.waiting.push_back((leg, delivery));
        drop(state);
        self.arrived.notify_one();
    }

    /// A pull of `leg` has ended with `left` messages not delivered; `idle` when that was because there were none.
    pub(crate) fn ended(&self, leg: usize, left: usize, idle: bool) {
        let mut state = self.state.lock();
        let this = &mut state.legs[leg];
        this.asked = this.asked.saturating_sub(left);
        this.hot &= !idle;
        drop(state);
        // Another leg may use what this one did not.
        self.more.send_replace(());
    }

    /// A pull of `leg` met a message larger than what was allowed for.
    pub(crate) fn too_small(&self, leg: usize) {
        self.state.lock().legs[leg].overdraw = true;
    }

    /// No more than `most` of what `leg` has asked for can still come.
    pub(crate) fn at_most(&self, leg: usize, most: usize) {
        let mut state = self.state.lock();
        let asked = &mut state.legs[leg].asked;
        if *asked > most {
            *asked = most;
            drop(state);
            self.more.send_replace(());
        }
    }

    /// So many pulls of `leg` are open at the server.
    pub(crate) fn pulling(&self, leg: usize, pulls: usize) {
        self.state.lock().legs[leg].pulls = pulls;
    }

    /// How many pulls the first `legs` legs have open at the server, and whether there is credit that waits in vain.
    pub(crate) fn open(&self, legs: usize) -> (usize, bool) {
        let state = self.state.lock();
        (
            state.legs.iter().take(legs).map(|leg| leg.pulls).sum(),
            state.messages > 0 && state.bytes > 0 && state.waiting.is_empty(),
        )
    }

    /// How many messages `leg` has asked for that have not come yet.
    pub(crate) fn asked(&self, leg: usize) -> usize {
        self.state.lock().legs[leg].asked
    }

    /// The flow cannot go on.
    pub(crate) fn fail(&self, error: BrokerError) {
        self.state.lock().failed = Some(error);
        self.arrived.notify_one();
    }

    /// What has come to `leg` and was not taken, oldest first.
    pub(crate) fn untaken(&self, leg: usize) -> Vec<Delivery> {
        self.state.lock().waiting.iter().filter(|(from, _)| *from == leg).map(|(_, delivery)| delivery.clone()).collect()
    }

    /// `leg` has ended; `late` is what still came to it, and `sure` says whether nothing more can. The last one out
    /// releases everything that was not taken: before that, it could come right back to another leg.
    pub(crate) fn leave(&self, leg: usize, late: Vec<Delivery>, sure: bool) {
        let mut state = self.state.lock();
        state.waiting.extend(late.into_iter().map(|delivery| (leg, delivery)));
        state.end.legs += 1;
        state.end.unsure |= !sure;
        if state.end.legs < state.legs.len() {
            return;
        }
        let untaken = std::mem::take(&mut state.waiting);
        state.end.released += untaken.len() as u64;
        drop(state);
        untaken.iter().for_each(|(_, delivery)| delivery.lease.release(Duration::ZERO));
        self.over.cancel();
    }

    /// Waits until all legs have ended: how many deliveries were released then.
    ///
    /// # Errors
    /// `Retryable` when more may be on their way.
    async fn ended_all(&self) -> wf_broker::Result<u64> {
        self.over.cancelled().await;
        match self.state.lock().end {
            End { unsure: false, released, .. } => Ok(released),
            End { released, .. } => Err(BrokerError::retryable("end the flow of the lane", Unsure { released })),
        }
    }
}

/// Why it is not sure that a flow has ended.
#[derive(Debug, thiserror::Error)]
#[error("{released} deliveries are given back; more may be on their way, and come again when their lease is over")]
struct Unsure {
    released: u64,
}

impl State {
    fn ask(&self, leg: usize) -> Option<Ask> {
        // What is granted and neither here nor asked for. The bytes of what was asked for can only be guessed.
        let asked: usize = self.legs.iter().map(|leg| leg.asked).sum();
        let credit = usize::try_from(self.messages - self.waiting.len() as i64).unwrap_or(0);
        let bytes = self.bytes - self.waiting_bytes;
        if credit == 0 || bytes <= 0 {
            return None;
        }
        let free = credit.saturating_sub(asked);
        let Leg { asked: mine, hot, overdraw, .. } = self.legs[leg];
        // A cold leg needs one message under way at least, or it would never notice anything: the one thing that is
        // asked for beyond the credit. Should it come too early, it is kept until there is credit.
        let few = (credit / 8).max(1);
        let wanted = if hot {
            let hot_legs = self.legs.iter().filter(|leg| leg.hot).count().max(1);
            let cold_legs = self.legs.len() - hot_legs;
            let share = credit.saturating_sub(cold_legs * few).div_ceil(hot_legs).max(1);
            share.saturating_sub(mine).min(free)
        } else {
            few.saturating_sub(mine).min(free)
        };
        let wanted = if mine == 0 { wanted.max(1) } else { wanted };
        let each = self.typical.unwrap_or(FIRST_GUESS) + OVERHEAD;
        let room = (bytes.min(MAX_BYTES_UNDER_WAY) - each * asked as i64).max(0);
        let fitting = usize::try_from(room / each).unwrap_or(0);
        let chunk = few.min(MAX_CHUNK);
        let messages = wanted.min(MAX_CHUNK).min(if mine == 0 { fitting.max(1) } else { fitting });
        // Few large pulls rather than many small ones, as long as something is under way.
        if messages == 0 || (messages < chunk && mine >= chunk) {
            return None;
        }
        if overdraw || messages == 1 {
            // A bound below the next message's size would be refused for ever.
            return (mine == 0 || !overdraw).then_some(Ask { messages: 1, bytes: None });
        }
        let bytes = 2 * each * messages as i64;
        Some(Ask { messages, bytes: Some(bytes) })
    }
}

/// The deliveries of one lane to one owner.
pub(crate) struct LaneSource {
    flow: Arc<Flow>,
}

impl LaneSource {
    pub(crate) fn new(flow: Arc<Flow>) -> Self {
        Self { flow }
    }
}

impl DeliverySource for LaneSource {
    fn grant(&mut self, messages: usize, bytes: usize) {
        let granted = |amount: usize| i64::try_from(amount).unwrap_or(i64::MAX);
        let mut state = self.flow.state.lock();
        state.messages = state.messages.saturating_add(granted(messages));
        state.bytes = state.bytes.saturating_add(granted(bytes));
        state.withdrawn = false;
        drop(state);
        self.flow.more.send_replace(());
    }

    fn withdraw(&mut self) {
        // The server cannot be told to forget a pull without losing what it has just sent, so pulls stay open and what
        // they bring is released.
        let mut state = self.flow.state.lock();
        // What was overdrawn stays so.
        (state.messages, state.bytes) = (state.messages.min(0), state.bytes.min(0));
        (state.withdrawn, state.waiting_bytes) = (true, 0);
        let untaken = std::mem::take(&mut state.waiting);
        drop(state);
        untaken.iter().for_each(|(_, delivery)| delivery.lease.release(Duration::ZERO));
    }

    fn mend(&mut self) {
        self.flow.anew.send_replace(());
    }

    fn next(&mut self) -> BoxFuture<'_, Delivery> {
        Box::pin(async {
            loop {
                {
                    let mut state = self.flow.state.lock();
                    if state.messages > 0
                        && state.bytes > 0
                        && let Some((_, delivery)) = state.waiting.pop_front()
                    {
                        let size = delivery.bytes.len() as i64;
                        state.waiting_bytes -= size;
                        state.messages -= 1;
                        state.bytes -= size;
                        return Ok(delivery);
                    }
                    if let Some(error) = state.failed.take() {
                        return Err(error);
                    }
                }
                // A grant needs `&mut self`, so only an arrival can change anything meanwhile.
                self.flow.arrived.notified().await;
            }
        })
    }

    fn stop(self: Box<Self>) -> BoxFuture<'static, u64> {
        let flow = self.flow.clone();
        // Tells the legs.
        drop(self);
        Box::pin(async move { flow.ended_all().await })
    }
}

impl Drop for LaneSource {
    fn drop(&mut self) {
        // Nobody waits any more.
        let mut state = self.flow.state.lock();
        state.messages = state.messages.min(0);
        drop(state);
        // The legs release what was not taken, once nothing more can come to them: what is released sooner could
        // come right back.
        self.flow.stop.cancel();
    }
}

#[cfg(test)]
mod tests;
