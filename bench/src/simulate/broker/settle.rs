//! Settling deliveries: sent beside everything else, and resent until they are answered.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use wf_broker::{BoxFuture, Lease, LogEnd, OutcomeLog as _};
use wf_schema::{Lane, RunId};

use super::super::breaks::Break;
use super::super::history::{Mishap, Op};
use super::super::server::State;
use super::super::world::{Inner, ms};
use super::{Session, pump, travel};

/// How long to wait before something is sent again.
const AGAIN: Duration = Duration::from_millis(500);

/// The hold on one delivery.
pub(super) struct Hold {
    pub(super) session: Arc<Session>,
    pub(super) lane: Lane,
    pub(super) run: RunId,
    /// Which message it is, should the sequence come to be another's.
    pub(super) uid: u64,
    pub(super) done: std::sync::atomic::AtomicBool,
}

/// What is said of a delivery.
#[derive(Clone, Debug)]
pub(super) enum Said {
    /// It is done, and so its log ends.
    Ack(Option<LogEnd>),
    Renew,
    Release(Duration),
}

impl Lease for Hold {
    fn ack(&self, end: Option<LogEnd>) {
        if !self.done.swap(true, SeqCst) {
            self.session.settle(self.lane.clone(), self.run, self.uid, Said::Ack(end));
        }
    }

    fn stored(&self) -> BoxFuture<'_, bool> {
        let (run, uid) = (self.run, self.uid);
        Box::pin(self.session.ask(Op::Other, uid, "look for a message", move |world, _| {
            let same = world.breaks.has(Break::A2);
            Ok(world.server.messages.get(&run).is_some_and(|kept| same || kept.uid == uid))
        }))
    }

    fn renew(&self) {
        self.session.settle(self.lane.clone(), self.run, self.uid, Said::Renew);
    }

    fn release(&self, delay: Duration) {
        if !self.done.swap(true, SeqCst) {
            self.session.settle(self.lane.clone(), self.run, self.uid, Said::Release(delay));
        }
    }
}

impl Session {
    pub(super) fn settle(&self, lane: Lane, run: RunId, uid: u64, said: Said) {
        let Some(session) = self.me.upgrade() else { return };
        if tokio::runtime::Handle::try_current().is_err() {
            // The history is over.
            return;
        }
        self.unsettled.fetch_add(1, SeqCst);
        tokio::spawn(async move {
            session.send(&lane, run, uid, said.clone()).await;
            if let Said::Ack(Some(end)) = said {
                // Only now: whoever finds the message still there needs its log.
                while session.end(end.clone()).await.is_err() {
                    sleep(AGAIN).await;
                }
            }
            session.unsettled.fetch_sub(1, SeqCst);
            session.settled.notify_waiters();
        });
    }

    async fn send(&self, lane: &Lane, run: RunId, uid: u64, said: Said) {
        let op = match said {
            Said::Ack(_) => Op::Ack,
            Said::Renew => Op::Renew,
            Said::Release(_) => Op::Release,
        };
        loop {
            self.live().await;
            let (mishap, there, back) = {
                let mut world = self.world.lock();
                world.note(op, self.node, run.sequence());
                (world.mishap(op, self.node), world.latency(), world.latency())
            };
            match mishap {
                Some(Mishap::CrashBefore) => return self.crash().await,
                Some(Mishap::Slow(more)) => travel(there + ms(more.into())).await,
                _ => travel(there).await,
            }
            self.live().await;
            let now = Instant::now();
            let reached = mishap != Some(Mishap::LoseRequest) && {
                let mut world = self.world.lock();
                let reached = world.reaches(self.node, now);
                if reached {
                    apply(&mut world, self.node, lane, run, uid, &said, now);
                }
                reached
            };
            if mishap == Some(Mishap::CrashAfter) {
                return self.crash().await;
            }
            travel(back).await;
            let heard = reached && mishap != Some(Mishap::LoseAnswer) && !self.world.lock().is_cut(self.node, Instant::now());
            // A renewal is not repeated: the next one is on its way.
            if heard || matches!(said, Said::Renew) {
                return;
            }
            sleep(AGAIN).await;
        }
    }
}

fn apply(world: &mut Inner, from: usize, lane: &Lane, run: RunId, uid: u64, said: &Said, now: Instant) {
    let Some(kept) = world.server.messages.get(&run) else { return };
    // Of a message that is gone, nothing is said any more: the client looks before it says it to a server that may have
    // been rolled back.
    if kept.uid != uid && !world.breaks.has(Break::A2) {
        return;
    }
    let uid = kept.uid;
    match said {
        Said::Ack(_) => {
            world.server.remove(run, now);
            world.say(|| format!("{run} is acknowledged"));
            world.truth.removed(uid);
        }
        Said::Renew => world.server.renew(run, now),
        Said::Release(delay) => {
            // A late one takes it from whoever has it by now, which is their misfortune.
            if let State::Out { node, .. } = kept.state
                && node != from
            {
                world.hit("late release");
                world.truth.disturb(Some(node), now);
            }
            world.say(|| format!("{run} is released"));
            world.server.release(run, now, *delay);
            world.alarm.notify_one();
            pump(world, lane, now);
        }
    }
}
