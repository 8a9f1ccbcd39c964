//! The simulated broker as one node sees it: the whole contract, over a link on which anything may happen.

mod consume;
mod control;
mod keyed;
mod outcomes;
mod publish;
mod settle;
mod trace;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};
use wf_broker::{BoxFuture, Broker, BrokerError, Result};
use wf_schema::{BatchId, Millis, RunId};

use super::clock;
use super::history::{Mishap, Op};
use super::world::{Inner, World, ms};

pub(crate) use consume::{pump, send};

/// One life of a node, and its connection. Once the node is dead nothing is answered any more: whatever still runs of it
/// cannot be told from what was stopped there.
pub(crate) struct Session {
    me: std::sync::Weak<Self>,
    world: World,
    pub(crate) node: usize,
    pub(crate) life: u32,
    timeout: Duration,
    lease: Duration,
    window: Duration,
    max_message: usize,
    /// Acks and releases that are not confirmed yet.
    unsettled: AtomicUsize,
    settled: Notify,
}

impl Session {
    pub(crate) fn new(world: &World, node: usize, life: u32) -> Arc<Self> {
        let (timeout, lease, window, max_message) = {
            let world = world.lock();
            let setting = &world.setting;
            (ms(setting.timeout_ms), ms(setting.lease_ms), ms(setting.dedup_ms), setting.message_bytes as usize)
        };
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            world: world.clone(),
            node,
            life,
            timeout,
            lease,
            window,
            max_message,
            unsettled: AtomicUsize::new(0),
            settled: Notify::new(),
        })
    }

    pub(crate) fn world(&self) -> &World {
        &self.world
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.world.lock().is_alive(self.node, self.life)
    }

    /// Goes on only as long as the node lives; its clock is what counts from then on.
    pub(crate) async fn live(&self) {
        let skew = {
            let world = self.world.lock();
            world.is_alive(self.node, self.life).then(|| world.nodes[self.node].skew)
        };
        match skew {
            Some(skew) => clock::skew(skew),
            None => std::future::pending().await,
        }
    }

    /// The node is gone from here on.
    async fn crash<T>(&self) -> T {
        {
            let mut world = self.world.lock();
            if world.is_alive(self.node, self.life) {
                world.kill(self.node);
            }
        }
        std::future::pending().await
    }

    /// Asks the server to `act`: over the link, if the history lets it.
    async fn ask<T>(
        &self,
        op: Op,
        detail: u64,
        what: &'static str,
        act: impl FnOnce(&mut Inner, Instant) -> Result<T>,
    ) -> Result<T> {
        self.live().await;
        let asked = Instant::now();
        let (mishap, mut there) = {
            let mut world = self.world.lock();
            world.note(op, self.node, detail);
            (world.mishap(op, self.node), world.latency())
        };
        match mishap {
            Some(Mishap::CrashBefore) => return self.crash().await,
            Some(Mishap::Slow(more)) => there += ms(more.into()),
            _ => {}
        }
        travel(there).await;
        self.live().await;
        if mishap == Some(Mishap::LoseRequest) || !self.reaches(asked).await {
            sleep_until(asked + self.timeout).await;
            self.live().await;
            return Err(BrokerError::retryable(what, "no answer in time"));
        }
        let (done, epoch, back) = {
            let mut world = self.world.lock();
            let done = act(&mut world, Instant::now());
            world.note(op, self.node, u64::from(done.is_ok()) + 2);
            (done, world.epoch, world.latency())
        };
        match mishap {
            Some(Mishap::CrashAfter) => return self.crash().await,
            Some(Mishap::LoseAnswer) => sleep_until(asked + self.timeout).await,
            _ => travel(back).await,
        }
        self.live().await;
        let heard = {
            let world = self.world.lock();
            world.epoch == epoch && !world.is_cut(self.node, Instant::now()) && mishap != Some(Mishap::LoseAnswer)
        };
        if heard {
            return done;
        }
        sleep_until(asked + self.timeout).await;
        self.live().await;
        Err(BrokerError::retryable(what, "the answer is lost"))
    }

    /// Waits until the server can be reached: whether that was so in time.
    async fn reaches(&self, asked: Instant) -> bool {
        let until = asked + self.timeout;
        loop {
            let now = Instant::now();
            if self.world.lock().reaches(self.node, now) {
                return true;
            }
            if now >= until {
                return false;
            }
            sleep((until - now).min(Duration::from_millis(100))).await;
            self.live().await;
        }
    }
}

/// Nothing takes no time at all.
async fn travel(time: Duration) {
    if time.is_zero() {
        tokio::task::yield_now().await;
    } else {
        sleep(time).await;
    }
}

/// The id of a message without one.
fn fallback(run: RunId, at: Millis, id: &str) -> BatchId {
    BatchId::derived(at, &[run.to_string().as_bytes(), &at.to_le_bytes(), id.as_bytes()])
}

impl Broker for Session {
    fn ping(&self) -> BoxFuture<'_, Duration> {
        Box::pin(async {
            let asked = Instant::now();
            self.ask(Op::Other, 0, "answer a ping", |_, _| Ok(())).await?;
            Ok(asked.elapsed())
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.all_settled())
    }
}

impl Session {
    /// Waits until acks and releases are confirmed, or the broker's own deadline has passed.
    async fn all_settled(&self) -> Result<()> {
        let settled = async {
            loop {
                let settled = self.settled.notified();
                if self.unsettled.load(SeqCst) == 0 {
                    return;
                }
                settled.await;
            }
        };
        let answer = tokio::time::timeout(self.timeout, settled).await;
        self.live().await;
        answer.map_err(|_| BrokerError::retryable("confirm what was settled", "no answer in time"))
    }
}
