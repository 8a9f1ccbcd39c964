//! Jobs of one batch into messages that fit.

use bytes::Bytes;
use wf_schema::{BatchBuilder, Header, JobView, Limits, PastFailure, WireError};

/// A job on its way into another message, under the id it was born with.
#[derive(Debug)]
pub(crate) struct Carried<'a> {
    pub(crate) job: JobView<'a>,
    pub(crate) attempt: u32,
    /// Its past failures, if they are others than those it came with.
    pub(crate) history: Option<Vec<PastFailure>>,
}

/// How jobs are put into messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    /// The most bytes of a message with several jobs.
    pub(crate) several: usize,
    /// The most bytes of any message: as much as the broker takes.
    pub(crate) one: usize,
}

/// `jobs` as messages that any reader takes: one if it fits, else halves of halves. Each comes with the index of its
/// first job, which makes a name for it: with the same [`Cut::several`] the same jobs are always cut the same way.
///
/// # Errors
/// When a single job does not fit even without its past failures.
pub(crate) fn pack(header: &Header, jobs: &[Carried<'_>], cut: Cut) -> Result<Vec<(u32, Bytes)>, WireError> {
    let mut done = Vec::new();
    let mut open = vec![jobs];
    while let Some(jobs) = open.pop() {
        let Some(first) = jobs.first() else { continue };
        let max = if jobs.len() > 1 { cut.several } else { cut.one };
        if let Some(message) = fit(header, jobs, max) {
            done.push((first.job.index(), message));
        } else if jobs.len() > 1 {
            let (left, right) = jobs.split_at(jobs.len() / 2);
            open.push(right);
            open.push(left);
        } else {
            // Past failures are for people. A job that fits only without them goes on without them.
            let bare = Carried { job: first.job, attempt: first.attempt, history: Some(Vec::new()) };
            let message = fit(header, &[bare], max).ok_or(WireError::Limit {
                what: "the size of a job on the wire",
                value: first.job.args().len(),
                limit: max,
            })?;
            done.push((first.job.index(), message));
        }
    }
    Ok(done)
}

fn fit(header: &Header, jobs: &[Carried<'_>], max: usize) -> Option<Bytes> {
    // Only of the message that the jobs first came in is it asked whether it was ever stored.
    let mut builder = BatchBuilder::new(Header { remember: 0, ..header.clone() });
    for Carried { job, attempt, history } in jobs {
        builder.carry(job, *attempt, history.as_deref()).ok()?;
        // However well it compresses: who reads it must be willing to hold it.
        if builder.raw_len() > Limits::default().raw_bytes / 2 {
            return None;
        }
    }
    Some(builder.encode()).filter(|message| message.len() <= max)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use wf_schema::{Batch, BatchId, Failure, Format, Job};

    use super::*;

    fn within(max: usize) -> Cut {
        Cut { several: max, one: max }
    }

    fn batch(jobs: usize) -> Batch {
        let mut open = BatchBuilder::new(Header::new(BatchId::new(), Format::Json));
        for n in 0..jobs {
            let noise: String = (0..200).map(|_| fastrand::alphanumeric()).collect();
            open.push(&Job::new("k", &(n, noise)).unwrap()).unwrap();
        }
        Batch::decode(&open.encode(), &Limits::default()).unwrap()
    }

    fn all(batch: &Batch) -> Vec<Carried<'_>> {
        batch.iter().map(|job| Carried { job, attempt: 2, history: None }).collect()
    }

    #[test]
    fn what_does_not_fit_is_cut_and_nothing_is_lost() {
        let batch = batch(100);
        let parts = pack(batch.header(), &all(&batch), within(2_048)).unwrap();
        assert!(parts.len() > 10 && parts.iter().all(|(_, part)| part.len() <= 2_048));
        let mut indexes = Vec::new();
        for (first, part) in parts {
            let part = Batch::decode(&part, &Limits::default()).unwrap();
            assert_eq!(part.get(0).unwrap().index(), first);
            indexes.extend(part.iter().map(|job| job.index()));
        }
        assert_eq!(indexes, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn past_failures_give_way_to_the_job() {
        let batch = batch(1);
        let message = (0..2_000).map(|_| fastrand::alphanumeric()).collect::<String>();
        let history = vec![PastFailure { attempt: 1, at: 0, failure: Failure::new("t", message) }];
        let jobs = [Carried { job: batch.get(0).unwrap(), attempt: 2, history: Some(history) }];
        let roomy = pack(batch.header(), &jobs, within(4_096)).unwrap();
        assert_eq!(Batch::decode(&roomy[0].1, &Limits::default()).unwrap().get(0).unwrap().history().len(), 1);
        let narrow = pack(batch.header(), &jobs, within(600)).unwrap();
        assert_eq!(Batch::decode(&narrow[0].1, &Limits::default()).unwrap().get(0).unwrap().history(), []);
        assert!(pack(batch.header(), &jobs, within(100)).is_err());
    }

    #[test]
    fn how_jobs_are_cut_does_not_depend_on_what_one_may_have() {
        let batch = batch(100);
        let cut = |several, one| {
            let parts = pack(batch.header(), &all(&batch), Cut { several, one }).unwrap();
            parts.into_iter().map(|(first, _)| first).collect::<Vec<_>>()
        };
        assert_eq!(cut(4_096, 4_096), cut(4_096, 1 << 20));
        assert_ne!(cut(4_096, 1 << 20), cut(2_048, 1 << 20));
        // Below what one job takes, each goes alone.
        assert_eq!(cut(10, 1 << 20).len(), 100);
    }
}
