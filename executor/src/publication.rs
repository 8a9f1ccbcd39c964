//! What a record obliges its run to publish.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use wf_broker::{BoxFuture, Broker, BrokerError, Key, Message, Result, RunLog, Scheduled};
use wf_schema::{Lane, Millis, Record, WireError};

use crate::intake::Work;
use crate::pack::Cut;
use crate::patience::insist;
use crate::{bury, retry};

/// One message that a record obliges to. Its name follows from (batch, run, record, first job): a broker that has it
/// already does not store it twice.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Publication {
    name: Arc<str>,
    lane: Lane,
    bytes: Bytes,
    to: To,
}

#[derive(Clone, Debug, PartialEq)]
enum To {
    /// Back to its lane. The index of its first job.
    Lane(u32),
    /// Back to its lane, at a time.
    Later(Millis),
    /// To the dead letters.
    Dead,
    /// To those who want to know what became of the jobs: this record of the log.
    Readers(RunLog, u32),
}

/// What every record with outcomes obliges to: to show itself, `bytes`, record number `step` of `log`, to readers.
pub(crate) fn copy(log: &RunLog, step: u32, lane: &Lane, bytes: Bytes) -> Publication {
    Publication { name: Arc::default(), lane: lane.clone(), bytes, to: To::Readers(log.clone(), step) }
}

/// All else that `record` obliges to, in messages of at most `max` bytes; those whose first job has an index in
/// `scheduled` do not go to their lane but through a schedule.
///
/// Messages with several jobs are cut as the record says, or two publishers of it, of whom one's server takes less, would
/// publish other messages under the same names, and a job of one would be lost behind a name of the other. Where not
/// even those fit any more, they are cut again, and their names say so: what the writer of the record published then comes
/// twice, but nothing is lost.
///
/// # Errors
/// When a single job does not fit.
pub(crate) fn plan(record: &Record, work: &Work, scheduled: &[u32], max: usize) -> Result<Vec<Publication>, WireError> {
    let header = record.header();
    let said = (header.cut as usize).max(1);
    let mut several = said;
    while several > max {
        several /= 2;
    }
    let cut = Cut { several, one: max };
    let again = if several == said { String::new() } else { format!(".c{several}") };
    let name = |what: &dyn fmt::Display, first: u32| -> Arc<str> {
        format!("{}.{}.{}.{what}.{first}{again}", header.batch, header.run, header.step).into()
    };
    let retries = retry::messages(record, work, cut)?.into_iter().map(|message| Publication {
        name: name(&message.due.unwrap_or(0), message.first),
        lane: header.lane.clone(),
        bytes: message.bytes,
        to: match message.due {
            Some(due) => To::Later(due),
            None if scheduled.contains(&message.first) => To::Later(0),
            None => To::Lane(message.first),
        },
    });
    let dead = bury::letters(record, work, cut)?.into_iter().map(|letter| Publication {
        name: name(&"dead", letter.first),
        lane: header.lane.clone(),
        bytes: letter.bytes,
        to: To::Dead,
    });
    Ok(retries.chain(dead).collect())
}

impl Publication {
    /// Whether it goes through a schedule that the record itself does not ask for.
    pub(crate) fn is_diverted(&self) -> bool {
        self.to == To::Later(0)
    }

    /// Publishes it, for as long as it takes. What its lane has no room for, or is closed to this executor, is not
    /// stored, and the index of its first job is given back.
    ///
    /// Waiting for room could be waiting for ourselves: the lane may be full of what executors hold that all wait like
    /// this. Schedules have room of their own, and every executor may make them.
    pub(crate) async fn publish(self, broker: &dyn Broker) -> Result<Option<u32>> {
        match &self.to {
            To::Readers(log, step) => {
                let shown = insist("publish an outcome", || broker.publish_outcome(log.clone(), *step, self.bytes.clone())).await;
                match shown {
                    // The log has taken as much. Whoever wants to know goes without, and the jobs go on.
                    Err(error @ BrokerError::TooLarge { .. }) => {
                        tracing::warn!(batch = %log.batch, %error, "an outcome is not shown");
                    }
                    shown => shown?,
                }
            }
            To::Dead => insist("bury", || broker.bury(self.lane.queue.clone(), self.name.clone(), self.bytes.clone())).await?,
            To::Later(due) => self.schedule(broker, *due).await?,
            To::Lane(first) => {
                let message = || Message { lane: self.lane.clone(), id: self.name.clone(), bytes: self.bytes.clone() };
                if !insist("publish a retry", || if_possible(broker, message())).await? {
                    return Ok(Some(*first));
                }
            }
        }
        Ok(None)
    }

