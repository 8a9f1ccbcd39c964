use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures::FutureExt as _;
use wf_broker::{BoxFuture, Lease, LogEnd};
use wf_schema::{BatchId, RunId};

use super::*;

const JOBS: usize = 0;
const FIRE: usize = 1;

fn flow(messages: usize, bytes: usize) -> (Arc<Flow>, LaneSource) {
    let flow = Arc::new(Flow::new(&[true, false]));
    let mut source = LaneSource::new(flow.clone());
    source.grant(messages, bytes);
    (flow, source)
}

fn all(flow: &Flow, leg: usize) -> usize {
    std::iter::from_fn(|| flow.ask(leg)).map(|ask| ask.messages).sum()
}

#[test]
fn together_the_legs_ask_for_the_credit() {
    let (flow, _source) = flow(1_024, 1 << 30);
    flow.state.lock().typical = Some(1_000);
    let (jobs, fire) = (all(&flow, JOBS), all(&flow, FIRE));
    assert_eq!((jobs, fire), (896, 128));
    // What the idle leg gives back, the other asks for, up to what is kept for the idle one.
    flow.ended(JOBS, 896, true);
    assert_eq!(all(&flow, JOBS), 128);
}

#[test]
fn without_credit_nothing_is_asked_for() {
    for (messages, bytes) in [(0, 0), (0, 1 << 20), (10, 0)] {
        let (flow, _source) = flow(messages, bytes);
        assert_eq!((flow.ask(JOBS), flow.ask(FIRE)), (None, None));
    }
}

#[test]
fn little_credit_asks_each_leg_for_one_message_of_any_size() {
    let one = Some(Ask { messages: 1, bytes: None });
    for (messages, bytes) in [(1, 1 << 20), (100, 1)] {
        let (flow, _source) = flow(messages, bytes);
        assert_eq!((flow.ask(JOBS), flow.ask(JOBS), flow.ask(FIRE), flow.ask(FIRE)), (one, None, one, None));
    }
}

/// Counts how often it was released.
#[derive(Default)]
struct Released(AtomicUsize);

impl Lease for Released {
    fn ack(&self, _: Option<LogEnd>) {}
    fn stored(&self) -> BoxFuture<'_, bool> {
        Box::pin(std::future::ready(Ok(true)))
    }
    fn renew(&self) {}
    fn release(&self, _: Duration) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn delivery(lease: &Arc<Released>) -> Delivery {
    Delivery {
        lane: Lane::default(),
        id: "".into(),
        bytes: Bytes::from_static(b"{}"),
        run: RunId::new('j', 1),
        delivered: 1,
        fallback_id: BatchId::from(1),
        stored_at: 0,
        fired: None,
        lease: lease.clone(),
    }
}

#[test]
fn what_comes_after_the_credit_was_withdrawn_goes_back() {
    let (flow, mut source) = flow(10, 1 << 20);
    let lease = Arc::new(Released::default());
    let released = || lease.0.load(Ordering::Relaxed);
    flow.arrived(JOBS, delivery(&lease));
    assert_eq!(flow.open(1), (0, false), "it has something to take");
    source.withdraw();
    assert_eq!(released(), 1, "what nobody has taken");
    flow.arrived(JOBS, delivery(&lease));
    assert_eq!(released(), 2, "what was on its way");
    assert_eq!((all(&flow, JOBS), all(&flow, FIRE), flow.open(1)), (0, 0, (0, false)));

    source.grant(1, 1 << 20);
    assert!(flow.open(1).1, "it waits again");
    flow.arrived(JOBS, delivery(&lease));
    assert!(source.next().now_or_never().is_some());
    assert_eq!(released(), 2);
}

#[test]
fn small_messages_are_asked_for_together_as_soon_as_one_was_seen() {
    let (flow, mut source) = flow(1, 1 << 20);
    flow.arrived(JOBS, delivery(&Arc::default()));
    assert!(source.next().now_or_never().is_some());
    // What the granter reckons with: six messages of about as many bytes.
    source.grant(6, 6 * 1_100);
    assert!(flow.ask(JOBS).is_some_and(|ask| ask.messages >= 5));
}

#[test]
fn flows_are_known_for_as_long_as_they_are_used() {
    let (lane, flows) = (Lane::default(), Flows::default());
    let (first, _first_source) = flow(5, 1 << 20);
    let (second, second_source) = flow(5, 1 << 20);
    flows.add(&lane, &first);
    flows.add(&lane, &second);
    first.pulling(JOBS, 3);
    second.pulling(JOBS, 1);
    second.pulling(FIRE, 1);
    assert_eq!(flows.open(&lane, 1), (4, 2));
    drop((second_source, second));
    assert_eq!(flows.open(&lane, 1), (3, 1));
}

#[test]
fn bytes_bind_when_messages_are_large() {
    let (flow, _source) = flow(1_000, 8 << 20);
    let asked = all(&flow, JOBS) + all(&flow, FIRE);
    assert!((100..=130).contains(&asked), "{asked} of 64 KiB in 8 MiB");
    // A message that did not fit is asked for alone, whatever its size.
    flow.ended(JOBS, 1_000, false);
    flow.too_small(JOBS);
    assert_eq!(flow.ask(JOBS), Some(Ask { messages: 1, bytes: None }));
    assert_eq!(flow.ask(JOBS), None);
}
