//! An ingest, and those who call it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http_body_util::BodyExt as _;
use hyper::{Request, StatusCode};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::time::{sleep, timeout};
use tower::ServiceExt as _;
use wf_ingest::{HttpOptions, HttpState, Patience, Producer, ProducerOptions, Spool};

use super::super::broker::Session;
use super::super::disk::{Disk, Mounted};
use super::super::history::Spec;
use super::super::job;
use super::super::world::{World, ms};

/// What answers at one ingest.
type Door = (Router, Arc<Session>, Option<Spool>);

/// The ingests that can be called.
#[derive(Clone, Default)]
pub(crate) struct Front(Arc<Mutex<BTreeMap<u8, Door>>>);

impl Front {
    /// How many batches wait in spools.
    pub(crate) fn spooled(&self) -> u64 {
        self.0.lock().values().filter_map(|(_, _, spool)| spool.as_ref()).map(|spool| spool.stats().batches).sum()
    }
}

/// Runs ingest `node`, life after life.
pub(crate) async fn live(world: World, front: Front, node: usize, index: u8) {
    let disk = Disk::default();
    loop {
        let (life, died, spools) = {
            let mut world = world.lock();
            (world.begin(node), world.nodes[node].died.clone(), world.setting.spool)
        };
        let session = Session::new(&world, node, life);
        let spool = if spools {
            match Spool::here(Arc::new(Mounted { disk: disk.clone(), session: session.clone() }), 1 << 20) {
                Ok(spool) => Some(spool),
                Err(error) => return world.lock().truth.violated("simulation", error.to_string()),
            }
        } else {
            None
        };
        let patience = Patience { full: Duration::ZERO, away: Duration::from_secs(10) };
        let options = ProducerOptions { spool: spool.clone(), patience, ..ProducerOptions::default() };
        let producer = Producer::new(session.clone(), options);
        let router = HttpState::new(producer.clone(), HttpOptions::default()).into_router();
        front.0.lock().insert(index, (router, session.clone(), spool));
        died.notified().await;
        front.0.lock().remove(&index);
        drop(producer);
        let back = std::mem::replace(&mut world.lock().nodes[node].back_ms, 500);
        sleep(ms(back)).await;
    }
}

/// How long a caller waits for an answer.
const PATIENCE: Duration = Duration::from_secs(25);

/// Posts `jobs`, whose tags begin at `first`; with a key, again and again.
pub(crate) async fn post(
    world: World,
    front: Front,
    index: u8,
    first: u32,
    key: Option<String>,
    jobs: Vec<Spec>,
    again: Vec<u32>,
) {
    let mut pauses = again.into_iter();
    loop {
        call(&world, &front, index, first, key.as_deref(), &jobs).await;
        let Some(pause) = pauses.next() else { return };
        sleep(ms(pause)).await;
    }
}

async fn call(world: &World, front: &Front, index: u8, first: u32, key: Option<&str>, jobs: &[Spec]) {
    let found = front.0.lock().get(&index).map(|(router, session, _)| (router.clone(), session.clone()));
    // Nobody listens there.
    let Some((router, session)) = found else { return };
    let (path, body) = match jobs {
        [one] => ("/v1/jobs", job::json(one, first).to_string()),
        many => {
            let all: Vec<Value> = (first..).zip(many).map(|(tag, spec)| job::json(spec, tag)).collect();
            ("/v1/jobs/batch", Value::Array(all).to_string())
        }
    };
    let mut request = Request::post(path).header("content-type", "application/json");
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    let Ok(request) = request.body(Body::from(body)) else { return };
    let answer = async {
        let response = router.oneshot(request).await.ok()?;
        let status = response.status();
        let body = response.into_body().collect().await.ok()?.to_bytes();
        // A dead process answers nobody.
        session.live().await;
        Some((status, serde_json::from_slice::<Value>(&body).ok()?))
    };
    let Ok(Some((status, body))) = timeout(PATIENCE, answer).await else { return };
    let mut world = world.lock();
    world.say(|| format!("jobs from {first} on: {status} {body}"));
    world.hit(&format!("answer {}", status.as_u16()));
    if status != StatusCode::ACCEPTED {
        return;
    }
    match body.get("ids").and_then(Value::as_array) {
        None => world.truth.accepted(first),
        Some(ids) => {
            for range in ids {
                let number = |name: &str| range.get(name).and_then(Value::as_u64).unwrap_or_default() as u32;
                let (at, count) = (number("index"), number("count"));
                (first + at..first + at + count).for_each(|tag| world.truth.accepted(tag));
            }
        }
    }
}
