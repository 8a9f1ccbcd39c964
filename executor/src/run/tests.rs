//! What batches wait for before their turn, and what they hold meanwhile.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::Notify;
use wf_broker::{Message, Publish};
use wf_schema::{BatchBuilder, BatchId, Format, Header, Job, Lane};

use crate::model::{Fault, Session, Store};
use crate::node::Node;
use crate::{ExecutorOptions, Registry, stock};

/// Puts `batches` of one job into the store, each delivered once before, to one who died.
async fn delivered_before(store: &Arc<parking_lot::Mutex<Store>>, batches: usize) {
    let dead = Session::new(store, []);
    for _ in 0..batches {
        let mut open = BatchBuilder::new(Header::new(BatchId::new(), Format::Json));
        open.push(&Job::new("noop", &()).unwrap()).unwrap();
        let id = BatchId::new().to_string().into();
        dead.publish(Message { lane: Lane::default(), id, bytes: open.encode() }).await.unwrap();
        dead.take().unwrap();
    }
    store.lock().expire();
}

#[tokio::test(start_paused = true)]
async fn a_backlog_is_looked_up_in_one_round_trip() {
    const BATCHES: usize = 500;
    let store = Arc::default();
    delivered_before(&store, BATCHES).await;
    // No answer comes before all have asked.
    let signs: Vec<_> = (0..BATCHES).map(|_| (Arc::new(Notify::new()), Arc::new(Notify::new()))).collect();
    let session = Session::new(&store, signs.iter().map(|(asked, answer)| Fault::Held(asked.clone(), answer.clone())));
    let options = ExecutorOptions::new("x").unwrap();
    let node = Node::new(session.clone(), stock::register(Registry::new()), options, Handle::current());
    let desk = node.open(Lane::default()).unwrap();
    while let Some(delivery) = session.take() {
        node.take(&desk, delivery);
    }
    for (asked, _) in &signs {
        asked.notified().await;
    }
    signs.iter().for_each(|(_, answer)| answer.notify_one());
    node.runs.close();
    node.runs.wait().await;
    assert_eq!(node.tally.read(0).acked, BATCHES as u64);
    assert_eq!(node.lookups.available_permits(), super::LOOKUP_UNITS as usize);
}
