//! Beginning jobs: as many as there are slots for, and those that are done at once in rows.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use wf_schema::{Failure, JobView, State, now};

use super::{Jobs, Waited};
use crate::JobFailure;
use crate::attempt;
use crate::context::ContextOf;
use crate::handler::{Args, Attempt};
use crate::intake::Work;
use crate::outcome::Outcome;
use crate::retry::judge;
use crate::row::Row;
use crate::run::stride::Stride;

/// How many jobs are begun, at most, before others on this thread get their turn; and for how long.
const SLICE: usize = 1_024;
const SLICE_TIME: Duration = Duration::from_millis(1);

/// One turn on this thread.
struct Slice {
    began: Instant,
    /// How many more jobs may be begun in it.
    left: usize,
    stride: Stride,
}

/// Jobs of one kind, one behind the other, for as long as the slice lasts.
struct Line<'a> {
    jobs: &'a mut Jobs,
    work: &'a Work,
    slice: &'a mut Slice,
    kind: usize,
    /// The job that has begun and not ended, and its place.
    current: Option<(JobView<'a>, usize)>,
}

impl Jobs {
    /// Begins jobs until the slice is over, which gives the slot back, or there is no free slot left. A job that is
    /// done at once passes the slot on to the next one.
    pub(super) fn launch(&mut self, mut slot: OwnedSemaphorePermit) -> Option<OwnedSemaphorePermit> {
        let began = Instant::now();
        let mut slice = Slice { began, left: SLICE, stride: Stride::new(began) };
        let work = self.work.clone();
        while slice.left > 0 {
            let Some(job) = self.ahead(&work) else {
                self.look(&mut slice);
                return None;
            };
            let (place, kind) = (self.next, job.kind_slot());
            if slice.stride.ends_before(kind) {
                self.look(&mut slice);
            }
            let Some(Some(handler)) = self.handlers.get(kind).cloned() else {
                self.take(&mut slice);
                self.push(judge(&job, place, self.node.registry.nobody(job.kind()), now(), 0.0));
                continue;
            };
            let begun = if self.inline {
                let mut line = Line { jobs: self, work: &work, slice: &mut slice, kind, current: None };
                let waiting = attempt::begin(&*handler, &mut line);
                line.current.take().map(|(_, place)| place).zip(waiting)
            } else {
                self.take(&mut slice);
                match self.expired(&job, place) {
                    Some(outcome) => {
                        self.push(outcome);
                        None
                    }
                    None => {
                        let context = ContextOf::new(&self.shared, &job).make();
                        Some((place, attempt::start(&*handler, context, self.args(&job))))
                    }
                }
            };
            match begun {
                None => {}
                Some((place, Ok(attempt))) => {
                    self.begun += 1;
                    self.look(&mut slice);
                    self.wait_for(place, attempt, job.policy().timeout(), slot);
                    slot = self.node.slots.clone().try_acquire_owned().ok()?;
                    slice.stride = Stride::new(Instant::now());
                }
                Some((place, Err(failure))) => {
                    if let Some(job) = work.batch.get(place) {
                        self.concluded(&job, &mut slice, place, Err(failure));
                    }
                }
            }
        }
        self.look(&mut slice);
        Some(slot)
    }

    /// The next job to begin, if there is one.
    fn ahead<'a>(&mut self, work: &'a Work) -> Option<JobView<'a>> {
        if self.seek() { work.batch.get(self.next) } else { None }
    }

    /// The job ahead is dealt with.
    fn take(&mut self, slice: &mut Slice) {
        self.next += 1;
        slice.left -= 1;
    }

    /// What its handler is given.
    fn args<'a>(&self, job: &JobView<'a>) -> Args<'a> {
        Args::new(job.args(), self.work.header.format, job.policy().store_result)
    }

    /// The outcome of a job that is not worth starting any more.
    #[inline]
    fn expired(&self, job: &JobView<'_>, place: usize) -> Option<Outcome> {
        let worth = job.policy().expires_in_ms?;
        job.policy().expires_at(self.work.header.enqueued_at).filter(|at| *at <= now())?;
        let failure = Failure::new("expired", format!("not started within the {worth} ms that it was worth"));
        Some(Outcome::otherwise(place, State::Expired, Some(failure), None))
    }

    /// Sees a job that waits to its end, in a task of its own.
    fn wait_for(&mut self, place: usize, attempt: Attempt, limit: Duration, slot: OwnedSemaphorePermit) {
        self.waiting.spawn(async move {
            let began = Instant::now();
            let result = attempt::finish(attempt, limit).await;
            drop(slot);
            Waited { place, result, took: began.elapsed() }
        });
    }

    /// A job has ended where it was begun.
    fn concluded(&mut self, job: &JobView<'_>, slice: &mut Slice, place: usize, result: Result<Bytes, JobFailure>) {
        self.begun += 1;
        self.end(job, place, result);
        if slice.stride.add(job.kind_slot()) && self.look(slice) - slice.began > SLICE_TIME {
            slice.left = 0;
        }
    }

    /// Looks at the clock, and books what the jobs took that ended since the last time.
    fn look(&mut self, slice: &mut Slice) -> Instant {
        let now = Instant::now();
        if let Some(looked) = slice.stride.look(now) {
            self.measured.took(looked.kind, looked.jobs, looked.took);
            self.inline &= !looked.long;
        }
        now
    }
}

impl Row for Line<'_> {
    fn next(&mut self) -> Option<(ContextOf<'_>, Args<'_>)> {
        while self.slice.left > 0 && self.jobs.inline {
            let job = self.jobs.ahead(self.work).filter(|job| job.kind_slot() == self.kind)?;
            let place = self.jobs.next;
            self.jobs.take(self.slice);
            match self.jobs.expired(&job, place) {
                Some(outcome) => self.jobs.push(outcome),
                None => {
                    self.current = Some((job, place));
                    return Some((ContextOf::new(&self.jobs.shared, &job), self.jobs.args(&job)));
                }
            }
        }
        None
    }

    fn ended(&mut self, result: Result<Bytes, JobFailure>) {
        if let Some((job, place)) = self.current.take() {
            self.jobs.concluded(&job, self.slice, place, result);
        }
    }
}
