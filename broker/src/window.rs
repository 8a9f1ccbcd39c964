//! A window: how much may be on its way and not answered yet.
//!
//! Whoever sends enters the window before, and leaves it with the answer. The window can be changed while it is in
//! use, for the link that it is made for can change.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// How much may be on its way. The first of the two that is reached holds what comes; the bytes are what should bind,
/// the messages only guard the consumers, which too many of them starve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Bytes on the wire. What is larger than that goes alone.
    pub bytes: usize,
    /// Messages.
    pub messages: usize,
}

impl Default for Window {
    /// That of the profile `local`: 8 MiB, 256 messages.
    fn default() -> Self {
        Self { bytes: 8 << 20, messages: 256 }
    }
}

impl Window {
    fn at_least_one(self) -> Self {
        Self { bytes: self.bytes.max(1), messages: self.messages.max(1) }
    }
}

/// Lets messages into a window, in the order they came. Cheap to clone; clones are the same gate.
#[derive(Clone)]
pub struct Gate(Arc<Mutex<State>>);

struct State {
    size: Window,
    taken: Window,
    /// Who has not found room, the first to come in front. As many as there are callers.
    waiting: VecDeque<Waiting>,
}

struct Waiting {
    wanted: Window,
    entered: oneshot::Sender<Pass>,
}

/// A place in the window, given back when dropped.
#[must_use = "dropped, it gives its place back"]
pub struct Pass {
    gate: Gate,
    place: Window,
}

/// A gate that is not kept by this: it changes the window as long as somebody else has it.
#[derive(Clone)]
pub struct WeakGate(Weak<Mutex<State>>);

impl WeakGate {
    /// As [`Gate::resize`]: whether the gate is still there.
    pub fn resize(&self, window: Window) -> bool {
        self.0.upgrade().map(|gate| Gate(gate).resize(window)).is_some()
    }
}

impl Gate {
    /// A gate to `window`, with nothing in it. A window for nothing at all is one for a single byte, or message.
    pub fn new(window: Window) -> Self {
        Self(Arc::new(Mutex::new(State {
            size: window.at_least_one(),
            taken: Window { bytes: 0, messages: 0 },
            waiting: VecDeque::new(),
        })))
    }

    /// Waits until `messages` messages of `bytes` in all fit, behind those who came before. What is larger than the
    /// window takes all of it.
    pub async fn enter(&self, messages: usize, bytes: usize) -> Pass {
        let wanted = Window { bytes, messages };
        loop {
            let turn = match self.stand(wanted) {
                Ok(pass) => return pass,
                Err(turn) => turn,
            };
            // Whoever stops waiting may have held up others. They are looked at once its turn is dropped, which is
            // below this and so goes first.
            let _look_again = LookAgain(self);
            if let Ok(pass) = { turn }.await {
                return pass;
            }
            // Nobody drops a sender that is listened to; if it were so, to stand in line again is right.
        }
    }

    /// A pass at once, or a place in the line.
    fn stand(&self, wanted: Window) -> Result<Pass, oneshot::Receiver<Pass>> {
        let mut state = self.0.lock();
        if state.waiting.is_empty()
            && let Some(place) = state.take(wanted)
        {
            return Ok(self.pass(place));
        }
        let (entered, turn) = oneshot::channel();
        state.waiting.push_back(Waiting { wanted, entered });
        Err(turn)
    }

    /// Changes the window. What is in it stays; if that is more than it holds now, nothing enters until enough has left.
    pub fn resize(&self, window: Window) {
        self.change(|state| state.size = window.at_least_one());
    }

    /// The same gate, not kept.
    pub fn downgrade(&self) -> WeakGate {
        WeakGate(Arc::downgrade(&self.0))
    }

    /// The window.
    pub fn window(&self) -> Window {
        self.0.lock().size
    }

    /// What of the window is taken; more than all of it for a while after it was made smaller.
    pub fn taken(&self) -> Window {
        self.0.lock().taken
    }

    fn pass(&self, place: Window) -> Pass {
        Pass { gate: self.clone(), place }
    }

    /// Changes something, and lets in whoever fits then.
    fn change(&self, act: impl FnOnce(&mut State)) {
        let admitted = {
            let mut state = self.0.lock();
            act(&mut state);
            state.admit()
        };
        // Not under the lock: a pass that nobody takes any more comes back through here.
        for (place, entered) in admitted {
            drop(entered.send(self.pass(place)));
        }
    }
}

impl State {
    /// Takes the place `wanted`, or all of the window if that is less: what was taken, if it was free.
    fn take(&mut self, wanted: Window) -> Option<Window> {
        let place = Window { bytes: wanted.bytes.min(self.size.bytes), messages: wanted.messages.min(self.size.messages) };
        let then = Window { bytes: self.taken.bytes + place.bytes, messages: self.taken.messages + place.messages };
        let fits = then.bytes <= self.size.bytes && then.messages <= self.size.messages;
        fits.then(|| {
            self.taken = then;
            place
        })
    }

    /// Takes places for those in front who fit.
    fn admit(&mut self) -> Vec<(Window, oneshot::Sender<Pass>)> {
        // No allocation in the usual case, that nobody waits.
        let mut admitted = Vec::new();
        while let Some(first) = self.waiting.front() {
            let (gone, wanted) = (first.entered.is_closed(), first.wanted);
            let place = if gone { None } else { self.take(wanted) };
            if !gone && place.is_none() {
                break;
            }
            let entered = self.waiting.pop_front().map(|first| first.entered);
            admitted.extend(place.zip(entered));
        }
        admitted
    }
}

/// Lets in whoever fits, when dropped.
struct LookAgain<'a>(&'a Gate);

impl Drop for LookAgain<'_> {
    fn drop(&mut self) {
        self.0.change(|_| ());
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let place = self.place;
        self.gate.change(|state| {
            state.taken.bytes -= place.bytes;
            state.taken.messages -= place.messages;
        });
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.0.lock();
        f.debug_struct("Gate")
            .field("size", &state.size)
            .field("taken", &state.taken)
            .field("waiting", &state.waiting.len())
            .finish()
    }
}

impl fmt::Debug for Pass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pass").field(&self.place).finish()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
