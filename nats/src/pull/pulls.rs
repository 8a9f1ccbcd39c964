//! The pulls of one leg: what was asked for, and what may still come of it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use async_nats::{Subject, Subscriber};
use tokio::sync::broadcast;

use crate::link::Refusal;
use crate::uptime::Counted;

/// How long after its end a pull may still bring something.
const SLACK: Duration = Duration::from_secs(5);

/// The pulls of one leg since it last began anew.
pub(super) struct Pulls {
    pub(super) answers: Subscriber,
    pub(super) refusals: broadcast::Receiver<Refusal>,
    inbox: String,
    next: u64,
    /// Number, messages, and when nothing can come of it any more.
    pub(super) sent: VecDeque<(u64, usize, Instant)>,
    /// Number, and messages it may still bring, of those that seem to be open at the server, in the order in which it
    /// serves them.
    pub(super) open: VecDeque<(u64, usize)>,
    pub(super) last_heard: Instant,
    /// Whether anything was heard at all.
    pub(super) heard: bool,
    /// No pull before then: the server has refused one.
    pub(super) not_before: Option<Instant>,
    /// The consumer was found to be gone.
    pub(super) gone: bool,
    /// The link's generation that they are of.
    pub(super) generation: u64,
    /// What is known of the consumer.
    pub(super) counted: Counted,
    /// When the last delivery came.
    pub(super) delivered: Option<Instant>,
}

impl Pulls {
    pub(super) fn new(answers: Subscriber, refusals: broadcast::Receiver<Refusal>, inbox: String, generation: u64) -> Self {
        Self {
            answers,
            refusals,
            inbox,
            next: 0,
            sent: VecDeque::new(),
            open: VecDeque::new(),
            last_heard: Instant::now(),
            heard: false,
            not_before: None,
            gone: false,
            generation,
            counted: Counted::UNKNOWN,
            delivered: None,
        }
    }

    /// Notes one for `messages` that is about to be sent and waits for `expires`: where it is to be answered.
    pub(super) fn begin(&mut self, messages: usize, expires: Duration) -> String {
        let now = Instant::now();
        if self.sent.is_empty() {
            self.last_heard = now;
        }
        let number = self.next;
        self.sent.push_back((number, messages, now + expires + SLACK));
        self.open.push_back((number, messages));
        self.next += 1;
        format!("{}.{number}", self.inbox)
    }

    /// The one that is answered at `subject` has ended: for how many messages it was, if it was still known.
    pub(super) fn ended(&mut self, subject: &Subject) -> Option<usize> {
        let number: u64 = subject.strip_prefix(self.inbox.as_str())?.strip_prefix('.')?.parse().ok()?;
        let at = self.sent.iter().position(|(sent, ..)| *sent == number)?;
        let (_, messages, _) = self.sent.remove(at)?;
        self.open.retain(|(open, _)| *open != number);
        Some(messages)
    }

    /// Drops those of which nothing can come any more.
    pub(super) fn drop_ended(&mut self) {
        let now = Instant::now();
        while self.sent.front().is_some_and(|(_, _, end)| *end <= now) {
            self.sent.pop_front();
        }
        let oldest = self.sent.front().map_or(u64::MAX, |(number, ..)| *number);
        self.open.retain(|(number, _)| *number >= oldest);
    }

    /// A message has come. Nothing tells which pull has brought it, but the server serves them in turn: one that wants
    /// more goes behind the others.
    pub(super) fn brought_one(&mut self) {
        if let Some((number, left)) = self.open.pop_front()
            && left > 1
        {
            self.open.push_back((number, left - 1));
        }
    }

    /// Not to be refused again at once, and not together with all others.
    pub(super) fn wait_a_little(&mut self) {
        self.not_before = Some(Instant::now() + Duration::from_millis(fastrand::u64(250..750)));
    }

    /// Whether the server has not said a word although pulls are with it.
    pub(super) fn silent(&self, asked: usize, heartbeat: Duration) -> bool {
        asked > 0 && !self.sent.is_empty() && self.last_heard.elapsed() > 2 * heartbeat + Duration::from_secs(1)
    }

    /// Tells the server that nobody listens any more, and listens on.
    ///
    /// The client's own ways to do this stop listening at once or as soon as anything else happens (`unsubscribe`,
    /// `drain`), and lose what is on its way. The server, asked to unsubscribe after more messages than it can count (it
    /// reads nine digits), unsubscribes at once; the client counts up to there. The test
    /// `what_is_on_its_way_when_a_source_stops_is_released` fails if a server ever takes that differently.
    pub(super) async fn lose_interest(&mut self) -> Result<(), async_nats::UnsubscribeError> {
        self.answers.unsubscribe_after(u64::MAX).await
    }
}
