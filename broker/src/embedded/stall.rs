//! A round that the disk did not take.
//!
//! What the writer and the lanes know stands as if it was made, and the disk has it whole or not at all. So once the
//! disk has room the store is opened anew, and the same round is made again, before anything else: then all agree,
//! whichever it was. Until then nothing new is taken. What waits is delivered, and acknowledgements gather.

#[cfg(test)]
mod tests;

use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use super::store::{DiskError, Durability, Room, Store};
use super::writer::{Op, Round, Work, Writer};
use crate::BrokerError;

/// The shortest and the longest pause between two tries; a random half of each is left out. Whether there is room is
/// looked up after each of the shortest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));
/// When to ask a disk that has no room again.
const RETRY_AFTER: Duration = Duration::from_secs(5);

pub(super) struct Stall {
    round: Round,
    /// Why it was not made.
    error: DiskError,
    /// Whether that is for want of room.
    no_room: bool,
    /// When it is tried again.
    at: Instant,
    pause: Duration,
}

impl Stall {
    pub(super) fn new(round: Round, error: DiskError, store: &dyn Store) -> Self {
        tracing::error!(
            error = &error as &dyn std::error::Error,
            "the embedded broker cannot write: it takes nothing new until it can"
        );
        // Or the database noticed it first, and says no more than that it gave up.
        let no_room = error.is_no_room() || store.room() != Room::Enough;
        let mut stall = Self { round, error, no_room, at: Instant::now(), pause: PAUSES.0 };
        stall.wait(PAUSES.0);
        stall
    }

    fn wait(&mut self, pause: Duration) {
        self.pause = pause;
        self.at = Instant::now() + pause.mul_f64(0.5 + fastrand::f64() / 2.0);
    }

    /// The error for who asks `what` meanwhile.
    pub(super) fn refuse(&self, what: &'static str) -> BrokerError {
        if self.no_room { no_room_to(what) } else { BrokerError::retryable(what, self.error.clone()) }
    }
}

/// The error for who asks `what` of a disk that has no room.
pub(super) fn no_room_to(what: &'static str) -> BrokerError {
    BrokerError::NoRoom { what, retry_after: RETRY_AFTER }
}

impl Writer {
    /// If a round is stalled, waits until it is made, or nothing can be done any more; gives what has to be done next,
    /// if that is why it waits no longer.
    pub(super) fn sit_out(&mut self) -> Option<Op> {
        while let Some(stall) = &self.stall {
            let left = stall.at.saturating_duration_since(Instant::now());
            if left.is_zero() {
                self.try_again();
                continue;
            }
            match self.ops.recv_timeout(left) {
                Ok(Op::Ask(work)) => self.decline(work),
                Ok(Op::Nudge) | Err(RecvTimeoutError::Timeout) => {}
                Ok(close @ Op::Close(_)) => {
                    self.try_again();
                    if let Some(stall) = self.stall.take() {
                        self.break_off(stall.error);
                    }
                    return Some(close);
                }
                // The core has a sender, and this has the core.
                Err(RecvTimeoutError::Disconnected) => return Some(Op::Close(None)),
            }
            // Leases run out as ever.
            self.core.lanes(|lanes| lanes.expire(Instant::now()));
        }
        None
    }

    /// Lets `work` find out that nothing is done, and say so.
    pub(super) fn decline(&mut self, work: Work) {
        let mut round = Round::new();
        work(self, &mut round);
        round.answer_all(&Ok(()));
    }

    fn try_again(&mut self) {
        let Some(mut stall) = self.stall.take() else { return };
        // Little will do: what takes the rest may be what is to be removed, and this cannot be while it is stalled.
        if self.store.room() == Room::None {
            stall.wait(PAUSES.0);
            self.stall = Some(stall);
            return;
        }
        let made = self.store.reopen().and_then(|()| self.store.commit(stall.round.writes(), Durability::Synced));
        match made {
            Ok(()) => {
                tracing::info!("the embedded broker can write again");
                self.made(stall.round);
            }
            Err(error) if error.is_mendable() => {
                tracing::debug!(error = &error as &dyn std::error::Error, "it still cannot");
                stall.error = error;
                stall.wait((stall.pause * 2).min(PAUSES.1));
                self.stall = Some(stall);
            }
            Err(error) => self.break_off(error),
        }
    }
}
