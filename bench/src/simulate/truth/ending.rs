//! How it all ended: nothing that was accepted has vanished.

use super::{Truth, Violation, Way};

impl Truth {
    /// Looks at everything once the history is over and has healed.
    pub(crate) fn conclude(&mut self) {
        let mut lost = Vec::new();
        for (node, at, start, detail) in std::mem::take(&mut self.unexplained) {
            if !self.has_reason(node, at, start) {
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
        for (what, detail) in lost {
            self.violated(what, detail);
        }
    }
}
