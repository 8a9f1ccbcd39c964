//! What is made of what was found: pure functions, from facts to findings. Nothing here measures anything.

pub(super) mod account;
pub(super) mod capacity;
pub(super) mod clock;
pub(super) mod config;
pub(super) mod consumers;
pub(super) mod difference;
pub(super) mod disk;
pub(super) mod durability;
pub(super) mod host;
pub(super) mod lanes;
pub(super) mod layout;
pub(super) mod link;
pub(super) mod profile;
pub(super) mod replicas;
pub(super) mod server;
pub(super) mod windows;

use wf_nats::CheckupError;

use super::finding::said;
use super::{Check, Finding};

/// What is made of something that could not be found out. That a right is missing is no fault: nodes have the fewest.
pub(super) fn untold(check: Check, what: &str, error: &CheckupError) -> Finding {
    match error {
        CheckupError::Denied { right } => Finding::note(check, format!("{what} not checked: the user has no right to {right}"))
            .advice(format!("let the user {right}, or ask as one who may")),
        CheckupError::Missing(missing) => Finding::note(check, format!("{what} not checked: {missing} is not there")),
        error => Finding::warning(check, format!("{what} could not be checked: {}", said(error))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn a_missing_right_is_named_and_no_fault() {
        let error = CheckupError::Denied { right: "publish to $JS.API.INFO".into() };
        let finding = untold(Check::Account, "the account", &error);
        assert_eq!((finding.verdict, finding.check), (Verdict::Note, Check::Account));
        assert!(finding.found.contains("publish to $JS.API.INFO") && finding.advice.is_some());
        let error = CheckupError::Failed("no answer came within 5 ms".into());
        let finding = untold(Check::Account, "the account", &error);
        assert_eq!(finding.verdict, Verdict::Warning);
        assert!(finding.found.contains("no answer came within 5 ms"), "{}", finding.found);
    }
}
