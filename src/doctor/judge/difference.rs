//! What it means that a stream is otherwise than the factory needs it.

use wf_nats::{Difference, StreamRole};
use wf_schema::config::{Size, Span};

use super::super::Verdict;
use super::super::finding::shown;

/// How a difference is put right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::doctor) enum Remedy {
    /// `wf broker setup --update` does it.
    Update,
    /// Set-up leaves it alone: whoever set it takes it back.
    ByHand,
    /// The server does not change it: the stream is made anew.
    Anew,
}

/// What a difference means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::doctor) struct Meaning {
    pub verdict: Verdict,
    /// What it does to a factory.
    pub consequence: &'static str,
    pub remedy: Remedy,
}

/// What `difference` of a stream that is for `role` means.
pub(in crate::doctor) fn meaning(role: StreamRole, difference: &Difference) -> Meaning {
    use Remedy::{Anew, ByHand, Update};
    use StreamRole::{Dead, Jobs, Later, Results, Runs, State};
    use Verdict::{Note, Problem, Warning};

    let of = |verdict, consequence, remedy| Meaning { verdict, consequence, remedy };
    // Unlimited is written as a negative number, or as zero for ages.
    let limit = |text: &str| text.parse::<i64>().ok().filter(|n| *n > 0).unwrap_or(i64::MAX);
    let less = limit(&difference.stands) < limit(&difference.wanted);
    match (difference.setting.as_str(), role) {
        ("discard", Jobs) => of(Problem, "when it is full, accepted jobs are dropped", Update),
        ("max_age" | "max_bytes" | "max_msgs" | "max_msgs_per_subject", Runs) => {
            of(Problem, "past it, runs lose their logs and start over, or cannot be settled", Update)
        }
        ("allow_rollup_hdrs", Runs) => of(Problem, "logs of runs are never ended, and fill it", Update),
        ("discard", State) => of(Problem, "when it is full, records are dropped", Update),
        ("discard", Later) => of(Problem, "schedules are refused", Update),
        ("discard", _) => of(Problem, "when it is full, nothing can be settled", Update),
        ("discard_new_per_subject", _) => of(Problem, "when a lane is full, its oldest accepted jobs are dropped", Update),
        ("retention", _) => of(Problem, "messages are not kept until they are settled, or not let go when they are", Anew),
        ("storage", _) => of(Problem, "a restart of the server loses what is in it", Anew),
        ("persist_mode", _) => of(Problem, "the server answers before it has written: a crash loses accepted jobs", Anew),
        ("no_ack", _) => of(Problem, "nobody hears that a batch was stored", ByHand),
        ("sealed", _) => of(Problem, "nothing can be stored", Anew),
        ("mirror", _) => of(Problem, "nothing can be published to it", Anew),
        ("sources", _) => of(Warning, "messages of other streams come in", ByHand),
        ("subject_transform", _) => of(Problem, "messages land where nobody looks", ByHand),
        ("subjects", _) => of(Problem, "messages are refused, or taken that nobody serves", Update),
        ("duplicate_window", _) if less || difference.stands == "0" => {
            of(Warning, "what is sent again after a lost connection may be stored twice", Update)
        }
        ("placement", _) => of(Note, "its copies lie elsewhere than the factory asks for", Update),
        ("num_replicas", _) if less => of(Warning, "there are fewer copies than the factory asks for", Update),
        ("max_age", Jobs | Later) => of(Problem, "jobs that wait longer are dropped", ByHand),
        ("max_age", State) => of(Problem, "claims and settings are dropped by age", ByHand),
        ("max_age", _) if less => of(Warning, "what became of jobs is forgotten sooner", Update),
        ("max_bytes" | "max_msgs", Later) => of(Problem, "past it, accepted jobs for later are dropped", Update),
        ("max_msgs", Jobs) => of(Warning, "it is full sooner, for all queues at once", ByHand),
        ("max_msgs", Dead) => of(Warning, "past it, dead letters are dropped", ByHand),
        ("max_msgs", State) => of(Warning, "past it, records are refused", ByHand),
        ("max_bytes", Jobs | State) if less => of(Warning, "it is full sooner", Update),
        ("max_bytes" | "max_msgs", _) if less => of(Warning, "past it, the oldest are dropped", Update),
        ("max_msgs_per_subject", Jobs) if difference.stands == "-1" => {
            of(Warning, "a queue that nobody serves can fill the factory", Update)
        }
        ("max_msgs_per_subject", Jobs) => of(Note, "lanes are full at another number of batches", Update),
        ("max_msgs_per_subject", State) => of(Problem, "old records stay and fill it", Update),
        ("max_msgs_per_subject", Results) => of(Problem, "records of one run push each other out", ByHand),
        ("max_msgs_per_subject", _) => of(Problem, "past it, the oldest are dropped", ByHand),
        ("max_msg_size", _) => of(Warning, "larger batches are refused", ByHand),
        ("max_consumers", _) => of(Warning, "there can only be so many lanes", Anew),
        ("allow_direct", _) => of(Problem, "nodes cannot read it", Update),
        ("allow_atomic", _) => of(Warning, "requests of several batches with an Idempotency-Key fail", Update),
        ("allow_msg_schedules", _) => of(Problem, "retries, delays and crons are refused", Update),
        ("allow_msg_ttl", _) => of(Problem, "what has a time to live is refused", Update),
        ("deny_purge", _) => of(Warning, "what is scheduled cannot be cancelled", Anew),
        ("subject_delete_marker_ttl", _) => of(Warning, "who waits for a record is not told that its time is over", Update),
        ("compression", _) => of(Note, "the server compresses what is compressed already", Update),
        _ => of(Note, "it is not as set-up makes it", Update),
    }
}

