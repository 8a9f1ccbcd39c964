//! Everything but the executor: jobs that do as they are told, and a broker that breaks where it is told to.

use std::collections::{BTreeMap, BTreeSet};

use futures::FutureExt as _;
use futures::future::FusedFuture as _;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use wf_broker::{Delivery, Message, Publish};
use wf_schema::{Backoff, BatchBuilder, BatchId, Format, Header, Job, Lane, Limits, OutcomeView, RunId};

use super::super::*;
use crate::hand::{Ask, Hand};
use crate::model::{Fault, Session, Store};
use crate::surplus::MAX_HOPS;
use crate::{ExecutorOptions, JobContext, JobFailure, Registry, stock};

/// What a job does at one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    Complete,
    Fail,
    FailForGood,
    Panic,
    /// Its executor dies.
    Kill,
}

/// What a job does: this at each attempt, from the first, and then completes; after so many milliseconds each time.
#[derive(Clone, Debug)]
pub(super) struct Script {
    pub(super) deeds: Vec<Deed>,
    pub(super) ms: u64,
    pub(super) max_attempts: u32,
    pub(super) store_result: bool,
    pub(super) no_pause: bool,
}

impl Script {
    fn deed(&self, attempt: u32) -> Deed {
        self.deeds.get(attempt as usize - 1).copied().unwrap_or(Deed::Complete)
    }

    /// At which attempt it ends for good, and how.
    fn end(&self) -> (u32, State) {
        (1..=self.max_attempts)
            .find_map(|attempt| match self.deed(attempt) {
                Deed::Complete => Some((attempt, State::Completed)),
                Deed::FailForGood | Deed::Kill => Some((attempt, State::Discarded)),
                _ if attempt == self.max_attempts => Some((attempt, State::Discarded)),
                _ => None,
            })
            .unwrap()
    }
}

/// When each run is asked to give jobs away: once so many have started here, all but some of the others.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Splitting {
    pub(super) after: usize,
    pub(super) keep: usize,
    pub(super) piece: usize,
}

/// Everything but the executor: the broker's store, the jobs, and who ran what when.
pub(super) struct World {
    pub(super) splitting: Splitting,
    pub(super) store: Arc<Mutex<Store>>,
    scripts: Arc<Vec<Script>>,
    pub(super) batch: BatchId,
    /// (index, attempt) and the run it was started in.
    pub(super) started: Arc<Mutex<Vec<(u32, u32, RunId)>>>,
    pub(super) crashes: usize,
}

impl World {
    pub(super) async fn new(scripts: Vec<Script>) -> Self {
        Self::remembered(scripts, 0).await
    }

    /// The same with a batch that is to be remembered for so many seconds.
    pub(super) async fn remembered(scripts: Vec<Script>, remember: u32) -> Self {
        let header = Header { remember, ..Header::new(BatchId::new(), Format::Json) };
        let mut open = BatchBuilder::new(header.clone());
        for (index, script) in scripts.iter().enumerate() {
            let backoff = if script.no_pause { Backoff { min_ms: 0, max_ms: 0 } } else { Backoff { min_ms: 100, max_ms: 5_000 } };
            let mut job = Job::new("scripted", &index).unwrap().max_attempts(script.max_attempts).backoff(backoff);
            job.policy.store_result = script.store_result;
            open.push(&job).unwrap();
        }
        let world = Self {
            splitting: Splitting::default(),
            store: Arc::default(),
            scripts: Arc::new(scripts),
            batch: header.id,
            started: Arc::default(),
            crashes: 0,
        };
        world.publish(open.encode()).await;
        world
    }

    /// The same with runs that are split.
    pub(super) async fn split(scripts: Vec<Script>, splitting: Splitting) -> Self {
        Self { splitting, ..Self::new(scripts).await }
    }

