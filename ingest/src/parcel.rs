//! A request that is published as a whole: its jobs share batches with nobody, and where they went can be written
//! down and found again.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use wf_schema::{BatchBuilder, BatchId, Format, Header, Job, Lane, Millis};

use crate::batcher::{Incoming, Place};
use crate::envelope::Envelope;
use crate::publisher::together;
use crate::{BatchOptions, IdRange, PublishError, Publisher, StoredIn};

/// Jobs in the batches that they travel in.
#[derive(Debug)]
pub(crate) struct Parcel {
    parts: Vec<Part>,
    runs: Vec<Run>,
    /// The largest message that it is cut into.
    max_message: usize,
    /// For how many seconds the ends of its runs are remembered.
    remember: u32,
}

#[derive(Debug)]
struct Part {
    lane: Lane,
    due: Option<Millis>,
    batch: BatchBuilder,
}

/// `count` jobs in a row of the request go into the part numbered `part`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Run {
    part: u32,
    count: u32,
}

/// Where the jobs of a parcel go: enough to make the same parcel again of the same jobs, however much later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Plan {
    parts: Vec<PlannedPart>,
    runs: Vec<Run>,
    max_message: usize,
    remember: u32,
}

/// Why a parcel could not be published.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) error: PublishError,
    /// Whether some of it may be stored.
    pub(crate) in_part: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct PlannedPart {
    id: BatchId,
    due: Option<Millis>,
}

