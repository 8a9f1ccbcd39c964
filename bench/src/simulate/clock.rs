//! Time in a history: tokio's, which is paused, and the clocks of machines, which may be wrong.

use std::cell::{Cell, RefCell};

use fastrand::Rng;
use tokio::time::Instant;
use wf_schema::Millis;
use wf_schema::stand_in::{self, StandIn};

/// When each history begins.
const EPOCH: Millis = 1_795_323_672_000;

thread_local! {
    static BEGAN: Cell<Option<Instant>> = const { Cell::new(None) };
    /// By how much the clock is off of the node that runs now.
    static SKEW: Cell<i64> = const { Cell::new(0) };
}

struct Machine(RefCell<Rng>);

impl StandIn for Machine {
    fn here(&self) -> Millis {
        millis(SKEW.get())
    }

    fn factory(&self) -> Millis {
        // Nodes are told with every connection, so they know it well.
        millis(0)
    }

    fn random(&self) -> u128 {
        self.0.borrow_mut().u128(..)
    }
}

/// A history begins on this thread, inside its runtime.
pub(crate) fn begin(seed: u64) {
    BEGAN.set(Some(Instant::now()));
    SKEW.set(0);
    fastrand::seed(seed);
    stand_in::set(Some(Box::new(Machine(RefCell::new(Rng::with_seed(seed ^ 0x0049_4453))))));
}

/// It is over.
pub(crate) fn end() {
    stand_in::set(None);
    BEGAN.set(None);
}

/// From now on the node that runs is one whose clock is off by so much. Tasks of nodes take turns, and what one does
/// after it has waited may go by another's clock: clocks that are believed for too long, which is a fault like others.
pub(crate) fn skew(ms: i64) {
    SKEW.set(ms);
}

/// The time since the history began, in ms.
pub(crate) fn elapsed() -> Millis {
    BEGAN.get().map_or(0, |began| Instant::now().saturating_duration_since(began).as_millis() as Millis)
}

/// What a clock says that is off by `skew` ms.
pub(crate) fn millis(skew: i64) -> Millis {
    (EPOCH + elapsed()).saturating_add_signed(skew)
}
