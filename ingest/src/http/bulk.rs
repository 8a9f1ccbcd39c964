//! `POST /v1/jobs/batch`: many jobs, as a JSON array or one a line.
//!
//! The body is read, cut, parsed and handed to the batcher piece by piece, so memory does not grow with it. What is
//! wrong with one job is told and takes nothing along. Requests with `?atomic=true` or an `Idempotency-Key` are the
//! exception: they are read whole, for nothing of them may be published before all of it can be.

mod report;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use bytes::Bytes;
use serde::Deserialize;
use wf_schema::Limits;

use super::body::BodyReader;
use super::idempotency::{self, IdempotencyKey};
use super::jobs::FORM;
use super::problem::Problem;
use super::splitter::{Block, Shape, Splitter};
use super::{HttpState, media};
use crate::StoredIn;
use crate::group::Group;
use crate::parcel::Parcel;
use crate::producer::Bulk;

use report::Report;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Options {
    #[serde(default)]
    atomic: bool,
}

pub(super) async fn post(
    State(state): State<HttpState>,
    uri: Uri,
    options: Result<Query<Options>, QueryRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let Query(Options { atomic }) = options.map_err(|error| Problem::bad_request(error.body_text()))?;
    let shape = media::shape(&headers)?;
    let key = idempotency::key(&headers)?;
    if atomic || key.is_some() {
        let limit = state.options.body_limit.min(state.options.whole_limit as u64);
        let body = BodyReader::new(&state, &headers, body, limit)?.whole().await?;
        return whole(&state, uri.path(), shape, &body, atomic, key).await;
    }
    let body = BodyReader::new(&state, &headers, body, state.options.body_limit)?;
    stream(&state, shape, body, media::wants_early_answer(&headers)).await
}

/// Takes the jobs as they come.
async fn stream(state: &HttpState, shape: Shape, mut body: BodyReader, early: bool) -> Result<Response, Problem> {
    let limits = *state.producer.limits();
    let mut splitter = Splitter::new(shape, limits.args_bytes + FORM);
    let mut bulk = state.producer.bulk(Report::LISTED);
    let mut report = Report::default();
    let stopped = loop {
        let piece = match body.piece(splitter.held()).await {
            Ok(Some(piece)) => piece,
            Ok(None) => break None,
            Err(problem) => break Some(problem),
        };
        let (block, whole) = splitter.feed(&piece);
        state.note_held(splitter.most_held());
        drop(piece);
        if let Err(problem) = take(&mut bulk, &block, &limits, &mut report).await {
            break Some(problem);
        }
        if let Err(broken) = whole {
            break Some(report::broken(&broken));
        }
    };
    let stopped = match stopped {
        Some(problem) => Some(problem),
        None => {
            let (block, whole) = splitter.end();
            let taken = take(&mut bulk, &block, &limits, &mut report).await;
            taken.err().or_else(|| whole.err().as_ref().map(report::broken))
        }
    };
    report.count(if early { bulk.hasten() } else { bulk.finish().await });
    Ok(report.answer(stopped, early, false))
}

/// Hands the jobs of a block to the batcher, in groups of neighbours.
async fn take(bulk: &mut Bulk, block: &Block, limits: &Limits, report: &mut Report) -> Result<(), Problem> {
    let (mut first, mut group) = (0, Group::default());
    for (item, json) in block.items() {
        let job = match report::read(json, limits) {
            Ok(job) => job,
            Err(error) => {
                report.reject(item, &error);
                continue;
            }
        };
        if !group.takes(&job) || first + group.len() as u64 != item.index {
            bulk.push(first, &group).await?;
            group.clear();
            first = item.index;
        }
        group.add(&job);
    }
    bulk.push(first, &group).await.map_err(Problem::from)
}

/// Takes all of the jobs or, if `atomic`, none.
async fn whole(
    state: &HttpState,
    path: &str,
    shape: Shape,
    body: &Bytes,
    atomic: bool,
    key: Option<IdempotencyKey>,
) -> Result<Response, Problem> {
    let limits = *state.producer.limits();
    let mut splitter = Splitter::new(shape, limits.args_bytes + FORM);
    let (first, mut broken) = splitter.feed(body);
    let mut last = Block::default();
    if broken.is_ok() {
        (last, broken) = splitter.end();
    }
    let stopped = broken.err().as_ref().map(report::broken);
    let mut report = Report::default();
    let (mut items, mut jobs) = (Vec::new(), Vec::new());
    for (item, json) in first.items().chain(last.items()) {
        match report::read(json, &limits) {
            Ok(job) => {
                items.push(item.index);
                jobs.push(job);
            }
            Err(error) => report.reject(item, &error),
        }
    }
    if atomic && (stopped.is_some() || report.has_rejected()) {
        report.hold_back(jobs.len() as u64);
        return Ok(report.answer(stopped, false, false));
    }
    let incoming = jobs.iter().map(|job| state.producer.admit_one(job)).collect::<Result<Vec<_>, _>>()?;
    if incoming.is_empty() {
        return Ok(report.answer(stopped, false, false));
    }
    let (parcel, stored, replayed) = match key {
        Some(key) => {
            let once = idempotency::publish_once(state, &key, path, body, atomic, &incoming).await?;
            (once.parcel, StoredIn::Broker, once.replayed)
        }
        None => {
            let publisher = state.producer.publisher();
            let parcel = Parcel::pack(&incoming, &state.producer.options().batch, publisher.broker().max_message(), 0);
            demand_atomic(&parcel)?;
            let stored = parcel.publish(publisher).await.map_err(|failed| failed.error)?;
            (parcel, stored, false)
        }
    };
    report.list(&parcel, stored, items.into_iter());
    Ok(report.answer(stopped, false, replayed))
}

/// Refuses what cannot be published all-or-nothing.
pub(super) fn demand_atomic(parcel: &Parcel) -> Result<(), Problem> {
    if parcel.is_atomic() {
        return Ok(());
    }
    let detail =
        "jobs for later can be taken all-or-nothing only if all of them share queue, priority and the second they fall due";
    Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "not-atomic", "Cannot be done all-or-nothing", detail))
}
