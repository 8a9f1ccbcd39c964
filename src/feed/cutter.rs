//! Cutting the input into segments, and each segment into batches.

use std::collections::VecDeque;
use std::io::Read;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use wf_schema::{BatchBuilder, BatchId, Header, Job, Lane, Limits, Millis, now};

use super::lines::{Line, Lines};

/// A segment has at most this many lines.
const SEGMENT_LINES: u64 = 65_536;
/// A segment ends after this many bytes of input.
const SEGMENT_BYTES: u64 = 8 << 20;
/// What a line may have beside the args of its job, in bytes.
const LINE_SLACK: usize = 64 << 10;

/// Where a segment lies in the input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// Which segment it is, from 0.
    pub number: u64,
    /// The lines before it.
    pub first_line: u64,
    /// Its lines.
    pub lines: u64,
    /// The bytes before it.
    pub first_byte: u64,
    /// Its bytes.
    pub bytes: u64,
    /// The batches it is cut into.
    pub batches: u64,
    /// A checksum of its lines, to notice an input that has changed.
    pub digest: u32,
    /// When it was cut first, in milliseconds since the Unix epoch: none of its jobs was published before.
    pub at: Millis,
}

impl Span {
    fn starting_after(previous: Option<&Self>) -> Self {
        let (number, first_line, first_byte) =
            previous.map_or((0, 0, 0), |p| (p.number + 1, p.first_line + p.lines, p.first_byte + p.bytes));
        Self { number, first_line, first_byte, ..Self::default() }
    }
}

/// How an input is cut. Kept with a run, so that it is cut the same way when the run is resumed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Names the run; batch ids follow from it.
    pub run: BatchId,
    /// The most jobs in a batch.
    pub batch_jobs: usize,
    /// The most bytes in a batch, before compression.
    pub batch_raw_bytes: usize,
    /// The most bytes in a message: what a batch is cut into.
    pub max_message: usize,
    /// For how many seconds the broker is asked to remember the ends of runs.
    pub remember: u32,
    /// Segments that were planned before and not finished, in order.
    pub open: VecDeque<Span>,
    /// The last segment that was planned before.
    pub last: Option<Span>,
}

impl Plan {
    /// The plan of a run that begins, of batches with so many jobs and bytes, in messages of at most `max_message` bytes.
    pub fn new(run: BatchId, batch_jobs: usize, batch_raw_bytes: usize, max_message: usize) -> Self {
        Self { run, batch_jobs, batch_raw_bytes, max_message, remember: 0, open: VecDeque::new(), last: None }
    }

    /// The same, whose broker is asked to remember the ends of runs for `seconds`.
    pub fn remembered(self, seconds: u32) -> Self {
        Self { remember: seconds, ..self }
    }

    /// The id of the batch at `place` in a segment: the same whenever the segment is cut.
    pub fn batch_id(&self, segment: u64, place: u64) -> BatchId {
        BatchId::derived(self.run.millis(), &[&self.run.as_u128().to_le_bytes(), &segment.to_le_bytes(), &place.to_le_bytes()])
    }

    /// The ids of all batches of open segments.
    pub fn open_batches(&self) -> impl Iterator<Item = BatchId> {
        self.open.iter().flat_map(|span| (0..span.batches).map(|place| self.batch_id(span.number, place)))
    }
}

/// A stretch of the input, cut into batches.
pub struct Segment {
    /// Where it lies.
    pub span: Span,
    /// Whether it was planned before, by a run that was interrupted.
    pub replayed: bool,
    /// Its jobs.
    pub batches: Vec<CutBatch>,
    /// Its lines that are no jobs.
    pub bad: Vec<BadLine>,
}

impl Segment {
    /// The number of its jobs.
    pub fn jobs(&self) -> u64 {
        self.batches.iter().map(|b| b.builder.len() as u64).sum()
    }
}

