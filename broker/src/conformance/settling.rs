//! The settling of a run: record, then what follows from it, then the ack. Whatever happens between two steps, a
//! redelivery finds the record and repeats what comes after it, and nothing is lost.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use wf_schema::{BatchId, Lane};

use super::Rig;
use super::names::{key, lane, message};
use super::outcome_log;
use super::patience::{past_lease, until, within};
use super::publish::publish_each;
use super::schedule::publish_at;
use super::taker::Taker;
use crate::{Broker, BrokerError, Delivery, Key, LogEnd, LoggedRun, Message, RunLog, Version};

/// After which step the broker dies.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Take,
    Append,
    Retry,
    Bury,
    Ack,
}

/// One run to settle, and the names of what follows from it: made from the run, so that every repetition uses the
/// same.
struct Settling {
    lane: Lane,
    batch: BatchId,
    retry: Message,
    later: Key,
    letter: Arc<str>,
}

/// What the run's message says, its record, and what follows from that.
const RUN: &[u8] = b"the run";
const RECORD: &[u8] = b"one completed, one to be retried now, one later, one dead";
const RETRY: &[u8] = b"the retry";
const LATER: &[u8] = b"the later retry";
const LETTER: &[u8] = b"the dead letter";

impl Settling {
    fn new() -> Self {
        let (lane, batch) = (lane(), BatchId::new());
        let retry = Message { id: format!("{batch}.retry").into(), ..message(&lane, RETRY) };
        Self { retry, later: key("later"), letter: format!("{batch}.dead").into(), batch, lane }
    }

    /// Settles `delivery` as an executor does, up to and with `last`.
    async fn settle(&self, broker: &Arc<dyn Broker>, delivery: &Delivery, last: Step) {
        assert_eq!(delivery.bytes, RUN);
        let log = || RunLog { batch: self.batch, run: delivery.run, message: delivery.id.clone() };
        let mut version = Version::NONE;
        if last >= Step::Append {
            // A redelivered run reads its records first, and repeats only what comes after them.
            let LoggedRun { records, ended, .. } = within("the records", broker.read_run(log())).await.unwrap();
            assert!(!ended, "the run has not ended");
            if records.is_empty() {
                version = within("the append", broker.append(log(), Version::NONE, RECORD.into())).await.unwrap();
            } else {
                assert!(records.len() == 1 && records[0].run == delivery.run && records[0].bytes == RECORD, "{records:?}");
                version = records[0].version;
            }
        }
        if last >= Step::Retry {
            within("the copy", broker.publish_outcome(log(), 0, RECORD.into())).await.unwrap();
            within("the retry", broker.publish(self.retry.clone())).await.unwrap();
            publish_at(broker, &self.lane, &self.later, 0, LATER).await;
        }
        if last >= Step::Bury {
            let letter = broker.bury(self.lane.queue.clone(), self.letter.clone(), LETTER.into());
            within("the dead letter", letter).await.unwrap();
        }
        if last >= Step::Ack {
            delivery.lease.ack(Some(LogEnd { log: log(), version, keep: None }));
            within("settled", broker.settled()).await.unwrap();
        }
    }
}

/// The run's delivery; what else waits in the lane by then is put back.
async fn take(taker: &mut Taker) -> Delivery {
    loop {
        let delivery = taker.take().await;
        if delivery.bytes == RUN {
            return delivery;
        }
        delivery.lease.release(Duration::from_secs(1));
    }
}

/// Settles a run with a restart after `step`, and checks that all is as if there had been none.
async fn settles(rig: &dyn Rig, step: Step) {
    let settling = Settling::new();
    let broker = rig.open().await;
    publish_each(&broker, vec![message(&settling.lane, RUN)]).await;
    let mut taker = Taker::open(&broker, &settling.lane).await;
    let delivery = take(&mut taker).await;
    let run = delivery.run;
    settling.settle(&broker, &delivery, step).await;
    drop((delivery, taker, broker));
    rig.restart(Duration::ZERO).await;

    let broker = rig.open().await;
    let mut taker = Taker::open(&broker, &settling.lane).await;
    if step < Step::Ack {
        let delivery = take(&mut taker).await;
        assert_eq!(delivery.run, run, "the redelivery is another run: it would not find its record");
        assert!(delivery.delivered > 1, "the redelivery passes for a first delivery: its record would not be looked for");
        settling.settle(&broker, &delivery, Step::Ack).await;
    }
    // The retries come, at least once, and the run does not come again.
    let mut came = HashSet::new();
    while came.len() < 2 {
        let delivery = taker.take().await;
        assert!(delivery.bytes == RETRY || delivery.bytes == LATER, "{delivery:?}");
        assert_ne!(delivery.run, run);
        came.insert(delivery.bytes.clone());
        delivery.lease.ack(None);
    }
    within("settled", broker.settled()).await.unwrap();
    let quiet = tokio::time::timeout(past_lease(&*broker), async {
        // A broker may forget ids at a restart: then a retry comes once more.
        while let Ok(delivery) = taker.next().await {
            assert!(delivery.bytes == RETRY || delivery.bytes == LATER, "the run came again after it was settled");
            delivery.lease.ack(None);
        }
    });
    assert!(quiet.await.is_err(), "the source ended");

    let records = outcome_log::read(&broker, settling.batch, 1).await;
    assert_eq!((records[0].run, &records[0].bytes[..]), (run, RECORD));
    let buried = async || Some(broker.dead(Some(settling.lane.queue.clone()), 0, 10).await.unwrap().letters);
    let letters = until("the dead letter", async || buried().await.filter(|letters| !letters.is_empty())).await;
    assert!(letters.iter().all(|letter| letter.bytes == LETTER));
}

