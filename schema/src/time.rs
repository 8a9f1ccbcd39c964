//! Wall-clock time as this crate carries it: milliseconds since the Unix epoch.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::stand_in;

/// Milliseconds since the Unix epoch. Comes from clocks of different machines: fit for people, for waiting times
/// and for expiry, never for deciding what happened first.
pub type Millis = u64;

/// By how much this machine's clock may differ from the factory's before it is not believed. What stays below it is as
/// likely the network's doing.
const AGREES: Millis = 1_000;

/// Where the clock that never goes back began.
static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
/// What the factory's clock said then; 0 if it never told.
static FACTORY: AtomicU64 = AtomicU64::new(0);

/// The time now: this machine's, as long as that agrees with the factory's to within a second. A clock that was set wrong,
/// or steps, would put off what it dates, by as much.
pub fn now() -> Millis {
    if let Some(now) = stand_in::ask(|machine| believed(machine.here(), machine.factory(), 0)) {
        return now;
    }
    believed(here(), FACTORY.load(Ordering::Relaxed), BEGAN.elapsed().as_millis() as Millis)
}

/// Takes note that the factory's clock, the one by which jobs for later fall due, says `told` at this moment. Whoever is
/// connected to a broker elsewhere says so from time to time. By how much this machine's clock is ahead, in ms, if that is
/// so much that it is not believed.
pub fn follow_clock(told: Millis) -> Option<i64> {
    FACTORY.store(told.saturating_sub(BEGAN.elapsed().as_millis() as Millis).max(1), Ordering::Relaxed);
    let here = here();
    (here.abs_diff(told) > AGREES).then(|| here.cast_signed().saturating_sub(told.cast_signed()))
}

/// What this machine's clock says.
fn here() -> Millis {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as Millis)
}

/// `here`, or what the factory's clock has come to: `factory` when it was `elapsed` ago.
fn believed(here: Millis, factory: Millis, elapsed: Millis) -> Millis {
    match factory.saturating_add(elapsed) {
        _ if factory == 0 => here,
        there if here.abs_diff(there) <= AGREES => here,
        there => there,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_believed_as_long_as_it_agrees_with_the_factorys() {
        const HOUR: Millis = 3_600_000;
        let told = 1_795_323_672_000;
        assert_eq!(believed(7, 0, 100_000), 7, "nobody has told");
        for here in [told + 5_000 - AGREES, told + 5_000, told + 5_000 + AGREES] {
            assert_eq!(believed(here, told, 5_000), here);
        }
        for here in [0, told - HOUR, told + 5_000 - AGREES - 1, told + 5_001 + AGREES, told + HOUR, Millis::MAX] {
            assert_eq!(believed(here, told, 5_000), told + 5_000);
        }
    }
}
