//! What a gate lets in, and when.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use proptest::prelude::*;

use super::*;

fn window(bytes: usize, messages: usize) -> Window {
    Window { bytes, messages }
}

/// The pass, if it is given without waiting.
fn at_once(gate: &Gate, messages: usize, bytes: usize) -> Option<Pass> {
    polled(&mut pin!(gate.enter(messages, bytes)))
}

fn polled<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(pass) => Some(pass),
        Poll::Pending => None,
    }
}

#[test]
fn both_measures_bind() {
    let gate = Gate::new(window(100, 2));
    let first = at_once(&gate, 1, 60).unwrap();
    assert!(at_once(&gate, 1, 41).is_none(), "bytes");
    let second = at_once(&gate, 1, 40).unwrap();
    drop(first);
    let third = at_once(&gate, 1, 1).unwrap();
    assert!(at_once(&gate, 1, 1).is_none(), "messages");
    drop((second, third));
    assert_eq!(gate.taken(), window(0, 0));
}

#[test]
fn what_is_larger_than_the_window_goes_alone() {
    let gate = Gate::new(window(100, 2));
    let small = at_once(&gate, 1, 1).unwrap();
    let mut large = Box::pin(gate.enter(5, 1_000));
    assert!(polled(&mut large).is_none());
    drop(small);
    let large = polled(&mut large).unwrap();
    assert_eq!(gate.taken(), window(100, 2), "it takes all of it");
    assert!(at_once(&gate, 1, 1).is_none());
    drop(large);
    assert!(at_once(&gate, 1, 1).is_some());
}

#[test]
fn nobody_overtakes() {
    let gate = Gate::new(window(100, 9));
    let first = at_once(&gate, 1, 60).unwrap();
    let mut second = Box::pin(gate.enter(1, 60));
    let mut third = Box::pin(gate.enter(1, 1));
    assert!(polled(&mut second).is_none() && polled(&mut third).is_none(), "there is room for one byte, behind another");
    drop(first);
    assert!(polled(&mut second).is_some() && polled(&mut third).is_some());
}

#[test]
fn a_window_grows_and_shrinks_while_it_is_in_use() {
    let gate = Gate::new(window(100, 10));
    let first = at_once(&gate, 1, 100).unwrap();
    let mut second = Box::pin(gate.enter(1, 100));
    assert!(polled(&mut second).is_none());
    gate.resize(window(200, 10));
    let second = polled(&mut second).unwrap();
    gate.resize(window(100, 10));
    assert_eq!(gate.taken(), window(200, 2), "what is on its way stays there");
    drop(first);
    let mut third = Box::pin(gate.enter(1, 1));
    assert!(polled(&mut third).is_none(), "it is full still");
    drop(second);
    assert!(polled(&mut third).is_some());
}

#[test]
fn whoever_stops_waiting_holds_nobody_up() {
    let gate = Gate::new(window(100, 10));
    let first = at_once(&gate, 1, 100).unwrap();
    let mut gone = Box::pin(gate.enter(1, 100));
    let mut next = Box::pin(gate.enter(1, 100));
    assert!(polled(&mut gone).is_none() && polled(&mut next).is_none());
    drop(gone);
    drop(first);
    let next = polled(&mut next).unwrap();
    // Also when it was let in already, and never looked.
    let mut gone = Box::pin(gate.enter(1, 100));
    assert!(polled(&mut gone).is_none());
    drop(next);
    assert_eq!(gate.taken(), window(100, 1));
    drop(gone);
    assert_eq!(gate.taken(), window(0, 0));
}

/// Something that happens at a gate.
#[derive(Clone, Debug)]
enum Step {
    Enter(usize, usize),
    Leave(usize),
    GiveUp(usize),
    Resize(usize, usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..3_usize, 0..50_usize).prop_map(|(messages, bytes)| Step::Enter(messages, bytes)),
        4 => (0..100_usize).prop_map(Step::Leave),
        1 => (0..100_usize).prop_map(Step::GiveUp),
        1 => (1..100_usize, 1..8_usize).prop_map(|(bytes, messages)| Step::Resize(bytes, messages)),
    ]
}

/// Somebody on the way in.
type Entering = std::pin::Pin<Box<dyn Future<Output = Pass>>>;

proptest! {
    /// Whatever happens, the gate counts what is inside, lets nobody in beyond its window, and leaves the first in line
    /// outside only as long as there is no room.
    #[test]
    fn a_gate_keeps_its_window(steps in prop::collection::vec(step(), 1..200)) {
        let gate = Gate::new(window(60, 5));
        let mut inside: Vec<Pass> = Vec::new();
        let mut outside: Vec<(Window, Entering)> = Vec::new();
        for step in steps {
            let before = inside.len();
            match step {
                Step::Enter(messages, bytes) => {
                    let gate = gate.clone();
                    outside.push((window(bytes, messages), Box::pin(async move { gate.enter(messages, bytes).await })));
                }
                Step::Leave(n) if !inside.is_empty() => drop(inside.swap_remove(n % before)),
                Step::GiveUp(n) if !outside.is_empty() => drop(outside.remove(n % outside.len())),
                Step::Resize(bytes, messages) => gate.resize(window(bytes, messages)),
                Step::Leave(_) | Step::GiveUp(_) => {}
            }
            let mut still = Vec::new();
            for (wanted, mut entering) in outside {
                match polled(&mut entering) {
                    Some(pass) => {
                        prop_assert!(still.is_empty(), "it overtook another");
                        let size = gate.window();
                        let place = window(wanted.bytes.min(size.bytes), wanted.messages.min(size.messages));
                        prop_assert_eq!(pass.place, place);
                        inside.push(pass);
                        let taken = gate.taken();
                        prop_assert!(taken.bytes <= size.bytes && taken.messages <= size.messages, "let in beyond the window");
                    }
                    None => still.push((wanted, entering)),
                }
            }
            outside = still;
            let sum = |measure: fn(&Window) -> usize| inside.iter().map(|pass| measure(&pass.place)).sum::<usize>();
            prop_assert_eq!(gate.taken(), window(sum(|w| w.bytes), sum(|w| w.messages)));
            if let Some((first, _)) = outside.first() {
                let (taken, size) = (gate.taken(), gate.window());
                let (bytes, messages) = (first.bytes.min(size.bytes), first.messages.min(size.messages));
                let fits = taken.bytes + bytes <= size.bytes && taken.messages + messages <= size.messages;
                prop_assert!(!inside.is_empty() && !fits, "the first in line would fit");
            }
        }
        drop(inside);
        drop(outside);
        prop_assert_eq!(gate.taken(), window(0, 0));
    }
}

/// From many threads at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_lost_in_a_crowd() {
    let gate = Gate::new(window(100, 4));
    let crowd = (0..64_usize).map(|n| {
        let gate = gate.clone();
        tokio::spawn(async move {
            for round in 0..50 {
                let pass = gate.enter(1, 1 + n).await;
                if (n + round) % 16 == 0 {
                    gate.resize(window(50 + n, 1 + n % 5));
                }
                tokio::task::yield_now().await;
                drop(pass);
                // Some give up.
                tokio::select! {
                    biased;
                    pass = gate.enter(2, 40) => drop(pass),
                    () = std::future::ready(()) => {}
                }
            }
        })
    });
    futures::future::try_join_all(crowd).await.unwrap();
    assert_eq!(gate.taken(), window(0, 0));
}
