//! What a bulk request is answered.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use wf_schema::{Job, JobError, Limits};

use super::super::jobs::{FORM, mark};
use super::super::problem::{self, Problem};
use super::super::splitter::{Broken, Item};
use crate::parcel::Parcel;
use crate::tally::Tallied;
use crate::{IdRange, StoredIn};

/// What became of the jobs of a request.
#[derive(Default)]
pub(super) struct Report {
    accepted: u64,
    /// Of those accepted, how many are in the spool.
    spooled: u64,
    rejected: u64,
    ids: Vec<Value>,
    /// Jobs that were accepted and whose ids are not listed.
    unlisted: u64,
    errors: Vec<Value>,
    /// Errors that are not listed.
    unsaid: u64,
    /// Why those that the broker did not take were not taken.
    failed: Option<Problem>,
    /// Jobs that were fine but not taken, because others were not.
    held_back: u64,
}

/// The job that `json` is; `None` is one that is too long.
pub(super) fn read<'a>(json: Option<&'a [u8]>, limits: &Limits) -> Result<Job<'a>, JobError> {
    let Some(json) = json else {
        let longest = limits.args_bytes + FORM;
        let limit = format!("at most {longest} bytes, args included: put large inputs elsewhere and pass where they are");
        return Err(JobError::Limit { field: "args", value: format!("part of a job of more than {longest} bytes"), limit });
    };
    Job::from_json(json, limits)
}

/// A body that is no list of jobs.
pub(super) fn broken(broken: &Broken) -> Problem {
    let detail = format!("{broken}. For one job use POST /v1/jobs; for one job a line send application/x-ndjson");
    Problem::new(StatusCode::BAD_REQUEST, "broken-body", "Not a list of jobs", detail).with("line", broken.line)
}

impl Report {
    /// The most id ranges that are listed.
    pub(super) const LISTED: usize = 100_000;
    /// The most errors that are listed.
    const ERRORS: usize = 1_000;

    pub(super) fn has_rejected(&self) -> bool {
        self.rejected > 0
    }

    pub(super) fn reject(&mut self, item: &Item, error: &JobError) {
        self.rejected += 1;
        let mut told = json!({ "index": item.index, "line": item.line, "message": error.to_string() });
        if let Some(field) = problem::field(error) {
            told["field"] = field.into();
        }
        self.tell(told);
    }

    /// Counts jobs that were fine but are not taken.
    pub(super) fn hold_back(&mut self, jobs: u64) {
        self.held_back = jobs;
    }

    /// Adds what became of streamed jobs.
    pub(super) fn count(&mut self, tallied: Tallied) {
        self.accepted += tallied.accepted;
        self.spooled += tallied.spooled;
        self.rejected += tallied.rejected;
        self.unlisted += tallied.unlisted;
        self.ids.extend(tallied.ids.into_iter().map(|(index, ids)| listed(index, ids)));
        for failed in tallied.failed {
            let problem = Problem::from(failed.error);
            let body = problem.body();
            self.tell(json!({ "index": failed.item, "count": failed.count, "type": body["type"], "message": body["detail"] }));
            self.failed = graver(self.failed.take(), Some(problem));
        }
    }

    /// Adds the ids of a parcel that is `stored`, and whose jobs are at `indexes` in the request.
    pub(super) fn list(&mut self, parcel: &Parcel, stored: StoredIn, mut indexes: impl Iterator<Item = u64>) {
        for ids in parcel.ids() {
            self.accepted += u64::from(ids.count);
            self.spooled += if stored == StoredIn::Spool { u64::from(ids.count) } else { 0 };
            let mut row: Option<(u64, IdRange)> = None;
            // Jobs that were rejected leave gaps.
            for (id, index) in ids.ids().zip(indexes.by_ref()) {
                match &mut row {
                    Some((start, row)) if *start + u64::from(row.count) == index => row.count += 1,
                    _ => {
                        self.ids.extend(row.map(|(index, ids)| listed(index, ids)));
                        row = Some((index, IdRange { batch: id.batch, first: id.index, count: 1 }));
                    }
                }
            }
            self.ids.extend(row.map(|(index, ids)| listed(index, ids)));
        }
    }

    /// The answer: 202 if any job was taken, else why none was. `stopped` is why the rest of the body was not read.
    pub(super) fn answer(self, stopped: Option<Problem>, early: bool, replayed: bool) -> Response {
        let mut body = json!({ "accepted": self.accepted, "rejected": self.rejected, "ids": self.ids, "errors": self.errors });
        for (name, count) in [("ids_omitted", self.unlisted), ("errors_omitted", self.unsaid)] {
            if count > 0 {
                body[name] = count.into();
            }
        }
        if self.accepted > 0 {
            if !early {
                let stored = if self.spooled > 0 { StoredIn::Spool } else { StoredIn::Broker };
                body["stored"] = stored.as_str().into();
            }
            if self.spooled > 0 {
                body["spooled"] = self.spooled.into();
            }
            if let Some(stopped) = stopped {
                body["stopped"] = stopped.body();
            }
            let mut response = (StatusCode::ACCEPTED, Json(body)).into_response();
            mark(response.headers_mut(), early, replayed);
            return response;
        }
        let problem = graver(stopped, self.failed).unwrap_or_else(|| match (self.rejected, self.held_back) {
            (0, _) => Problem::bad_request("the body has no jobs in it"),
            (wrong, 0) => nothing_accepted(format!("none of the {wrong} jobs can be taken; see errors")),
            (wrong, fine) => {
                nothing_accepted(format!("{wrong} jobs cannot be taken, so the other {fine} were not either; see errors"))
            }
        });
        let members = body.as_object().cloned().unwrap_or_default();
        members.into_iter().fold(problem, |problem, (name, value)| problem.with(&name, value)).into_response()
    }

    fn tell(&mut self, error: Value) {
        if self.errors.len() < Self::ERRORS {
            self.errors.push(error);
        } else {
            self.unsaid += 1;
        }
    }
}

/// What is to be said of both: that jobs may be stored, if that is so of any; else the first.
fn graver(first: Option<Problem>, second: Option<Problem>) -> Option<Problem> {
    match (first, second) {
        (Some(first), Some(second)) if second.is_unconfirmed() && !first.is_unconfirmed() => Some(second),
        (first, second) => first.or(second),
    }
}

fn nothing_accepted(detail: String) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "nothing-accepted", "No job was taken", detail)
}

fn listed(index: u64, ids: IdRange) -> Value {
    json!({ "index": index, "batch": ids.batch, "first": ids.first, "count": ids.count })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn that_jobs_may_be_stored_is_said_whatever_else_there_is_to_say() {
        let certain = || Some(Problem::unreachable("first"));
        let unknown = || Some(Problem::unconfirmed("second"));
        for (first, second, said) in [
            (certain(), unknown(), "second"),
            (unknown(), certain(), "second"),
            (certain(), Some(Problem::unreachable("other")), "first"),
            (None, certain(), "first"),
            (certain(), None, "first"),
        ] {
            assert_eq!(graver(first, second).map(|problem| problem.body()["detail"].clone()), Some(said.into()));
        }
        assert!(graver(None, None).is_none());
    }
}