/// `discard is old, not new`.
pub(in crate::doctor) fn told(difference: &Difference) -> String {
    let Difference { setting, stands, wanted, .. } = difference;
    format!("{setting} is {}, not {}", value(setting, stands), value(setting, wanted))
}

/// A value of the server's as people read it.
fn value(setting: &str, json: &str) -> String {
    let number = json.parse::<u64>().ok();
    match (setting, number) {
        ("max_age", Some(0)) => "unlimited".to_owned(),
        ("max_age" | "duplicate_window" | "subject_delete_marker_ttl" | "ack_wait", Some(nanos)) => {
            Span::from_micros(nanos / 1_000).to_string()
        }
        (name, Some(millis)) if name.ends_with("_ms") => Span::from_micros(millis.saturating_mul(1_000)).to_string(),
        (name, Some(bytes)) if name.ends_with("_bytes") || name == "max_msg_size" => Size::new(bytes).to_string(),
        (_, None) if json == "-1" => "unlimited".to_owned(),
        (_, None) if json == "false" => "off".to_owned(),
        (_, None) if json == "true" => "on".to_owned(),
        _ => shown(json.trim_matches('"')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn difference(setting: &str, stands: &str, wanted: &str) -> Difference {
        Difference { of: "WF".into(), setting: setting.into(), stands: stands.into(), wanted: wanted.into() }
    }

    #[test]
    fn what_loses_jobs_is_a_problem_and_what_may_is_a_warning() {
        use StreamRole::{Dead, Jobs, Later, Results, Runs, State};
        let table = [
            (Jobs, "discard", "\"old\"", "\"new\"", Verdict::Problem, Remedy::Update),
            (Jobs, "retention", "\"limits\"", "\"workqueue\"", Verdict::Problem, Remedy::Anew),
            (Jobs, "storage", "\"memory\"", "\"file\"", Verdict::Problem, Remedy::Anew),
            (Jobs, "max_age", "60000000000", "0", Verdict::Problem, Remedy::ByHand),
            (Jobs, "discard_new_per_subject", "false", "true", Verdict::Problem, Remedy::Update),
            (Jobs, "duplicate_window", "0", "120000000000", Verdict::Warning, Remedy::Update),
            (Jobs, "duplicate_window", "1000000", "120000000000", Verdict::Warning, Remedy::Update),
            (Jobs, "duplicate_window", "240000000000", "120000000000", Verdict::Note, Remedy::Update),
            (Jobs, "num_replicas", "1", "3", Verdict::Warning, Remedy::Update),
            (Jobs, "num_replicas", "5", "3", Verdict::Note, Remedy::Update),
            (Jobs, "max_bytes", "-1", "4294967296", Verdict::Note, Remedy::Update),
            (Jobs, "max_bytes", "1048576", "4294967296", Verdict::Warning, Remedy::Update),
            (Jobs, "max_msgs_per_subject", "-1", "100000", Verdict::Warning, Remedy::Update),
            (Jobs, "compression", "\"s2\"", "\"none\"", Verdict::Note, Remedy::Update),
            (Jobs, "no_ack", "true", "false", Verdict::Problem, Remedy::ByHand),
            (Later, "max_bytes", "1048576", "-1", Verdict::Problem, Remedy::Update),
            (Later, "discard", "\"new\"", "\"old\"", Verdict::Problem, Remedy::Update),
            (Runs, "max_age", "1000000000", "0", Verdict::Problem, Remedy::Update),
            (Runs, "max_bytes", "1048576", "-1", Verdict::Problem, Remedy::Update),
            (Runs, "allow_rollup_hdrs", "false", "true", Verdict::Problem, Remedy::Update),
            (Results, "max_age", "1000000000", "86400000000000", Verdict::Warning, Remedy::Update),
            (Results, "max_age", "0", "86400000000000", Verdict::Note, Remedy::Update),
            (Results, "max_msgs_per_subject", "1", "-1", Verdict::Problem, Remedy::ByHand),
            (Results, "allow_direct", "false", "true", Verdict::Problem, Remedy::Update),
            (Dead, "max_msgs", "10", "-1", Verdict::Warning, Remedy::ByHand),
            (State, "allow_msg_ttl", "false", "true", Verdict::Problem, Remedy::Update),
            (State, "unheard_of", "1", "2", Verdict::Note, Remedy::Update),
        ];
        for (role, setting, stands, wanted, verdict, remedy) in table {
            let found = meaning(role, &difference(setting, stands, wanted));
            assert_eq!((found.verdict, found.remedy), (verdict, remedy), "{role:?} {setting} {stands}");
        }
    }

    #[test]
    fn values_are_told_with_their_units() {
        for (setting, stands, wanted, text) in [
            ("duplicate_window", "0", "120000000000", "duplicate_window is 0 s, not 2 min"),
            ("max_bytes", "-1", "4294967296", "max_bytes is unlimited, not 4 GiB"),
            ("max_age", "60000000000", "0", "max_age is 1 min, not unlimited"),
            ("discard", "\"old\"", "\"new\"", "discard is old, not new"),
            ("lease_ms", "30000", "60000", "lease_ms is 30 s, not 1 min"),
            ("allow_direct", "false", "true", "allow_direct is off, not on"),
        ] {
            assert_eq!(told(&difference(setting, stands, wanted)), text);
        }
    }
}
