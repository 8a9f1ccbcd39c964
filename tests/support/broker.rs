//! Looking into a broker from outside of the program, through the contract.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::task::AbortOnDropHandle;
use wf_broker::{Broker, LaneStats};
use wf_schema::{BatchId, DeadLetter, JobId, Lane, Limits, Record};

/// The lane that `text` names: `default.normal`.
pub(crate) fn lane(text: &str) -> Lane {
    text.parse().unwrap()
}

/// How full a lane is.
pub(crate) async fn look(broker: &dyn Broker, of: &str) -> LaneStats {
    broker.stats(lane(of)).await.unwrap()
}

/// All dead letters.
pub(crate) async fn dead_letters(broker: &dyn Broker) -> Vec<DeadLetter> {
    let page = broker.dead(None, 0, 1_000).await.unwrap();
    page.letters.iter().map(|letter| DeadLetter::decode(&letter.bytes, &Limits::default()).unwrap()).collect()
}

/// The final outcomes of `batches`: of each job its state, its attempts and its result. Fails when a job has two.
pub(crate) async fn outcomes_of(broker: &dyn Broker, batches: &BTreeSet<BatchId>) -> BTreeMap<JobId, String> {
    let mut found = BTreeMap::new();
    for batch in batches {
        for logged in broker.read(*batch).await.unwrap() {
            let record = Record::decode(&logged.bytes, &Limits::default()).unwrap();
            for outcome in record.iter().filter(|outcome| outcome.state().is_final()) {
                let end = match outcome.failure() {
                    Some(failure) => failure.to_string(),
                    None => String::from_utf8_lossy(outcome.result()).into_owned(),
                };
                let told = format!("{} {} {} {end}", outcome.kind(), outcome.state(), outcome.attempt());
                let before = found.insert(outcome.id(), told);
                assert!(before.is_none(), "a second final outcome of {}: {before:?}", outcome.id());
            }
        }
    }
    found
}

/// The batches whose outcomes were recorded since this began to listen.
pub(crate) struct Heard {
    batches: Arc<Mutex<BTreeSet<BatchId>>>,
    _listening: AbortOnDropHandle<()>,
}

impl Heard {
    pub(crate) async fn listen(broker: Arc<dyn Broker>) -> Self {
        let batches = Arc::new(Mutex::new(BTreeSet::new()));
        let mut hints = broker.watch_all().await.unwrap();
        let heard = batches.clone();
        let listening = tokio::spawn(async move {
            while let Ok(hint) = hints.changed().await {
                heard.lock().extend(hint);
            }
        });
        Self { batches, _listening: AbortOnDropHandle::new(listening) }
    }

    pub(crate) fn batches(&self) -> BTreeSet<BatchId> {
        self.batches.lock().clone()
    }
}
