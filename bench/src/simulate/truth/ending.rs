//! How it all ended: nothing that was accepted has vanished.

use super::{Truth, Violation, Way};
use crate::simulate::history::Place;

impl Truth {
    /// Quick jobs that were kept waiting by what has nothing to do with them.
    fn late(&self) -> Vec<(&'static str, String)> {
        let Some(patience) = self.patience else { return Vec::new() };
        let mut late = Vec::new();
        for message in self.messages.values().filter(|message| message.lane.queue.as_str() == Place::QUICK_NAME) {
            let Some((job, number, tag)) = message.jobs.first() else { continue };
            let start = self.attempts.get(&(*job, *number)).and_then(|attempt| attempt.starts.first());
            let Some(start) = start.filter(|_| message.run.is_some() && message.birth) else { continue };
            let since = self.disturbances.iter().map(|(at, _)| *at).filter(|at| *at <= start.at).max();
            let waited = start.at.saturating_duration_since(since.map_or(message.at, |since| since.max(message.at)));
            if waited > patience {
                late.push(("lane blocked", format!("job {tag} of {} waited {} ms", message.lane, waited.as_millis())));
            }
        }
        late
    }

    /// Looks at everything once the history is over and has healed.
    pub(crate) fn conclude(&mut self) {
        let mut lost = Vec::new();
        for (node, at, start, detail) in std::mem::take(&mut self.unexplained) {
            if !self.has_reason(node, at, &start) {
                self.violations.push(Violation { what: "runs again", detail });
            }
        }
        for (number, tag) in &self.tags {
            if tag.accepted.is_none() || tag.excused {
                continue;
            }
            if tag.births.is_empty() {
                lost.push(("false accept", format!("job {number} was accepted, and is not stored anywhere")));
                continue;
            }
            let attempts = || self.attempts.values().filter(|attempt| attempt.tag == *number);
            let completed = attempts().any(|attempt| attempt.ends.iter().any(|(_, _, _, well)| *well));
            let buried = attempts().any(|attempt| attempt.buried);
            if !completed && !buried {
                lost.push(("lost", format!("job {number} was accepted, and has neither completed nor died")));
            }
            if !completed && buried && tag.kills == 0 && tag.way == Way::Keyed && attempts().all(|a| a.ends.is_empty()) {
                lost.push(("condemned", format!("job {number} is a dead letter and was never run")));
            }
        }
        lost.extend(self.late());
        for (what, detail) in lost {
            self.violated(what, detail);
        }
    }
}
