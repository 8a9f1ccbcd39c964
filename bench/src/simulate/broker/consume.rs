//! Deliveries: pushed to whoever has credit, on their way for a while, and then theirs.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use wf_broker::{BoxFuture, Consume, Delivery, DeliverySource};
use wf_schema::{Lane, RunId};

use super::super::breaks::Break;
use super::super::history::{Mishap, Op};
use super::super::world::{Inner, Mail, NOTICED, Source, ms};
use super::Session;
use super::settle::Hold;

impl Consume for Session {
    fn lane(&self, lane: Lane) -> BoxFuture<'_, Box<dyn DeliverySource>> {
        Box::pin(async move {
            let news = Arc::new(Notify::new());
            let number = self
                .ask(Op::Other, 3, "open a lane", |world, _| {
                    let number = world.number();
                    world.sessions.insert((self.node, self.life), self.me.clone());
                    let (messages, bytes, inbox, owed) = (0, 0, VecDeque::new(), VecDeque::new());
                    let (node, life, news) = (self.node, self.life, news.clone());
                    world.sources.insert(number, Source { node, life, lane: lane.clone(), messages, bytes, owed, inbox, news });
                    Ok(number)
                })
                .await?;
            let Some(session) = self.me.upgrade() else { return std::future::pending().await };
            let source: Box<dyn DeliverySource> = Box::new(Flow { session, lane, number, news });
            Ok(source)
        })
    }

    fn lease(&self) -> Duration {
        self.lease
    }

    fn settled(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.all_settled())
    }
}

/// One lane's deliveries to one node.
struct Flow {
    session: Arc<Session>,
    lane: Lane,
    number: u64,
    news: Arc<Notify>,
}

/// What is in the inbox.
enum Look {
    Came(Mail),
    /// Something, from then on.
    At(Instant),
    Nothing,
}

impl Flow {
    fn look(&self, now: Instant) -> Look {
        let mut world = self.session.world.lock();
        let Some(source) = world.sources.get_mut(&self.number) else { return Look::Nothing };
        match source.inbox.front() {
            Some((at, _)) if *at > now => Look::At(*at),
            None => Look::Nothing,
            Some(_) => match source.inbox.pop_front() {
                None => Look::Nothing,
                Some((_, mail)) => {
                    world.note(Op::Deliver, self.session.node, 0);
                    Look::Came(mail)
                }
            },
        }
    }

    /// Gives back what has come and was not taken.
    fn give_back(&self, inbox: VecDeque<(Instant, Mail)>) -> u64 {
        let mut released = 0;
        for (_, mail) in inbox {
            if let Mail::Delivery(delivery) = mail {
                delivery.lease.release(Duration::ZERO);
                released += 1;
            }
        }
        released
    }
}

impl DeliverySource for Flow {
    fn grant(&mut self, messages: usize, bytes: usize) {
        let mut world = self.session.world.lock();
        if let Some(source) = world.sources.get_mut(&self.number) {
            source.messages += messages;
            source.bytes += bytes as isize;
            pump(&mut world, &self.lane, Instant::now());
        }
    }

    fn withdraw(&mut self) {
        let inbox = {
            let mut world = self.session.world.lock();
            let Some(source) = world.sources.get_mut(&self.number) else { return };
            (source.messages, source.bytes) = (0, 0);
            source.owed.clear();
            std::mem::take(&mut source.inbox)
        };
        self.give_back(inbox);
    }

    fn mend(&mut self) {
        let mut world = self.session.world.lock();
        world.hit("mended");
        pump(&mut world, &self.lane, Instant::now());
    }