/// A batch that is ready to be published.
pub struct CutBatch {
    /// Where it goes.
    pub lane: Lane,
    /// When.
    pub due: Due,
    /// Its jobs.
    pub builder: BatchBuilder,
}

/// When a batch is to be delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// At once.
    Now,
    /// Not before that time.
    At(Millis),
}

impl Due {
    /// The time, if it is not now.
    pub fn time(self) -> Option<Millis> {
        match self {
            Self::Now => None,
            Self::At(at) => Some(at),
        }
    }
}

/// A line that is no job.
#[derive(Clone, Debug)]
pub struct BadLine {
    /// Which line, from 1.
    pub line: u64,
    /// What is wrong with it.
    pub message: String,
}

/// Why there are no more segments.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FeedError {
    /// The input could not be read.
    #[error("the input cannot be read")]
    Read(#[source] std::io::Error),
    /// The input is not the one that the run began with.
    #[error("the input has changed since the run began: lines {from} to {to} differ; begin anew with --fresh")]
    Changed {
        /// The first line that may differ, from 1.
        from: u64,
        /// The last line that may differ.
        to: u64,
    },
}

/// Cuts an input into segments.
pub struct Cutter {
    lines: Lines,
    plan: Plan,
    limits: Limits,
    patience: Duration,
    store_results: bool,
}

impl Cutter {
    /// Cuts `input`, one job a line, as `plan` says. A pause of `patience` in the input ends a segment, so that the
    /// jobs which are there are not kept waiting. With `store_results` every job asks for its outcome to be stored.
    ///
    /// # Errors
    /// When no thread can be started to read the input.
    pub fn new(
        input: impl Read + Send + 'static,
        plan: Plan,
        limits: Limits,
        patience: Duration,
        store_results: bool,
    ) -> Result<Self, FeedError> {
        let lines = Lines::read(input, limits.args_bytes + LINE_SLACK).map_err(FeedError::Read)?;
        Self::of(lines, plan, limits, patience, store_results)
    }

    /// The same without a thread that reads ahead, and so without pauses: for the simulator.
    ///
    /// # Errors
    /// When the input cannot be read, or is not the one that `plan` was made for.
    #[doc(hidden)]
    pub fn here(input: Box<dyn Read + Send>, plan: Plan, limits: Limits, store_results: bool) -> Result<Self, FeedError> {
        let lines = Lines::here(input, limits.args_bytes + LINE_SLACK);
        Self::of(lines, plan, limits, Duration::ZERO, store_results)
    }

    fn of(mut lines: Lines, plan: Plan, limits: Limits, patience: Duration, store_results: bool) -> Result<Self, FeedError> {
        // What lies before the first open segment was settled by the run that is resumed.
        let start = match (plan.open.front(), &plan.last) {
            (Some(open), _) => open.first_byte,
            (None, Some(last)) => last.first_byte + last.bytes,
            (None, None) => 0,
        };
        if !lines.skip(start).map_err(FeedError::Read)? {
            return Err(FeedError::Changed { from: 1, to: plan.last.map_or(1, |l| l.first_line + l.lines) });
        }
        Ok(Self { lines, plan, limits, patience, store_results })
    }

    /// The next segment; `None` at the end of the input. Blocks.
    ///
    /// # Errors
    /// When the input cannot be read, or is not the one that `plan` was made for.
    pub fn cut_next(&mut self) -> Result<Option<Segment>, FeedError> {
        if let Some(planned) = self.plan.open.pop_front() {
            let segment = self.cut(Span { lines: 0, bytes: 0, batches: 0, digest: 0, ..planned }, Some(planned.lines))?;
            if segment.span != planned {
                return Err(FeedError::Changed { from: planned.first_line + 1, to: planned.first_line + planned.lines });
            }
            // Between two open segments lie settled ones.
            let resume = self.plan.open.front().or(self.plan.last.as_ref()).copied();
            if let Some(next) = resume.filter(|next| next.number > planned.number) {
                let target = if self.plan.open.is_empty() { next.first_byte + next.bytes } else { next.first_byte };
                self.lines.skip(target.saturating_sub(planned.first_byte + planned.bytes)).map_err(FeedError::Read)?;
            }
            return Ok(Some(Segment { replayed: true, ..segment }));
        }
        let segment = self.cut(Span::starting_after(self.plan.last.as_ref()), None)?;
        if segment.span.lines == 0 {
            return Ok(None);
        }
        self.plan.last = Some(segment.span);
        Ok(Some(segment))
    }

