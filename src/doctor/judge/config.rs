//! The configuration of this node.

use wf_schema::config::{ConfigError, Loaded};

use super::super::finding::said;
use super::super::{Check, Finding};

/// A configuration that can be used.
pub(in crate::doctor) fn loaded(loaded: &Loaded) -> Finding {
    let changed = loaded.diff().filter(|row| row.key != "profile").count();
    let profile = loaded.rows().iter().find(|row| row.key == "profile").map_or("", |row| row.value.as_str());
    let changed = match changed {
        0 => "nothing changed".to_owned(),
        1 => "1 setting changed (`wf config diff`)".to_owned(),
        n => format!("{n} settings changed (`wf config diff`)"),
    };
    let found = format!("profile {profile}; {changed}");
    if loaded.warnings.is_empty() {
        return Finding::ok(Check::Config, found);
    }
    let warnings = loaded.warnings.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    Finding::warning(Check::Config, format!("{found}; {warnings}")).advice("remove or rename what sets nothing")
}

/// One that cannot.
pub(in crate::doctor) fn wrong(error: &ConfigError) -> Finding {
    // Several errors are told on a line each.
    Finding::problem(Check::Config, said(error).replace("\u{fffd}  ", " "))
        .advice("`wf config check` says it too; see docs/configuration.md")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::super::Verdict;
    use super::*;
    use wf_schema::config::Loader;

    #[test]
    fn what_is_changed_is_counted_and_what_is_wrong_is_told() {
        let of = |env: &[(&str, &str)]| Loader::new().env(env.iter().copied()).load();
        let finding = loaded(&of(&[("WF_PROFILE", "wan"), ("WF_BATCH_JOBS", "7")]).unwrap());
        assert_eq!((finding.verdict, finding.found.as_str()), (Verdict::Ok, "profile wan; 1 setting changed (`wf config diff`)"));
        let finding = loaded(&of(&[("WF_BATCH_JOBBS", "7")]).unwrap());
        assert!(finding.verdict == Verdict::Warning && finding.found.contains("WF_BATCH_JOBS"), "{}", finding.found);
        let finding = wrong(&of(&[("WF_BATCH_JOBS", "0"), ("WF_BATCH_LINGER", "1 h")]).unwrap_err());
        assert_eq!(finding.verdict, Verdict::Problem);
        assert!(finding.found.contains("WF_BATCH_JOBS") && finding.found.contains("WF_BATCH_LINGER"), "{}", finding.found);
    }
}
