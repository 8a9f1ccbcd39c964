//! A broker, and what the tests ask of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use wf_broker::{Broker, Delivery, Embedded, EmbeddedOptions, Message};
use wf_executor::{Executor, ExecutorOptions, Registry};
use wf_schema::{Batch, BatchBuilder, BatchId, DeadLetter, Format, Header, Job, Lane, Limits, Record, State};

/// Within this, whatever is to happen happens.
const PATIENCE: Duration = Duration::from_secs(30);

/// What `what` gives, or a failed test.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what}: did not happen in time"))
}

pub(crate) struct Yard {
    pub(crate) broker: Arc<dyn Broker>,
}

impl Yard {
    pub(crate) fn new(lease: Duration) -> Self {
        let options = EmbeddedOptions::default().lease(lease).unwrap();
        Self { broker: Embedded::memory(options).unwrap() }
    }

    /// Publishes `jobs` as one batch.
    pub(crate) async fn publish(&self, jobs: &[Job<'_>]) -> BatchId {
        let lane = jobs[0].lane.clone();
        let mut open = BatchBuilder::new(Header::new(BatchId::new(), Format::Json));
        for job in jobs {
            open.push(job).unwrap();
        }
        let id = open.header().id;
        self.broker.publish(Message { lane, id: id.to_string().into(), bytes: open.encode() }).await.unwrap();
        id
    }

    /// An executor that looks for what is done every 20 ms.
    pub(crate) fn start(&self, registry: Registry, concurrency: usize) -> Executor {
        let options = ExecutorOptions::new("x").unwrap().concurrency(concurrency).unwrap();
        let options = options.checkpoint(Duration::from_millis(20)).unwrap();
        Executor::start(self.broker.clone(), registry, options).unwrap()
    }

    /// What is on record of `batch`: by index and attempt, how it ended, with its result or the type of its failure.
    pub(crate) async fn records(&self, batch: BatchId) -> BTreeMap<(u32, u32), (State, String)> {
        let mut all = BTreeMap::new();
        for logged in self.broker.read(batch).await.unwrap() {
            let record = Record::decode(&logged.bytes, &Limits::default()).unwrap();
            // Put off is no attempt: another outcome of the same one follows.
            for o in record.iter().filter(|o| o.state() != State::Moved) {
                let text = o.failure().map_or_else(|| String::from_utf8_lossy(o.result()).into_owned(), |f| f.kind.clone());
                let before = all.insert((o.index(), o.attempt()), (o.state(), text));
                assert!(before.is_none(), "{} was settled twice", o.id());
            }
        }
        all
    }

    /// Waits until `batch` has `count` outcomes that are final.
    pub(crate) async fn until_final(&self, batch: BatchId, count: usize) -> BTreeMap<(u32, u32), (State, String)> {
        within("the outcomes", async {
            let mut hint = self.broker.watch(batch).await.unwrap();
            loop {
                let records = self.records(batch).await;
                if records.values().filter(|(state, _)| state.is_final()).count() >= count {
                    return records;
                }
                hint.changed().await.unwrap();
            }
        })
        .await
    }

    /// Delivers `count` messages of `lane` to one who gives them back: the next delivery is not the first.
    pub(crate) async fn deliver_in_vain(&self, lane: &str, count: usize) {
        let mut source = self.broker.lane(lane.parse().unwrap()).await.unwrap();
        source.grant(count, 64 << 20);
        let mut taken = Vec::new();
        for _ in 0..count {
            taken.push(within("a delivery", source.next()).await.unwrap());
        }
        source.stop().await.unwrap();
        taken.iter().for_each(|delivery| delivery.lease.release(Duration::ZERO));
    }

    /// The next delivery of the default lane, to somebody who is no executor.
    pub(crate) async fn take(&self) -> Delivery {
        let mut source = self.broker.lane(Lane::default()).await.unwrap();
        source.grant(1, 1 << 20);
        within("a delivery", source.next()).await.unwrap()
    }

    pub(crate) async fn dead_jobs(&self) -> Vec<Batch> {
        let page = self.broker.dead(None, 0, 1_000).await.unwrap();
        let letters = page.letters.iter().map(|buried| DeadLetter::decode(&buried.bytes, &Limits::default()).unwrap());
        letters.filter_map(|letter| letter.jobs(&Limits::default()).unwrap()).collect()
    }
}
