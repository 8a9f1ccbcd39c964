//! What a run came to.

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::{Counts, Unknown};
use crate::progress::grouped;

/// What a run came to. As JSON, one object on one line.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Summary {
    /// All jobs of the input, those settled before the run was resumed included.
    pub jobs: u64,
    /// Those that completed.
    pub completed: u64,
    /// Those that did not.
    pub discarded: u64,
    /// Those of which it is not known how they ended, or whether they were run.
    pub unknown: u64,
    /// Why it is not.
    #[serde(skip)]
    pub why: Unknown,
    /// How long this process took.
    #[serde(rename = "elapsed_s", serialize_with = "seconds")]
    pub elapsed: Duration,
    /// The jobs that this process saw settled, by the second.
    #[serde(serialize_with = "tenths")]
    pub jobs_per_s: f64,
    /// What a job took on the way to the broker, in bytes.
    #[serde(serialize_with = "tenths")]
    pub wire_bytes_per_job: f64,
}

impl Summary {
    pub(super) fn new(counts: Counts, ended_here: u64, elapsed: Duration, wire_bytes: u64, wire_jobs: u64) -> Self {
        Self {
            jobs: counts.jobs,
            completed: counts.completed,
            discarded: counts.discarded,
            unknown: counts.unknown.total(),
            why: counts.unknown,
            elapsed,
            jobs_per_s: ended_here as f64 / elapsed.as_secs_f64().max(1e-6),
            wire_bytes_per_job: if wire_jobs == 0 { 0.0 } else { wire_bytes as f64 / wire_jobs as f64 },
        }
    }
}

fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_millis() as f64 / 1000.0)
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde asks for a reference
fn tenths<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((value * 10.0).round() / 10.0)
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unknown = (self.unknown > 0).then(|| ("unknown", grouped(self.unknown)));
        let rows = [("jobs", grouped(self.jobs)), ("completed", grouped(self.completed)), ("discarded", grouped(self.discarded))];
        let rest = [
            ("elapsed", format!("{:.3} s", self.elapsed.as_secs_f64())),
            ("jobs/s", grouped(self.jobs_per_s as u64)),
            ("bytes per job", format!("{:.1} on the wire", self.wire_bytes_per_job)),
        ];
        for (n, (name, value)) in rows.into_iter().chain(unknown).chain(rest).enumerate() {
            write!(f, "{}{name:<14} {value}", if n == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}