    fn next(&mut self) -> BoxFuture<'_, Delivery> {
        Box::pin(async {
            loop {
                self.session.live().await;
                let news = self.news.notified();
                let now = Instant::now();
                match self.look(now) {
                    Look::Came(Mail::Delivery(delivery)) => return Ok(*delivery),
                    Look::Came(Mail::Crash) => return self.session.crash().await,
                    Look::At(at) => sleep_until(at).await,
                    Look::Nothing => news.await,
                }
            }
        })
    }

    fn stop(self: Box<Self>) -> BoxFuture<'static, u64> {
        Box::pin(async move {
            // What was on its way when the server heard of it has come by the time that it has answered.
            let stopped = self.session.ask(Op::Other, 4, "stop a lane", |_, _| Ok(())).await;
            let source = self.session.world.lock().sources.remove(&self.number);
            let strands = self.session.world.lock().breaks.has(Break::A7);
            let released = source.filter(|_| !strands).map_or(0, |source| self.give_back(source.inbox));
            stopped.map(|()| released)
        })
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        let source = self.session.world.lock().sources.remove(&self.number);
        let Some(source) = source.filter(|_| self.session.is_alive()) else { return };
        if !self.session.world.lock().breaks.has(Break::A7) {
            self.give_back(source.inbox);
        }
    }
}

/// Delivers what is ready in `lane` to whoever has credit.
pub(crate) fn pump(world: &mut Inner, lane: &Lane, now: Instant) {
    let wall = world.wall();
    let mut ready: VecDeque<RunId> = world.server.ready(lane, now, wall).into();
    while !ready.is_empty() {
        // Whoever has most credit left asks the loudest; among equals, chance decides.
        let able: Vec<u64> = world
            .sources
            .iter()
            .filter(|(_, source)| source.lane == *lane && source.messages > 0 && source.bytes > 0)
            .filter(|(_, source)| world.is_alive(source.node, source.life) && world.sends(source.node, now))
            .map(|(number, _)| *number)
            .collect();
        if able.is_empty() {
            return;
        }
        let source = able[world.rng.usize(..able.len())];
        let at = match world.disorder {
            Some(until) if now < until => world.rng.usize(..ready.len()),
            _ => 0,
        };
        let Some(run) = ready.remove(at) else { return };
        if at > 0 {
            world.hit("reordered");
        }
        send(world, run, source, now);
    }
}

/// Delivers a message to a source, whoever has it meanwhile.
pub(crate) fn send(world: &mut Inner, run: RunId, number: u64, now: Instant) {
    let Some(source) = world.sources.get(&number) else { return };
    let (node, life) = (source.node, source.life);
    let Some(session) = world.sessions.get(&(node, life)).and_then(std::sync::Weak::upgrade) else { return };
    let Some(kept) = world.server.deliver(run, now, node, life) else { return };
    if kept.delivered > 1 {
        world.hit("redelivery");
    }
    let mishap = world.mishap(Op::Deliver, node);
    let lost = world.is_cut(node, now) || matches!(mishap, Some(Mishap::LoseRequest | Mishap::LoseAnswer));
    world.truth.delivered(kept.uid, node, life);
    world.say(|| format!("{run} goes to node {node}/{life} the {}th time{}", kept.delivered, if lost { ", lost" } else { "" }));
    let fallback_id = world.fallback(run, kept.at, &kept.id);
    let done = AtomicBool::new(false);
    let hold = Hold { session, lane: kept.lane.clone(), run, uid: kept.uid, done };
    let delivery = Delivery {
        lane: kept.lane.clone(),
        id: kept.id.clone(),
        bytes: kept.bytes.clone(),
        run,
        delivered: kept.delivered,
        fallback_id,
        stored_at: kept.at,
        fired: None,
        lease: Arc::new(hold),
    };
    let mut arrives = now + world.latency();
    if let Some(Mishap::Slow(more)) = mishap {
        arrives += ms(more.into());
    }
    let Some(source) = world.sources.get_mut(&number) else { return };
    source.messages -= 1;
    source.bytes -= kept.bytes.len() as isize;
    if lost {
        source.owed.push_back((now + NOTICED, kept.bytes.len()));
    } else {
        let mail = match mishap {
            Some(Mishap::CrashBefore | Mishap::CrashAfter) => Mail::Crash,
            _ => Mail::Delivery(Box::new(delivery)),
        };
        source.inbox.push_back((arrives, mail));
        source.news.notify_one();
    }
    world.alarm.notify_one();
}
