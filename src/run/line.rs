//! An outcome as a line of the results.

use std::io::Write;

use wf_schema::{Failure, Format, JobId, OutcomeView, Queue, RecordHeader};

use super::counts::Why;
use super::destination::BAD_LINE;

/// Appends the line of `outcome`: `{"id","kind","queue","state","attempts","result"}`, or with `error` in place of
/// `result`.
pub(super) fn outcome(to: &mut Vec<u8>, record: &RecordHeader, outcome: &OutcomeView<'_>) {
    // Ids, kinds and queues have no character that JSON would escape. Writing to memory cannot fail.
    let _ = write!(
        to,
        r#"{{"id":"{}","kind":"{}","queue":"{}","state":"{}","attempts":{},"#,
        outcome.id(),
        outcome.kind(),
        record.lane.queue,
        outcome.state(),
        outcome.attempt()
    );
    match outcome.failure() {
        Some(failure) => error(to, failure),
        None => {
            to.extend_from_slice(b"\"result\":");
            let json = record.format == Format::Json && !outcome.result().is_empty();
            to.extend_from_slice(if json { outcome.result() } else { b"null" });
        }
    }
    to.extend_from_slice(b"}\n");
}

/// Appends the line of the input's line `number`, which is no job.
pub(super) fn bad_line(to: &mut Vec<u8>, number: u64, message: &str) {
    let _ = write!(to, r#"{{"id":"{BAD_LINE}{number}","kind":null,"queue":null,"state":"discarded","attempts":0,"#);
    error(to, &Failure::new("bad_job", format!("line {number}: {message}")));
    to.extend_from_slice(b"}\n");
}

/// Appends the line of a job of `queue` whose outcome is not known.
pub(super) fn unknown(to: &mut Vec<u8>, id: JobId, queue: &Queue, why: Why) {
    let _ = write!(to, r#"{{"id":"{id}","kind":null,"queue":"{queue}","state":"unknown","attempts":0,"#);
    error(to, &Failure::new(why.name(), why.text()));
    to.extend_from_slice(b"}\n");
}

fn error(to: &mut Vec<u8>, failure: &Failure) {
    to.extend_from_slice(b"\"error\":");
    let _ = serde_json::to_writer(to, failure);
}
