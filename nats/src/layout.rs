//! The names of everything the factory has on the servers.

use std::fmt::Write as _;

use wf_broker::Key;
use wf_schema::{BatchId, Lane, Priority, Queue, RunId};

/// The names of one factory's streams and subjects; all follow from its prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// What the subjects begin with.
    pub(crate) prefix: String,
    /// Batches to deliver now.
    pub(crate) jobs: String,
    /// Batches for later, and those whose time has come.
    pub(crate) later: String,
    /// The logs of the runs.
    pub(crate) runs: String,
    /// The outcomes, for readers.
    pub(crate) results: String,
    /// Dead letters.
    pub(crate) dead: String,
    /// Keyed records: the bucket's name.
    pub(crate) state: String,
    /// Keyed records: the stream behind the bucket.
    pub(crate) state_stream: String,
}

impl Layout {
    /// The record of the factory's settings. With `pause.*`, `server.*` and `doctor.*` the only keys that the broker
    /// itself uses.
    pub(crate) const FACTORY: &str = "factory";

    /// The layout of the factory called `prefix`: 1 to 32 of `a-z 0-9 _ -`.
    pub(crate) fn new(prefix: &str) -> Option<Self> {
        let fits = (1..=32).contains(&prefix.len())
            && prefix.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-');
        fits.then(|| {
            let stream = |name: &str| format!("{}_{name}", prefix.to_ascii_uppercase());
            Self {
                prefix: prefix.into(),
                jobs: stream("JOBS"),
                later: stream("LATER"),
                runs: stream("RUNS"),
                results: stream("RESULTS"),
                dead: stream("DEAD"),
                state: stream("STATE"),
                state_stream: format!("KV_{}", stream("STATE")),
            }
        })
    }

    /// Where batches of `lane` are published.
    pub(crate) fn job_subject(&self, lane: &Lane) -> String {
        match lane.priority {
            // The short form, which people use too, so that both lie under the same limit.
            Priority::Normal => format!("{}.jobs.{}", self.prefix, lane.queue),
            priority => format!("{}.jobs.{}.{priority}", self.prefix, lane.queue),
        }
    }

    /// All subjects whose messages belong to `lane` now.
    pub(crate) fn job_filters(&self, lane: &Lane) -> Vec<String> {
        let long = format!("{}.jobs.{}.{}", self.prefix, lane.queue, lane.priority);
        match lane.priority {
            Priority::Normal => vec![self.job_subject(lane), long],
            _ => vec![long],
        }
    }

    /// Where schedules put what is due in `lane`.
    pub(crate) fn fire_subject(&self, lane: &Lane) -> String {
        format!("{}.fire.{}.{}", self.prefix, lane.queue, lane.priority)
    }

    /// Where batches to run now are published, and where schedules put what is due: all of it, by stream.
    pub(crate) fn lane_subjects(&self) -> [(&str, String); 2] {
        [(&self.jobs, format!("{}.jobs.>", self.prefix)), (&self.later, format!("{}.fire.>", self.prefix))]
    }

    /// The lane whose messages are stored at `subject`: `None` if no lane can be called so.
    pub(crate) fn lane_at(&self, subject: &str) -> Option<Lane> {
        let rest = subject.strip_prefix(self.prefix.as_str())?;
        let rest = rest.strip_prefix(".jobs.").or_else(|| rest.strip_prefix(".fire."))?;
        let (queue, priority) = rest.split_once('.').unwrap_or((rest, "normal"));
        Some(Lane::new(queue.parse().ok()?, priority.parse().ok()?))
    }

    /// Where what is due once is kept under `key`.
    pub(crate) fn at_subject(&self, key: &Key) -> String {
        format!("{}.at.{key}", self.prefix)
    }

    /// Where the cron called `key` is kept.
    pub(crate) fn cron_subject(&self, key: &Key) -> String {
        format!("{}.cron.{key}", self.prefix)
    }

    /// The cron whose schedule is kept at `subject`, if it is one.
    pub(crate) fn cron_key(&self, subject: &str) -> Option<Key> {
        let key = subject.strip_prefix(self.prefix.as_str())?.strip_prefix(".cron.")?;
        Key::new(key).ok()
    }

    /// The log of (`batch`, `run`).
    pub(crate) fn run_subject(&self, batch: BatchId, run: RunId) -> String {
        format!("{}.runs.{batch}.{run}", self.prefix)
    }

    /// The logs of all runs of `batch`.
    pub(crate) fn runs_filter(&self, batch: BatchId) -> String {
        format!("{}.runs.{batch}.>", self.prefix)
    }

    /// The batch and run that the subject of a run's log tells.
    pub(crate) fn run_of(&self, subject: &str) -> Option<(BatchId, RunId)> {
        self.batch_and_run(subject, ".runs.")
    }

    /// The outcomes of (`batch`, `run`).
    pub(crate) fn outcome_subject(&self, batch: BatchId, run: RunId) -> String {
        format!("{}.results.{batch}.{run}", self.prefix)
    }

    /// The outcomes of all runs of `batch`, or of all batches.
    pub(crate) fn outcome_filter(&self, batch: Option<BatchId>) -> String {
        let mut filter = format!("{}.results.", self.prefix);
        match batch {
            // Writing to a String cannot fail.
            Some(batch) => drop(write!(filter, "{batch}.>")),
            None => filter.push('>'),
        }
        filter
    }