    pub(super) async fn publish(&self, bytes: Bytes) {
        let message = Message { lane: Lane::default(), id: BatchId::new().to_string().into(), bytes };
        Session::new(&self.store, []).publish(message).await.unwrap();
    }

    pub(super) fn node(&self, session: &Arc<Session>, run: RunId, hand: &Arc<Mutex<Option<Arc<Hand>>>>) -> Arc<Node> {
        let (hand, splitting, here) = (hand.clone(), self.splitting, Arc::new(Mutex::new(0)));
        let dying = session.clone();
        let (scripts, started, store, batch) = (self.scripts.clone(), self.started.clone(), self.store.clone(), self.batch);
        let registry = stock::register(Registry::new()).register("scripted", move |context: JobContext, index: u32| {
            let (script, started, store) = (scripts[index as usize].clone(), started.clone(), store.clone());
            let (hand, here, dying) = (hand.clone(), here.clone(), dying.clone());
            async move {
                let id = (context.id().index, context.attempt());
                assert_eq!((context.id().batch, id.0), (batch, index), "a job keeps its id");
                // What was moved is settled where it was moved from.
                let counts = |r: &Record, o: &OutcomeView<'_>| o.state() != State::Moved || r.header().run == run;
                let is_it = |r: &Record| r.iter().any(|o| (o.index(), o.attempt()) == id && counts(r, &o));
                let settled = store.lock().records(batch).iter().any(is_it);
                if settled {
                    return Err(JobFailure::permanent("again", "what is on record runs again"));
                }
                started.lock().push((id.0, id.1, run));
                let count = {
                    let mut here = here.lock();
                    *here += 1;
                    *here
                };
                if count == splitting.after
                    && let Some(hand) = &*hand.lock()
                {
                    hand.ask(Ask::Split { keep: splitting.keep, piece: splitting.piece });
                }
                if script.ms > 0 {
                    tokio::time::sleep(Duration::from_millis(script.ms)).await;
                }
                match script.deed(id.1) {
                    Deed::Complete => Ok(index),
                    Deed::Fail => Err(JobFailure::retryable("fail", "as the script says")),
                    Deed::FailForGood => Err(JobFailure::permanent("fail", "as the script says")),
                    Deed::Panic => panic!("as the script says"),
                    Deed::Kill => {
                        dying.die();
                        std::future::pending().await
                    }
                }
            }
        });
        let options = ExecutorOptions::new("x").unwrap().checkpoint(Duration::from_millis(20)).unwrap().concurrency(3).unwrap();
        Node::new(session.clone(), registry, options, Handle::current())
    }

    /// Runs `delivery` until it ends or its executor dies.
    pub(super) async fn live(&self, session: &Arc<Session>, delivery: Delivery) -> (Arc<Node>, bool) {
        self.live_until(session, delivery, |_| std::future::pending()).await
    }

    /// The same with something that happens meanwhile.
    pub(super) async fn live_until<M>(
        &self,
        session: &Arc<Session>,
        delivery: Delivery,
        meanwhile: impl FnOnce(Arc<Node>) -> M,
    ) -> (Arc<Node>, bool)
    where
        M: Future<Output = ()>,
    {
        let hand = Arc::default();
        let node = self.node(session, delivery.run, &hand);
        let desk = node.open(delivery.lane.clone()).unwrap();
        node.take(&desk, delivery);
        *hand.lock() = desk.hands().pop();
        node.runs.close();
        {
            let mut meanwhile = std::pin::pin!(meanwhile(node.clone()).fuse());
            let (ended, died) = (node.runs.wait(), session.died.notified());
            tokio::pin!(ended, died);
            loop {
                tokio::select! {
                    () = &mut ended => break,
                    () = &mut died => break,
                    () = &mut meanwhile, if !meanwhile.is_terminated() => {}
                }
            }
        }
        // What a crash leaves of an executor.
        node.phases.gone.cancel();
        node.runs.wait().await;
        (node, session.is_dead())
    }