    /// Reads exactly `planned` lines if given, else as many as make a segment.
    fn cut(&mut self, mut span: Span, planned: Option<u64>) -> Result<Segment, FeedError> {
        let mut open = Open { plan: &self.plan, segment: span.number, batches: Vec::new(), lanes: Vec::new() };
        let mut bad = Vec::new();
        loop {
            let full = planned.map_or(span.lines >= SEGMENT_LINES || span.bytes >= SEGMENT_BYTES, |lines| span.lines >= lines);
            if full {
                break;
            }
            let patience = (planned.is_none() && span.lines > 0).then_some(self.patience);
            let (line, took) = match self.lines.next(patience).map_err(FeedError::Read)? {
                Line::Whole(line, took) => (Some(line), took),
                Line::TooLong(took) => (None, took),
                Line::Pause | Line::End => break,
            };
            span.lines += 1;
            span.bytes += took as u64;
            let number = span.first_line + span.lines;
            let Some(line) = line else {
                bad.push(BadLine {
                    line: number,
                    message: format!("the line has {took} bytes; at most {} + 65536", self.limits.args_bytes),
                });
                continue;
            };
            span.digest = crc32c::crc32c_append(span.digest, line);
            let line = line.trim_ascii();
            if line.is_empty() {
                continue;
            }
            match Job::from_json(line, &self.limits) {
                Ok(mut job) => {
                    job.policy.store_result |= self.store_results;
                    open.add(&job);
                }
                Err(error) => bad.push(BadLine { line: number, message: error.to_string() }),
            }
        }
        let mut batches = open.batches;
        span.batches = batches.len() as u64;
        if span.at == 0 {
            span.at = now();
        }
        // The same whenever the segment is cut: so are the messages, byte by byte.
        batches.iter_mut().for_each(|batch| batch.builder.set_enqueued_at(span.at));
        Ok(Segment { span, replayed: false, batches, bad })
    }
}

/// The batches of the segment that is being cut.
struct Open<'a> {
    plan: &'a Plan,
    segment: u64,
    batches: Vec<CutBatch>,
    /// For each lane, the place in `batches` of the one that is still being filled.
    lanes: Vec<(Lane, usize)>,
}