    /// The batch and run that an outcome's subject tells.
    pub(crate) fn outcome_of(&self, subject: &str) -> Option<(BatchId, RunId)> {
        self.batch_and_run(subject, ".results.")
    }

    fn batch_and_run(&self, subject: &str, what: &str) -> Option<(BatchId, RunId)> {
        let (batch, run) = subject.strip_prefix(self.prefix.as_str())?.strip_prefix(what)?.split_once('.')?;
        Some((batch.parse().ok()?, run.parse().ok()?))
    }

    /// The key that what was scheduled at `subject` was scheduled under, now or again and again.
    pub(crate) fn schedule_key<'a>(&self, subject: &'a str) -> Option<&'a str> {
        let rest = subject.strip_prefix(self.prefix.as_str())?;
        rest.strip_prefix(".at.").or_else(|| rest.strip_prefix(".cron."))
    }

    /// Dead letters of `queue`.
    pub(crate) fn dead_subject(&self, queue: &Queue) -> String {
        format!("{}.dead.{queue}", self.prefix)
    }

    /// Dead letters of `queue`, or of all.
    pub(crate) fn dead_filter(&self, queue: Option<&Queue>) -> String {
        queue.map_or_else(|| format!("{}.dead.>", self.prefix), |queue| self.dead_subject(queue))
    }

    /// The queue that a dead letter's subject tells.
    pub(crate) fn dead_queue(&self, subject: &str) -> Option<Queue> {
        subject.strip_prefix(self.prefix.as_str())?.strip_prefix(".dead.")?.parse().ok()
    }

    /// Where the record called `key` is kept.
    pub(crate) fn record_subject(&self, key: &str) -> String {
        format!("$KV.{}.{key}", self.state)
    }

    /// The record that holds `queue`.
    pub(crate) fn pause_key(queue: &Queue) -> String {
        format!("pause.{queue}")
    }

    /// What a lane's consumers are called, in both streams. Priorities have no `-`, so no two lanes share a name.
    pub(crate) fn consumer(lane: &Lane) -> String {
        format!("{}-{}", lane.queue, lane.priority)
    }

    /// The lane whose consumer is called `name`.
    pub(crate) fn lane_of(name: &str) -> Option<Lane> {
        let (queue, priority) = name.rsplit_once('-')?;
        Some(Lane::new(queue.parse().ok()?, priority.parse().ok()?))
    }
}

impl Default for Layout {
    fn default() -> Self {
        // "wf" is valid, so this never falls back.
        Self::new("wf").unwrap_or_else(|| Self {
            prefix: String::new(),
            jobs: String::new(),
            later: String::new(),
            runs: String::new(),
            results: String::new(),
            dead: String::new(),
            state: String::new(),
            state_stream: String::new(),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_from_the_prefix_and_read_back() {
        let layout = Layout::new("acme").unwrap();
        assert_eq!((layout.jobs.as_str(), layout.state_stream.as_str()), ("ACME_JOBS", "KV_ACME_STATE"));
        let normal: Lane = "mail.normal".parse().unwrap();
        let high: Lane = "mail-x.high".parse().unwrap();
        assert_eq!(layout.job_subject(&normal), "acme.jobs.mail");
        assert_eq!(layout.job_filters(&normal), ["acme.jobs.mail", "acme.jobs.mail.normal"]);
        assert_eq!(layout.job_filters(&high), ["acme.jobs.mail-x.high"]);
        assert_eq!(Layout::lane_of(&Layout::consumer(&high)), Some(high.clone()));
        for lane in [&normal, &high] {
            let subjects = layout.job_filters(lane).into_iter().chain([layout.fire_subject(lane)]);
            subjects.for_each(|subject| assert_eq!(layout.lane_at(&subject).as_ref(), Some(lane), "{subject}"));
        }
        for subject in ["acme.jobs.mail:out", "acme.jobs.Ä.high", "acme.jobs.a.urgent", "acme.jobs.*", "acme.jobs.", "wf.jobs.a"]
        {
            assert_eq!(layout.lane_at(subject), None, "{subject}");
        }
        assert_eq!(layout.lane_at(&format!("acme.fire.{}.low", "x".repeat(65))), None);

        let (batch, run) = (BatchId::new(), RunId::new('l', 7));
        assert_eq!(layout.outcome_of(&layout.outcome_subject(batch, run)), Some((batch, run)));
        assert_eq!(layout.run_of(&layout.run_subject(batch, run)), Some((batch, run)));
        assert_eq!(layout.run_of(&layout.outcome_subject(batch, run)), None);
        assert!(layout.outcome_filter(Some(batch)).ends_with(&format!("{batch}.>")));
        let key = Key::new("a.b").unwrap();
        assert_eq!(layout.cron_key(&layout.cron_subject(&key)), Some(key.clone()));
        assert_eq!(layout.cron_key(&layout.at_subject(&key)), None);
        assert_eq!(layout.schedule_key(&layout.at_subject(&key)), Some("a.b"));
        assert_eq!(layout.dead_queue(&layout.dead_subject(&normal.queue)), Some(normal.queue));
    }
}