/// The broker dies while a run is under way: it comes again, with nothing recorded.
pub async fn a_restart_before_the_record(rig: &dyn Rig) {
    settles(rig, Step::Take).await;
}

/// The broker dies after the record: the redelivery sees it, and publishes what follows.
pub async fn a_restart_after_the_record(rig: &dyn Rig) {
    settles(rig, Step::Append).await;
}

/// The broker dies after the retries: they are published again under the same ids.
pub async fn a_restart_after_the_retries(rig: &dyn Rig) {
    settles(rig, Step::Retry).await;
}

/// The broker dies before the ack: all is repeated, then acknowledged.
pub async fn a_restart_before_the_ack(rig: &dyn Rig) {
    settles(rig, Step::Bury).await;
}

/// The broker dies after the ack: nothing is left to do.
pub async fn a_restart_after_the_ack(rig: &dyn Rig) {
    settles(rig, Step::Ack).await;
}

/// The broker dies again and again, after each step: the run comes as often, and settles once.
pub async fn a_restart_after_every_step(rig: &dyn Rig) {
    let settling = Settling::new();
    publish_each(&rig.open().await, vec![message(&settling.lane, RUN)]).await;
    for step in [Step::Take, Step::Append, Step::Retry, Step::Bury] {
        let broker = rig.open().await;
        let delivery = take(&mut Taker::open(&broker, &settling.lane).await).await;
        settling.settle(&broker, &delivery, step).await;
        drop((delivery, broker));
        rig.restart(Duration::ZERO).await;
    }
    let broker = rig.open().await;
    let delivery = take(&mut Taker::open(&broker, &settling.lane).await).await;
    settling.settle(&broker, &delivery, Step::Ack).await;
    outcome_log::read(&broker, settling.batch, 1).await;
    Taker::open(&broker, &settling.lane).await.ack_until_all(&[RETRY, LATER].map(Bytes::from_static)).await;
}

/// Without any restart each of what follows from a run comes once, though all was repeated by a second owner; and
/// the first owner, who wakes up late, is fenced.
pub async fn a_late_owner_is_fenced_and_nothing_comes_twice(rig: &dyn Rig) {
    let nodes = [rig.open().await, rig.open().await];
    let settling = Settling::new();
    publish_each(&nodes[0], vec![message(&settling.lane, RUN)]).await;
    let late = take(&mut Taker::open(&nodes[0], &settling.lane).await).await;
    let mut taker = Taker::open(&nodes[1], &settling.lane).await;
    let again = take(&mut taker).await;
    assert_eq!((again.run, again.delivered), (late.run, 2));
    settling.settle(&nodes[1], &again, Step::Ack).await;
    assert!(!within("an answer", late.lease.stored()).await.unwrap());
    let log = RunLog { batch: settling.batch, run: late.run, message: late.id.clone() };
    let append = nodes[0].append(log, Version::NONE, "too late".into());
    let answer = within("an answer", append).await;
    assert!(matches!(answer, Err(BrokerError::Fenced)), "{answer:?}");

    let mut came: Vec<_> = taker.take_many(2).await;
    came.iter().for_each(|delivery| delivery.lease.ack(None));
    came.sort_by(|a, b| a.bytes.cmp(&b.bytes));
    assert_eq!((&came[0].bytes[..], &came[1].bytes[..]), (LATER, RETRY));
    within("stored before", nodes[0].publish(settling.retry.clone())).await.unwrap();
    taker.nothing(past_lease(&*nodes[1])).await;
    super::dead::letters(&nodes[0], &settling.lane.queue, 1).await;
}