    /// Runs everything to its end, executor after executor, each with its faults.
    pub(super) async fn play(&mut self, mut lives: Vec<Vec<Fault>>) {
        lives.reverse();
        for _ in 0..10_000 {
            self.store.lock().fire();
            let session = Session::new(&self.store, lives.pop().unwrap_or_default());
            match session.take() {
                Some(delivery) => self.crashes += usize::from(self.live(&session, delivery).await.1),
                None if self.store.lock().is_idle() => return,
                None => self.store.lock().expire(),
            }
        }
        panic!("it does not come to an end");
    }

    /// What must hold once all is at rest.
    pub(super) fn check(&self) {
        let store = self.store.lock();
        let records = store.records(self.batch);
        let mut dead: BTreeMap<u32, u32> = BTreeMap::new();
        let mut given_up: BTreeSet<u32> = BTreeSet::new();
        for letter in store.letters() {
            let jobs = letter.jobs(&Limits::default()).unwrap().expect("jobs died, not messages");
            for job in jobs.iter() {
                let history = job.history();
                let attempts: Vec<_> = history.iter().map(|past| past.attempt).collect();
                assert_eq!(attempts, (1..=job.attempt()).collect::<Vec<_>>(), "a dead job tells all its failures");
                if history.last().is_some_and(|last| last.failure.kind == "executor_lost") {
                    given_up.insert(job.index());
                }
                assert!(dead.insert(job.index(), job.attempt()).is_none(), "job {} is buried twice", job.index());
            }
        }
        let started = self.started.lock();
        let moves = |index: u32| {
            let moved = records.iter().flat_map(Record::iter).filter(|o| o.state() == State::Moved);
            moved.filter(|o| o.index() == index).count()
        };
        for (index, script) in self.scripts.iter().enumerate() {
            let index = index as u32;
            let (last, state) = script.end();
            let kills = script.deed(last) == Deed::Kill;
            if given_up.contains(&index) && !kills {
                // As often as this by chance is as good as guilty.
                assert!(self.crashes >= 5, "job {index} is innocent, after {} crashes", self.crashes);
                continue;
            }
            assert!(!kills || given_up.contains(&index), "job {index} kills");
            let runs = |attempt| started.iter().filter(move |(i, a, _)| (*i, *a) == (index, attempt)).map(|(_, _, run)| *run);
            for attempt in 1..=last {
                let times = runs(attempt).count();
                assert!(times >= 1, "job {index} was lost before attempt {attempt}");
                assert!(times <= 1 + self.crashes, "job {index}, attempt {attempt} ran {times} times, {} crashes", self.crashes);
                let distinct: BTreeSet<_> = runs(attempt).collect();
                // What ran when its executor crashed may be moved by the next one that has it.
                assert!(distinct.len() <= 1 + moves(index), "job {index} was retried by two messages");
            }
            assert!(moves(index) <= usize::from(MAX_HOPS), "job {index} went from one to the next");
            assert_eq!(runs(last + 1).count(), 0, "job {index} went on after its end");
            assert_eq!(dead.get(&index).copied(), (state == State::Discarded).then_some(last), "job {index}");
            let outcomes = records.iter().flat_map(Record::iter).filter(|o| o.index() == index && o.state() != State::Moved);
            let recorded: Vec<_> = outcomes.map(|o| (o.attempt(), o.state())).collect();
            let distinct: BTreeSet<_> = recorded.iter().map(|(attempt, _)| *attempt).collect();
            assert_eq!(distinct.len(), recorded.len(), "job {index} is on record twice for an attempt");
            if state == State::Discarded || script.store_result || moves(index) > 0 {
                assert!(recorded.contains(&(last, state)), "the end of job {index} is not on record");
            }
        }
    }
}

pub(super) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
}

pub(super) fn quiet_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if info.payload().downcast_ref::<&str>() != Some(&"as the script says") {
                before(info);
            }
        }));
    });
}
