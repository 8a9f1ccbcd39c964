//! From a delivery to the jobs in it.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use wf_broker::{Delivery, RunLog};
use wf_schema::{BadItem, Batch, Format, Header, JobView, Kind, Lane, Limits, Millis, WireError, now};

/// What a delivery asks to be done. Has *places*: first the jobs, in order, then what should have been jobs and could
/// not be read.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) lane: Lane,
    /// The log of its run.
    pub(crate) log: RunLog,
    /// The batch's header, with what the delivery adds to it.
    pub(crate) header: Header,
    pub(crate) batch: Batch,
    pub(crate) bad: Vec<BadItem>,
    /// The places of jobs that are not to be run now, and when they are.
    pub(crate) later: Vec<(usize, Millis)>,
    /// The kind that stands in records for what could not be read.
    unreadable: Kind,
    /// The place of each index; only made when something is looked up that is not where it should be.
    places: OnceLock<HashMap<u32, usize>>,
}

impl Work {
    /// Reads `delivery`.
    ///
    /// # Errors
    /// When nothing of the message can be read.
    pub(crate) fn read(delivery: &Delivery, limits: &Limits) -> Result<Arc<Self>, WireError> {
        let (batch, bad, mut later) = if Batch::is_framed(&delivery.bytes) {
            let batch = Batch::decode(&delivery.bytes, limits)?;
            // Each tick of a cron is a batch of its own, though all of them bring the same message.
            let batch = if delivery.fired.is_some() { batch.with_id(delivery.fallback_id) } else { batch };
            (batch, Vec::new(), Vec::new())
        } else {
            let mut header = Header::new(delivery.fallback_id, Format::Json);
            header.enqueued_at = delivery.stored_at;
            let read = Batch::from_json(&delivery.bytes, &delivery.lane, header, limits)?;
            (read.batch, read.bad, read.later)
        };
        let mut header = batch.header().clone();
        if let Some(fired) = &delivery.fired {
            // Expiry counts from the tick, not from when the cron was made.
            header.enqueued_at = fired.tick;
        }
        let at = now();
        later.retain(|(_, due)| *due > at);
        Ok(Arc::new(Self {
            lane: delivery.lane.clone(),
            log: RunLog { batch: header.id, run: delivery.run, message: delivery.id.clone() },
            header,
            batch,
            bad,
            later,
            unreadable: Kind::new("undecodable").map_err(|_| WireError::Malformed("a kind"))?,
            places: OnceLock::new(),
        }))
    }

    /// The number of places.
    pub(crate) fn len(&self) -> usize {
        self.batch.len() + self.bad.len()
    }

    /// What could not be read, if that is what is at `place`.
    pub(crate) fn bad_at(&self, place: usize) -> Option<&BadItem> {
        self.bad.get(place.checked_sub(self.batch.len())?)
    }

    /// The job's index, attempt and kind, as a record has them.
    pub(crate) fn label(&self, place: usize) -> Option<(u32, u32, &Kind)> {
        match self.batch.get(place) {
            Some(job) => Some((job.index(), job.attempt(), job.kind())),
            None => self.bad_at(place).map(|item| (item.index, 1, &self.unreadable)),
        }
    }

    /// Whether the outcome of `job` is to be stored even if it completed. That of a job that was moved always is: what
    /// stands on record is that it has yet to be run.
    pub(crate) fn keeps(&self, job: &JobView<'_>) -> bool {
        self.header.hops > 0 || job.policy().store_result
    }

    /// Where the job with `index` is.
    pub(crate) fn place_of(&self, index: u32) -> Option<usize> {
        if self.batch.get(index as usize).is_some_and(|job| job.index() == index) {
            return Some(index as usize);
        }
        let places = self.places.get_or_init(|| {
            let jobs = self.batch.iter().map(|job| job.index());
            let bad = self.bad.iter().map(|item| item.index);
            jobs.chain(bad).enumerate().map(|(place, index)| (index, place)).collect()
        });
        places.get(&index).copied()
    }

    /// The job with `index`.
    pub(crate) fn job(&self, index: u32) -> Option<JobView<'_>> {
        self.batch.get(self.place_of(index)?)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use bytes::Bytes;
    use wf_broker::{Fired, Key};
    use wf_schema::{BatchBuilder, BatchId, Job, RunId};

    use super::*;
    use crate::model::NoLease;

    fn delivery(bytes: Bytes) -> Delivery {
        Delivery {
            lane: Lane::default(),
            id: "".into(),
            bytes,
            run: RunId::new('t', 1),
            delivered: 1,
            fallback_id: BatchId::from(7),
            stored_at: 1_000,
            fired: None,
            lease: Arc::new(NoLease),
        }
    }

    #[test]
    fn plain_json_takes_its_id_and_time_from_the_broker() {
        let message =
            Bytes::from_static(b"{\"kind\":\"noop\",\"args\":1}\n{\"kind\":7}\n{\"kind\":\"noop\",\"args\":2,\"delay\":\"1h\"}");
        let work = Work::read(&delivery(message), &Limits::default()).unwrap();
        assert_eq!((work.header.id, work.header.enqueued_at), (BatchId::from(7), 1_000));
        assert_eq!((work.len(), work.batch.len(), work.bad.len(), work.later.len()), (3, 2, 1, 1));
        assert_eq!(work.later[0].0, 1);
        // The bad line is index 1, behind the jobs 0 and 2.
        assert_eq!((work.place_of(0), work.place_of(2), work.place_of(1), work.place_of(3)), (Some(0), Some(1), Some(2), None));
        assert_eq!(work.label(2).unwrap().2.as_str(), "undecodable");
        assert!(work.job(1).is_none());
    }

    #[test]
    fn each_tick_of_a_cron_is_a_batch_of_its_own() {
        let mut open = BatchBuilder::new(Header::new(BatchId::from(1), Format::Json));
        open.push(&Job::new("noop", &0).unwrap()).unwrap();
        let mut delivery = delivery(open.encode());
        assert_eq!(Work::read(&delivery, &Limits::default()).unwrap().header.id, BatchId::from(1));
        delivery.fired = Some(Fired { key: Key::new("nightly").unwrap(), tick: 5_000 });
        let work = Work::read(&delivery, &Limits::default()).unwrap();
        assert_eq!((work.header.id, work.header.enqueued_at), (BatchId::from(7), 5_000));
        assert_eq!(work.job(0).unwrap().id().batch, BatchId::from(7));
    }
}