impl Open<'_> {
    fn add(&mut self, job: &Job<'_>) {
        if let Some(at) = job.run_at {
            // A batch of its own: when `delay` says when, it depends on the clock which jobs fall due together, and a
            // batch must hold the same jobs when it is cut again.
            let place = self.begin(job, Due::At(at));
            let pushed = self.batches[place].builder.push(job);
            debug_assert!(pushed.is_ok(), "an empty batch takes any job");
            return;
        }
        let found = self.lanes.iter().position(|(lane, _)| *lane == job.lane);
        if let Some(found) = found {
            let builder = &mut self.batches[self.lanes[found].1].builder;
            let full = builder.len() >= self.plan.batch_jobs || builder.raw_len() + job.args.len() > self.plan.batch_raw_bytes;
            if !full && builder.push(job).is_ok() {
                return;
            }
        }
        let place = self.begin(job, Due::Now);
        match found {
            Some(found) => self.lanes[found].1 = place,
            None => self.lanes.push((job.lane.clone(), place)),
        }
        let pushed = self.batches[place].builder.push(job);
        debug_assert!(pushed.is_ok(), "an empty batch takes any job");
    }

    fn begin(&mut self, job: &Job<'_>, due: Due) -> usize {
        let place = self.batches.len();
        let id = self.plan.batch_id(self.segment, place as u64);
        let mut header = Header { remember: self.plan.remember, ..Header::new(id, job.format) };
        if let Due::At(at) = due {
            header.due = Some(at);
        }
        self.batches.push(CutBatch { lane: job.lane.clone(), due, builder: BatchBuilder::new(header) });
        place
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const INPUT: &str = "{\"kind\":\"a\",\"args\":1}\n{\"kind\":\"b\",\"args\":2,\"queue\":\"q\"}\nnonsense\n\n{\"kind\":\"a\",\"args\":3}\n{\"kind\":\"a\",\"args\":4}\n";

    fn plan() -> Plan {
        Plan::new(BatchId::from(7), 2, 1 << 20, 1 << 20)
    }

    fn cutter(plan: Plan, input: &str) -> Result<Cutter, FeedError> {
        Cutter::new(std::io::Cursor::new(input.to_owned()), plan, Limits::default(), Duration::from_secs(5), true)
    }

    #[test]
    fn a_segment_has_batches_by_lane_and_names_bad_lines() {
        let mut cutter = cutter(plan(), INPUT).unwrap();
        let segment = cutter.cut_next().unwrap().unwrap();
        assert_eq!(segment.span.lines, 6);
        assert_eq!(segment.span.bytes, INPUT.len() as u64);
        let sizes: Vec<_> = segment.batches.iter().map(|b| (b.lane.to_string(), b.builder.len())).collect();
        assert_eq!(sizes, [("default.normal".to_owned(), 2), ("q.normal".to_owned(), 1), ("default.normal".to_owned(), 1)]);
        assert_eq!(segment.bad.iter().map(|b| b.line).collect::<Vec<_>>(), [3]);
        assert!(cutter.cut_next().unwrap().is_none());
    }

    #[test]
    fn a_planned_segment_is_cut_the_same_way_again_and_others_are_passed_over() {
        let ids = |s: &Segment| s.batches.iter().map(|b| b.builder.header().id).collect::<Vec<_>>();
        let whole = cutter(plan(), INPUT).unwrap().cut_next().unwrap().unwrap();
        let twice = format!("{INPUT}{INPUT}{INPUT}");
        let at = |number: u64| Span { number, first_line: 6 * number, first_byte: number * INPUT.len() as u64, ..whole.span };
        // Segment 0 is settled, 1 is open, 2 is settled too: 1 is cut again, then there is nothing new.
        let plan = Plan { open: [at(1)].into(), last: Some(at(2)), ..plan() };
        let mut cutter = cutter(plan.clone(), &twice).unwrap();
        let again = cutter.cut_next().unwrap().unwrap();
        assert!(again.replayed);
        assert_eq!(again.span, at(1));
        assert_eq!(again.batches.len(), whole.batches.len());
        assert_ne!(ids(&again), ids(&whole), "another segment has other ids");
        assert!(cutter.cut_next().unwrap().is_none());
        let once_more = super::tests::cutter(plan, &twice).unwrap().cut_next().unwrap().unwrap();
        assert_eq!(ids(&again), ids(&once_more));
    }

    #[test]
    fn an_input_that_changed_is_noticed() {
        let whole = cutter(plan(), INPUT).unwrap().cut_next().unwrap().unwrap();
        let plan = Plan { open: [whole.span].into(), last: Some(whole.span), ..plan() };
        let changed = INPUT.replace(":3}", ":5}");
        assert!(matches!(cutter(plan.clone(), &changed).unwrap().cut_next(), Err(FeedError::Changed { from: 1, to: 6 })));
        assert!(matches!(cutter(plan, "").unwrap().cut_next(), Err(FeedError::Changed { .. })));
    }
}
