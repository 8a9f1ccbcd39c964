//! Outcomes that will never come: what a run does when the broker has dropped them.
//!
//! A batch that is still open may simply wait for its turn. It is lost if nothing of it is stored any more (neither the
//! batch, nor a retry of any of its jobs), and its outcomes cannot be read after that. A retry is stored before what it
//! is a retry of is removed, so a look that is made at the wrong moment may find neither: it takes two, some seconds
//! apart.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use wf_broker::{Broker, BrokerError, TRACE_SLACK, Trace, Traced};
use wf_schema::{BatchId, Lane, Millis};

use super::counts::Why;

/// How long a batch may be quiet before the broker is asked what it has of it, and how seldom it is asked at last.
const PAUSES: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(300));
/// How long after a look that found nothing the next is made.
const CONFIRM: Duration = Duration::from_secs(5);
/// How long one look may take.
const LOOK: Duration = Duration::from_secs(60);

/// A batch whose outcomes may be lost.
pub(super) struct Suspect {
    pub(super) id: BatchId,
    pub(super) lane: Lane,
    /// When it was published at the earliest.
    pub(super) since: Millis,
    /// Whether there is more reason to suspect it than that it is quiet.
    pub(super) doubted: bool,
}

/// What the broker has of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// Something that is still to be run.
    Waits,
    /// Nothing.
    Gone,
    /// It cannot tell.
    Untold,
}

/// Finds out what `broker` has of `suspects`.
pub(super) async fn look_for(broker: Arc<dyn Broker>, suspects: Vec<Suspect>) -> Result<Vec<(BatchId, Finding)>, BrokerError> {
    // As long as the broker keeps what is older than a batch, it has dropped no outcome of it.
    let kept_since = match broker.kept_since().await {
        Ok(since) => since.saturating_add(TRACE_SLACK),
        Err(error @ BrokerError::Retryable { .. }) => return Err(error),
        Err(_) => Millis::MAX,
    };
    let (suspects, others): (Vec<_>, Vec<_>) =
        suspects.into_iter().partition(|suspect| suspect.doubted || suspect.since <= kept_since);
    let mut findings: Vec<_> = others.into_iter().map(|other| (other.id, Finding::Waits)).collect();
    if suspects.is_empty() {
        return Ok(findings);
    }
    let wanted = suspects.iter().map(|suspect| {
        let Suspect { id, lane, since, .. } = suspect;
        Trace { lane: lane.clone(), batch: *id, id: None, later: false, since: *since }
    });
    let traced = broker.trace(wanted.collect(), LOOK).await?;
    findings.extend(suspects.iter().zip(traced).map(|(suspect, traced)| {
        let finding = match traced {
            Traced::Stored => Finding::Waits,
            Traced::Ended | Traced::Absent => Finding::Gone,
            Traced::Unknown => Finding::Untold,
        };
        (suspect.id, finding)
    }));
    Ok(findings)
}

/// What is known of an open batch, and when to ask again.
#[derive(Debug)]
pub(super) struct Vigil {
    doubt: Option<Why>,
    /// Looks in a row that found nothing.
    gone: u32,
    untold_since: Option<Instant>,
    next: Instant,
    pause: Duration,
}

impl Vigil {
    pub(super) fn new(now: Instant) -> Self {
        Self { doubt: None, gone: 0, untold_since: None, next: now + PAUSES.0, pause: PAUSES.0 }
    }

    /// There is reason to believe that some of it never comes.
    pub(super) fn doubt(&mut self, why: Why, now: Instant) {
        self.doubt = self.doubt.max(Some(why));
        self.next = now;
    }

    pub(super) fn is_doubted(&self) -> bool {
        self.doubt.is_some()
    }

    /// Outcomes have come.
    pub(super) fn progressed(&mut self, now: Instant) {
        *self = Self { doubt: self.doubt, ..Self::new(now) };
    }

    /// Whether it is time to ask.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.next <= now
    }

    /// It is being asked about, or could not be.
    pub(super) fn asked(&mut self, now: Instant) {
        self.next = now + self.pause;
    }

    /// What was found. If what is missing now will not come, why.
    pub(super) fn found(&mut self, finding: Finding, now: Instant, patience: Duration) -> Option<Why> {
        match finding {
            Finding::Waits => {
                (self.gone, self.untold_since) = (0, None);
                self.pause = (self.pause * 2).min(PAUSES.1);
                self.next = now + self.pause;
                None
            }
            Finding::Gone => {
                self.gone += 1;
                self.next = now + CONFIRM;
                (self.gone > 1).then_some(self.doubt.unwrap_or(Why::Dropped))
            }
            Finding::Untold => {
                self.gone = 0;
                self.next = now + self.pause;
                let since = *self.untold_since.get_or_insert(now);
                (now.duration_since(since) >= patience).then_some(Why::Untold)
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(300);

    #[test]
    fn it_takes_two_looks_to_be_lost() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut vigil = Vigil::new(start);
        assert!(!vigil.is_due(at(9)) && vigil.is_due(at(10)));
        assert_eq!(vigil.found(Finding::Gone, at(10), PATIENCE), None);
        assert!(!vigil.is_due(at(14)) && vigil.is_due(at(15)));
        // A retry had been on its way from one place to the other.
        assert_eq!(vigil.found(Finding::Waits, at(15), PATIENCE), None);
        assert!(!vigil.is_due(at(34)) && vigil.is_due(at(35)));
        assert_eq!(vigil.found(Finding::Gone, at(35), PATIENCE), None);
        vigil.progressed(at(36));
        assert_eq!(vigil.found(Finding::Gone, at(46), PATIENCE), None);
        assert_eq!(vigil.found(Finding::Gone, at(51), PATIENCE), Some(Why::Dropped));
    }

    #[test]
    fn what_waits_is_asked_about_ever_more_seldom_and_what_is_doubted_at_once() {
        let start = Instant::now();
        let mut vigil = Vigil::new(start);
        let mut now = start;
        for _ in 0..10 {
            vigil.found(Finding::Waits, now, PATIENCE);
            now = vigil.next;
        }
        assert_eq!(vigil.pause, PAUSES.1);
        vigil.doubt(Why::Forgotten, now);
        assert!(vigil.is_due(now) && vigil.is_doubted());
        vigil.found(Finding::Gone, now, PATIENCE);
        assert_eq!(vigil.found(Finding::Gone, now + CONFIRM, PATIENCE), Some(Why::Forgotten));
    }

    #[test]
    fn what_nobody_can_tell_is_waited_for_as_long_as_patience_lasts() {
        let start = Instant::now();
        let mut vigil = Vigil::new(start);
        assert_eq!(vigil.found(Finding::Untold, start, PATIENCE), None);
        assert_eq!(vigil.found(Finding::Untold, start + PATIENCE / 2, PATIENCE), None);
        assert_eq!(vigil.found(Finding::Untold, start + PATIENCE, PATIENCE), Some(Why::Untold));
    }
}