impl Parcel {
    /// Packs `jobs` into batches that are full by `options` and fit into messages of `max_message` bytes, compressed
    /// or not. The broker is to remember the ends of its runs for `remember` seconds.
    pub(crate) fn pack(jobs: &[Incoming<'_>], options: &BatchOptions, max_message: usize, remember: u32) -> Self {
        let raw_limit = options.raw_bytes.min(options.wire_bytes.saturating_mul(4)).min(max_message / 2);
        let mut parcel = Self { parts: Vec::new(), runs: Vec::new(), max_message, remember };
        let mut open: HashMap<Place, usize> = HashMap::new();
        for (job, args, due) in each(jobs) {
            let place = Place { lane: job.lane.clone(), format: job.format, due };
            let part = open.get(&place).copied().filter(|part| {
                let batch = &parcel.parts[*part].batch;
                batch.len() < options.jobs && batch.raw_len() + args.len() <= raw_limit
            });
            let part = part.unwrap_or_else(|| parcel.open(BatchId::new(), &place.lane, place.format, place.due));
            let part = match parcel.parts[part].batch.push_like(job, args) {
                Ok(_) => part,
                // Too many kinds or policies for one batch: the next is empty and takes it.
                Err(_) => {
                    let part = parcel.open(BatchId::new(), &place.lane, place.format, place.due);
                    let _ = parcel.parts[part].batch.push_like(job, args);
                    part
                }
            };
            parcel.run(part);
            open.insert(place, part);
        }
        parcel
    }

    /// Packs `jobs` as `plan` says; `None` if they are not the jobs that it was made for.
    pub(crate) fn repack(jobs: &[Incoming<'_>], plan: &Plan) -> Option<Self> {
        let Plan { max_message, remember, .. } = *plan;
        let mut parcel = Self { parts: Vec::new(), runs: plan.runs.clone(), max_message, remember };
        let mut parts: Vec<Option<usize>> = vec![None; plan.parts.len()];
        let mut jobs = each(jobs);
        for run in &plan.runs {
            let planned = plan.parts.get(run.part as usize)?;
            for (job, args, _) in jobs.by_ref().take(run.count as usize) {
                let slot = parts.get_mut(run.part as usize)?;
                let part = *slot.get_or_insert_with(|| parcel.open(planned.id, &job.lane, job.format, planned.due));
                if parcel.parts[part].lane != job.lane {
                    return None;
                }
                parcel.parts[part].batch.push_like(job, args).ok()?;
            }
        }
        let planned: u64 = plan.runs.iter().map(|run| u64::from(run.count)).sum();
        let packed: usize = parcel.parts.iter().map(|part| part.batch.len()).sum();
        // Parts are opened in the order of their first jobs, as they were when the plan was made.
        let whole = jobs.next().is_none() && planned == packed as u64 && parts.iter().flatten().copied().eq(0..parts.len());
        whole.then_some(parcel)
    }

    /// Where the jobs go.
    pub(crate) fn plan(&self) -> Plan {
        let planned = |part: &Part| PlannedPart { id: part.batch.header().id, due: part.due };
        let Self { max_message, remember, .. } = *self;
        Plan { parts: self.parts.iter().map(planned).collect(), runs: self.runs.clone(), max_message, remember }
    }

    /// The ids of the jobs, in the order of the request.
    pub(crate) fn ids(&self) -> Vec<IdRange> {
        let mut next = vec![0; self.parts.len()];
        let range = |run: &Run| {
            let part = run.part as usize;
            let first = next[part];
            next[part] += run.count;
            IdRange { batch: self.parts[part].batch.header().id, first, count: run.count }
        };
        self.runs.iter().map(range).collect()
    }

    /// Whether it can be published all-or-nothing: several messages can, unless one of them is for later.
    pub(crate) fn is_atomic(&self) -> bool {
        self.parts.len() <= 1 || self.parts.iter().all(|part| part.due.is_none())
    }

    /// Publishes what is for now, all of it or nothing, and then what is for later. Tells where it is.
    pub(crate) async fn publish(&self, publisher: &Publisher) -> Result<StoredIn, Failed> {
        let (now, later) = self.envelopes().map_err(Failed::whole)?;
        let none = now.is_empty();
        let stored = publisher.publish_together(now).await.map_err(Failed::whole)?;
        // Of several, some may be stored when one is not.
        let several = !none || later.len() > 1;
        let later = publisher.publish_each(later).await.map_err(|error| match several {
            true => Failed { error, in_part: true },
            false => Failed::whole(error),
        })?;
        Ok(stored.stored().max(later.stored()))
    }

    /// Publishes what is missing of a parcel that was published before, as far as anybody knows: nothing of which it is
    /// not certain that it is not stored. Whether all of it is stored now; if not, that cannot be told.
    pub(crate) async fn publish_missing(&self, publisher: &Publisher) -> Result<bool, Failed> {
        let (now, later) = self.envelopes().map_err(Failed::whole)?;
        let all: Vec<_> = now.iter().chain(&later).cloned().collect();
        let known = publisher.whether_stored(&all).await.map_err(Failed::whole)?;
        let (now_known, later_known) = known.split_at(now.len());
        // What is for now was published all or none.
        let now_known = if now.is_empty() { Some(true) } else { together(now_known) };
        if now_known.is_none() || later_known.contains(&None) {
            return Ok(false);
        }
        let missing: Vec<_> =
            later.into_iter().zip(later_known).filter(|(_, known)| **known == Some(false)).map(|(part, _)| part).collect();
        let in_part = |error| Failed { error, in_part: true };
        if now_known == Some(false) {
            publisher.publish_together(now).await.map_err(in_part)?;
        }
        publisher.publish_each(missing).await.map_err(in_part)?;
        Ok(true)
    }

    /// The messages for now, and those for later.
    fn envelopes(&self) -> Result<(Vec<Envelope>, Vec<Envelope>), PublishError> {
        let mut all = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            all.extend(Envelope::wrap(&part.lane, part.due, &part.batch, self.max_message)?);
        }
        Ok(all.into_iter().partition(|envelope| envelope.due.is_none()))
    }

    fn open(&mut self, id: BatchId, lane: &Lane, format: Format, due: Option<Millis>) -> usize {
        // The id's own time, so that the same plan gives the same message.
        let header = Header { id, enqueued_at: id.millis(), due, format, hops: 0, trace: None, remember: self.remember };
        self.parts.push(Part { lane: lane.clone(), due, batch: BatchBuilder::new(header) });
        self.parts.len() - 1
    }

    fn run(&mut self, part: usize) {
        match self.runs.last_mut() {
            Some(run) if run.part as usize == part => run.count += 1,
            _ => self.runs.push(Run { part: part as u32, count: 1 }),
        }
    }
}

impl Failed {
    /// When nothing of it was stored before.
    fn whole(error: PublishError) -> Self {
        // What was tried and not answered may be stored.
        let in_part = error.is_retryable() || matches!(error, PublishError::Lost);
        Self { error, in_part }
    }
}

/// The jobs one by one, with the args of each and the time that it falls due.
fn each<'a>(rows: &'a [Incoming<'a>]) -> impl Iterator<Item = (&'a Job<'a>, &'a [u8], Option<Millis>)> {
    rows.iter().flat_map(|row| (0..row.args.len()).filter_map(|n| Some((row.job, row.args.get(n)?, row.due))))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use wf_schema::Priority;

    use super::*;
    use crate::group::ArgsRow;

    fn incoming<'a>(job: &'a Job<'a>, due: Option<Millis>) -> Incoming<'a> {
        Incoming { job, args: ArgsRow::One(&job.args), due, run_time: Duration::ZERO, trace: None }
    }

    #[test]
    fn a_plan_makes_the_same_parcel_of_the_same_jobs() {
        let options = BatchOptions { jobs: 3, ..BatchOptions::default() };
        let jobs: Vec<_> = (0..20)
            .map(|n| Job::new("k", &n).unwrap().priority(if n % 5 == 0 { Priority::High } else { Priority::Low }))
            .collect();
        let with_due = |shift: u64| -> Vec<_> {
            jobs.iter().enumerate().map(|(n, job)| incoming(job, (n % 7 == 0).then_some(1_000 * shift))).collect()
        };
        let parcel = Parcel::pack(&with_due(1), &options, 1 << 20, 3_600);
        assert!(parcel.parts.iter().all(|part| part.batch.len() <= 3));
        let plan: Plan = serde_json::from_slice(&serde_json::to_vec(&parcel.plan()).unwrap()).unwrap();
        // A delay counts from another moment by then; the plan's time is kept.
        let again = Parcel::repack(&with_due(9), &plan).unwrap();
        assert_eq!(again.ids(), parcel.ids());
        let messages = |parcel: &Parcel| parcel.parts.iter().map(|part| part.batch.encode()).collect::<Vec<_>>();
        assert_eq!(messages(&again), messages(&parcel));
        assert_eq!(parcel.ids().iter().map(|ids| ids.count).sum::<u32>(), 20);

        assert!(Parcel::repack(&with_due(1)[1..], &plan).is_none());
        assert!(Parcel::repack(&[&with_due(1)[..], &with_due(1)[..1]].concat(), &plan).is_none());
    }
}
