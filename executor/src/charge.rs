//! What an owned delivery takes of its node: of the budget, and as a batch at hand. Given back when dropped.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use wf_broker::Delivery;

use crate::credit::Stage;
use crate::desk::Desk;
use crate::hand::{Hand, Progress};
use crate::node::Node;

/// The charge of one delivery.
pub(crate) struct Charge {
    node: Arc<Node>,
    pub(crate) desk: Arc<Desk>,
    pub(crate) hand: Arc<Hand>,
    number: u64,
    bytes: usize,
    stage: Stage,
    opened: Option<Instant>,
    divisible: bool,
    busy: Option<Duration>,
}

impl Charge {
    pub(crate) fn new(node: Arc<Node>, desk: Arc<Desk>, delivery: &Delivery) -> Self {
        let (bytes, hand) = (delivery.bytes.len(), Arc::new(Hand::new(delivery.delivered)));
        let number = desk.take(hand.clone());
        node.account(|credit, at| credit.delivered(desk.id, bytes, at));
        Self { node, desk, hand, number, bytes, stage: Stage::Unopened, opened: None, divisible: false, busy: None }
    }

    /// Its turn has come, and it has `jobs` to begin.
    pub(crate) fn open(&mut self, jobs: usize, divisible: bool) {
        (self.opened, self.divisible) = (Some(Instant::now()), divisible);
        self.advance(0, 0, jobs);
        // Once, however often a batch that is run with care has another turn.
        if self.stage == Stage::Unopened {
            self.stage = Stage::Opened;
            self.node.account(|credit, _| credit.opened(self.desk.id, jobs));
        }
    }

    /// Of its jobs so many were begun, so many of these run, and so many could not be begun yet.
    pub(crate) fn crowded(&mut self, begun: usize, running: usize, unstarted: usize) {
        self.advance(begun, running, unstarted);
        if self.stage == Stage::Opened {
            let paced = (begun > running).then(|| self.hand.progress().rest(Instant::now()));
            if self.node.is_ending(self.desk.id, unstarted, paced) {
                // The next message is to be here when the slots are.
                self.stage = Stage::Ending;
                self.node.account(|credit, _| credit.ending(self.desk.id));
            }
        }
        self.desk.crowded.notify_one();
    }

    fn advance(&self, begun: usize, running: usize, unstarted: usize) {
        let progress = Progress { opened: self.opened, begun, running, unstarted, divisible: self.divisible };
        let (before, after) = self.hand.advance(progress);
        self.node.count_unstarted(before, after);
    }

    /// All jobs have started, or never will.
    pub(crate) fn started(&mut self) {
        self.advance(0, 0, 0);
        if matches!(self.stage, Stage::Opened | Stage::Ending) {
            let stage = std::mem::replace(&mut self.stage, Stage::Started);
            self.node.account(|credit, at| credit.started(self.desk.id, stage, at));
        }
    }

    /// The jobs took `busy` in all.
    pub(crate) fn ran(&mut self, busy: Duration) {
        self.busy = Some(busy);
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.advance(0, 0, 0);
        self.desk.leave(self.number);
        self.node.account(|credit, _| credit.finished(self.desk.id, self.stage, self.bytes, self.busy));
    }
}
