//! A clock and a source of randomness in place of the machine's, for one thread: the simulator's seam.
//!
//! Time and ids are the two things that the pipeline takes from the machine. Where they come from here, a history can
//! be played again exactly. Programs never use this: without a stand-in the cost is one look at a thread-local.

use std::cell::RefCell;

use crate::Millis;

/// What stands in for the machine.
pub trait StandIn {
    /// What the machine's clock says.
    fn here(&self) -> Millis;

    /// What the factory's clock says, as far as this node was told; 0 if it never was.
    fn factory(&self) -> Millis;

    /// Random bits.
    fn random(&self) -> u128;
}

thread_local! {
    static STAND_IN: RefCell<Option<Box<dyn StandIn>>> = const { RefCell::new(None) };
}

/// From now on `stand_in` is asked on this thread, or the machine again if it is `None`.
pub fn set(stand_in: Option<Box<dyn StandIn>>) {
    STAND_IN.with(|current| *current.borrow_mut() = stand_in);
}

/// What `ask` gets from the stand-in, if there is one.
pub(crate) fn ask<T>(ask: impl FnOnce(&dyn StandIn) -> T) -> Option<T> {
    STAND_IN.with(|current| current.borrow().as_deref().map(ask))
}