    async fn schedule(&self, broker: &dyn Broker, due: Millis) -> Result<()> {
        let key = Key::new(&self.name).map_err(|error| BrokerError::fatal("schedule a retry", error))?;
        let scheduled = || Scheduled { lane: self.lane.clone(), key: key.clone(), due, bytes: self.bytes.clone() };
        insist("schedule a retry", || broker.publish_at(scheduled())).await
    }
}

/// Publishes `message`: whether it is stored. It is not if its lane is full, or this executor may not publish to lanes.
fn if_possible(broker: &dyn Broker, message: Message) -> BoxFuture<'_, bool> {
    Box::pin(async move {
        match broker.publish(message).await {
            Ok(_) => Ok(true),
            Err(BrokerError::Full { .. } | BrokerError::Denied { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use wf_broker::Delivery;
    use wf_schema::{Batch, BatchBuilder, BatchId, Format, Header, Job, Kind, Limits, RecordBuilder, RecordHeader, RunId, State};

    use super::*;
    use crate::model::NoLease;

    /// A record in which all jobs of a batch of some 500 kB go on at once.
    fn retried(cut: u32) -> (Record, Arc<Work>) {
        let mut open = BatchBuilder::new(Header::new(BatchId::new(), Format::Json));
        for n in 0..100 {
            let noise: String = std::iter::repeat_with(fastrand::alphanumeric).take(7_000).collect();
            open.push(&Job::new("k", &(n, noise)).unwrap()).unwrap();
        }
        let delivery = Delivery {
            lane: Lane::default(),
            id: "".into(),
            bytes: open.encode(),
            run: RunId::new('t', 1),
            delivered: 1,
            fallback_id: BatchId::from(1),
            stored_at: 0,
            fired: None,
            lease: Arc::new(NoLease),
        };
        let work = Work::read(&delivery, &Limits::default()).unwrap();
        let header = RecordHeader {
            batch: work.header.id,
            run: delivery.run,
            step: 0,
            writer: 1,
            executor: "x".into(),
            at: 1_000,
            lane: Lane::default(),
            format: Format::Json,
            cut,
        };
        let mut record = RecordBuilder::new(header);
        for index in 0..100 {
            assert!(record.failed(index, 1, &Kind::new("k").unwrap(), State::Retryable, None, Some(1_000)));
        }
        (Record::decode(&record.encode(), &Limits::default()).unwrap(), work)
    }

    /// What a broker has stored once both have published, in this order.
    fn stored(both: [Vec<Publication>; 2]) -> Vec<u32> {
        let mut names = BTreeMap::new();
        for publication in both.into_iter().flatten() {
            names.entry(publication.name).or_insert(publication.bytes);
        }
        let batches = names.values().map(|bytes| Batch::decode(bytes, &Limits::default()).unwrap());
        let mut indexes: Vec<u32> = batches.flat_map(|batch| batch.iter().map(|job| job.index()).collect::<Vec<_>>()).collect();
        indexes.sort_unstable();
        indexes
    }

    #[test]
    fn servers_that_take_less_or_more_see_the_same_messages() {
        let (record, work) = retried(256 << 10);
        let plans = [1 << 20, 300 << 10, 64 << 20].map(|max| plan(&record, &work, &[], max).unwrap());
        assert!(plans[0].len() > 1);
        assert!(plans.iter().all(|plan| *plan == plans[0]), "two holders of the run would publish different messages");
        assert_eq!(stored([plans[0][..1].to_vec(), plans[1].clone()]), (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn where_even_those_do_not_fit_no_job_is_lost_behind_a_name() {
        let (record, work) = retried(256 << 10);
        let plans = [1 << 20, 100 << 10].map(|max| plan(&record, &work, &[], max).unwrap());
        for both in [plans.clone(), [plans[1].clone(), plans[0].clone()]] {
            // One publishes the first message, and then the other all.
            let both = [both[0][..1].to_vec(), both[1].clone()];
            let distinct: BTreeSet<_> = stored(both).into_iter().collect();
            assert_eq!(distinct.len(), 100);
        }
    }
}
