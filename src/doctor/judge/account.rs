//! What the account may use of JetStream, beside what a factory needs.

use wf_nats::{AccountFacts, CheckupError, FactorySettings};

use super::super::finding::shown;
use super::super::{Check, Finding, Verdict, units};
use super::untold;

/// The streams of a factory.
const STREAMS: u64 = 5;

/// What a factory needs of an account.
pub(in crate::doctor) struct Needs<'a> {
    /// Its settings.
    pub settings: &'a FactorySettings,
    /// Whether its streams are there, and their room is reserved.
    pub set_up: bool,
    /// The consumers of this node's lanes.
    pub consumers: u64,
}

/// Whether the account has room for the factory.
pub(in crate::doctor) fn account(told: &Result<AccountFacts, CheckupError>, needs: &Needs<'_>) -> Finding {
    let facts = match told {
        Ok(facts) => facts,
        Err(CheckupError::Missing(_)) => {
            return Finding::problem(Check::Account, "JetStream is off, for the server or for this account")
                .advice("start the server with -js, or add a jetstream block; enable it for the account");
        }
        Err(error) => return untold(Check::Account, "the account's limits", error),
    };
    let settings = needs.settings;
    let of = |limit: Option<u64>, text: fn(u64) -> String| limit.map_or_else(|| "no limit".to_owned(), text);
    let name = facts.name.as_deref().map(|name| format!("account {}: ", shown(name))).unwrap_or_default();
    let mut found = format!(
        "{name}{} on disk of {}, {} streams of {}, {} consumers of {}",
        units::bytes(facts.storage.used),
        of(facts.storage.limit, units::bytes),
        facts.streams.used,
        of(facts.streams.limit, |n| n.to_string()),
        facts.consumers.used,
        of(facts.consumers.limit, |n| n.to_string()),
    );
    let reserves = [settings.jobs_bytes, settings.results_bytes, settings.dead_bytes, settings.state_bytes];
    let largest = reserves.into_iter().max().unwrap_or(0);
    // What streams have reserved counts against the limit as a whole, whatever is in them.
    let taken = facts.storage.used.max(facts.reserved);
    let needed = if needs.set_up { 0 } else { reserves.iter().fold(0_u64, |sum, bytes| sum.saturating_add(*bytes)) };
    let streams = if needs.set_up { 0 } else { STREAMS };
    let mut verdict = Verdict::Ok;
    let mut advice = Vec::new();
    let mut lacks = |of: Verdict, what: String, do_this: String| {
        verdict = verdict.max(of);
        found.push_str("; ");
        found.push_str(&what);
        advice.push(do_this);
    };
    if let Some(limit) = facts.storage.limit {
        if needed > 0 && limit.saturating_sub(taken) < needed {
            lacks(
                Verdict::Problem,
                format!("the factory reserves {}", units::bytes(needed)),
                "give the account more storage, or the factory less (factory.jobs_bytes, results_bytes, dead_bytes, state_bytes)"
                    .into(),
            );
        } else if needed == 0 && taken as f64 > 0.95 * limit as f64 {
            // Batches for later have no reserve of their own.
            lacks(Verdict::Warning, "little is left for batches for later".into(), "give the account more storage".into());
        }
    }
    if let Some(most) = facts.max_stream_bytes.filter(|most| *most < largest && !needs.set_up) {
        lacks(
            Verdict::Problem,
            format!("one stream may have {}", units::bytes(most)),
            format!("allow a stream {}", units::bytes(largest)),
        );
    }
    if let Some(limit) = facts.streams.limit.filter(|limit| limit.saturating_sub(facts.streams.used) < streams) {
        lacks(
            Verdict::Problem,
            format!("the factory needs {STREAMS} streams more"),
            format!("allow {} streams", limit + STREAMS),
        );
    }
    if let Some(limit) = facts.consumers.limit.filter(|limit| *limit < needs.consumers) {
        lacks(
            Verdict::Problem,
            format!("this node's queues need {} consumers", needs.consumers),
            format!("allow more than {limit} consumers"),
        );
    }
    if let Some(most) = facts.max_ack_pending.filter(|most| *most < u64::from(settings.lane_in_flight)) {
        lacks(
            Verdict::Problem,
            format!("a consumer may have {most} messages under way, the factory asks for {}", settings.lane_in_flight),
            format!("allow a max_ack_pending of {}, or set factory.lane_in_flight to {most}", settings.lane_in_flight),
        );
    }
    let finding = Finding::new(Check::Account, verdict, found);
    if advice.is_empty() { finding } else { finding.advice(advice.join("; ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wf_nats::Usage;

    #[test]
    fn what_does_not_fit_is_named() {
        let settings = FactorySettings::default();
        let free = AccountFacts::default();
        let with = |change: fn(&mut AccountFacts)| {
            let mut facts = free.clone();
            change(&mut facts);
            facts
        };
        let table: &[(AccountFacts, bool, Verdict, &str)] = &[
            (free.clone(), false, Verdict::Ok, "no limit"),
            (with(|f| f.storage.limit = Some(64 << 30)), false, Verdict::Ok, "64 GiB"),
            (with(|f| f.storage.limit = Some(1 << 30)), false, Verdict::Problem, "reserves 7.25 GiB"),
            (with(|f| f.storage = Usage { used: 99, limit: Some(100) }), true, Verdict::Warning, "for later"),
            (with(|f| f.max_stream_bytes = Some(1 << 20)), false, Verdict::Problem, "one stream may have 1 MiB"),
            (with(|f| f.streams.limit = Some(4)), false, Verdict::Problem, "5 streams"),
            (with(|f| f.streams = Usage { used: 5, limit: Some(5) }), true, Verdict::Ok, ""),
            (with(|f| f.consumers.limit = Some(5)), true, Verdict::Problem, "6 consumers"),
            (with(|f| f.max_ack_pending = Some(1_000)), true, Verdict::Problem, "50000"),
        ];
        for (facts, set_up, verdict, text) in table {
            let needs = Needs { settings: &settings, set_up: *set_up, consumers: 6 };
            let finding = account(&Ok(facts.clone()), &needs);
            assert!(finding.verdict == *verdict && finding.found.contains(text), "{finding:?}");
            assert_eq!(finding.advice.is_some(), *verdict != Verdict::Ok);
        }
        let needs = Needs { settings: &settings, set_up: true, consumers: 6 };
        assert_eq!(account(&Err(CheckupError::Missing("JetStream".into())), &needs).verdict, Verdict::Problem);
    }
}
