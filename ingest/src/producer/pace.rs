//! What of a producer follows the link, and may change while it works.

use std::sync::{Arc, Weak};
use std::time::Duration;

use wf_broker::Window;

use super::Producer;
use super::carrier::Carrier;

/// The settings of a producer that depend on the link to the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// The longest that a job waits for others to travel with.
    pub linger: Duration,
    /// The size of a full batch on the wire, in bytes.
    pub wire_bytes: usize,
    /// How much may wait in front of the window, in bytes before compression.
    pub room: usize,
    /// How much may be on its way to the broker, unanswered.
    pub window: Window,
}

/// Sets the [`Pace`] of a producer, as long as that is there; does not keep it there.
#[derive(Clone, Debug)]
pub struct PaceSetter(Weak<Carrier>);

impl PaceSetter {
    /// Sets it for everything that comes from now on: whether the producer is still there.
    pub fn set(&self, pace: &Pace) -> bool {
        self.0.upgrade().map(|carrier| carrier.set_pace(pace)).is_some()
    }
}

impl Producer {
    /// What sets its pace.
    pub fn pace_setter(&self) -> PaceSetter {
        PaceSetter(Arc::downgrade(&self.carrier))
    }
}
