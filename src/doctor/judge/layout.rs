//! The factory as it stands at the broker: whether it is set up, and each stream as it should be.

use wf_nats::{CheckupError, LayoutFacts, ServerFacts, StreamFacts, StreamRole};

use super::super::finding::shown;
use super::super::{Check, Finding, Verdict};
use super::difference::{Meaning, Remedy, meaning, told};
use super::untold;

/// Whether the factory is set up.
pub(in crate::doctor) fn setup(layout: &LayoutFacts) -> Finding {
    let missing = layout.streams.iter().filter(|(_, _, facts)| matches!(facts, Err(CheckupError::Missing(_))));
    let missing: Vec<&str> = missing.map(|(_, name, _)| name.as_str()).collect();
    let run = "run `wf broker setup`, with the profile of the farthest nodes";
    match &layout.settings {
        Err(CheckupError::Missing(_)) if missing.len() == layout.streams.len() => {
            Finding::note(Check::Setup, "the factory is not set up yet")
                .advice(format!("{run}; the first `wf ingest` does it too"))
        }
        Err(CheckupError::Missing(_)) => {
            Finding::problem(Check::Setup, "there are streams of the factory, but not its settings: its set-up did not end")
                .advice(run)
        }
        Err(CheckupError::Unreadable(_)) => {
            Finding::problem(Check::Setup, "the factory's settings cannot be read: another version of wf has written them")
                .advice("run the version of wf that the factory was set up with, or newer")
        }
        Err(error) => untold(Check::Setup, "whether the factory is set up", error),
        Ok(_) if !missing.is_empty() => {
            Finding::problem(Check::Setup, format!("the factory is set up, but {} is gone", missing.join(", "))).advice(run)
        }
        Ok(settings) => {
            let found = format!("the factory is set up, with a lease of {} s", settings.lease.as_secs_f64());
            if layout.differences.is_empty() {
                return Finding::ok(Check::Setup, found);
            }
            let differing = layout.differences.iter().map(told).collect::<Vec<_>>().join(", ");
            Finding::note(Check::Setup, format!("{found}; it stands otherwise than this node is configured: {differing}"))
                .advice("nodes use what stands; `wf broker setup --update` makes it what is configured")
        }
    }
}

/// Each stream. Those that are as they should be share a row, and so do those that could not be looked at.
pub(in crate::doctor) fn streams(layout: &LayoutFacts) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut fine = Vec::new();
    let mut closed: Vec<(&str, &CheckupError)> = Vec::new();
    for (role, name, facts) in &layout.streams {
        match facts {
            Ok(facts) if facts.differences.is_empty() => fine.push(name.as_str()),
            Ok(facts) => findings.push(differing(*role, name, facts)),
            Err(CheckupError::Missing(_)) => {}
            Err(error) => closed.push((name, error)),
        }
    }
    if !fine.is_empty() {
        findings.insert(0, Finding::ok(Check::Streams, format!("{} as they should be", fine.join(", "))));
    }
    if let Some((_, error)) = closed.first() {
        let names: Vec<_> = closed.iter().map(|(name, _)| *name).collect();
        let all = format!("publish to $JS.API.STREAM.INFO.{{{}}}", names.join(","));
        let error = match error {
            CheckupError::Denied { .. } => &CheckupError::Denied { right: all },
            error => error,
        };
        findings.push(untold(Check::Streams, &names.join(", "), error));
    }
    findings
}

fn differing(role: StreamRole, name: &str, facts: &StreamFacts) -> Finding {
    let meanings: Vec<(String, Meaning)> = facts.differences.iter().map(|d| (told(d), meaning(role, d))).collect();
    let verdict = meanings.iter().map(|(_, meaning)| meaning.verdict).max().unwrap_or(Verdict::Ok);
    let mut worst_first: Vec<_> = meanings.iter().collect();
    worst_first.sort_by_key(|(_, meaning)| std::cmp::Reverse(meaning.verdict));
    let found = worst_first.iter().map(|(told, meaning)| format!("{told}: {}", meaning.consequence));
    let found = found.collect::<Vec<_>>().join("; ");
    let by = |remedy| meanings.iter().any(|(_, meaning)| meaning.remedy == remedy);
    let by_hand: Vec<&str> = facts
        .differences
        .iter()
        .zip(&meanings)
        .filter(|(_, (_, meaning))| meaning.remedy == Remedy::ByHand)
        .map(|(difference, _)| difference.setting.as_str())
        .collect();
    let mut advice = Vec::new();
    if by(Remedy::Anew) {
        let name = shown(name);
        advice.push(format!("let it run empty, remove it (`nats stream rm {name}`) and run `wf broker setup`"));
    } else if by(Remedy::Update) {
        advice.push("`wf broker setup --update`, with the factory's configuration, puts it right".to_owned());
    }
    if !by_hand.is_empty() && !by(Remedy::Anew) {
        advice.push(format!("take back {} by hand (`nats stream edit {}`)", by_hand.join(", "), shown(name)));
    }
    Finding::new(Check::Streams, verdict, found).of(name).advice(advice.join("; "))
}

/// `setup`, with the JetStream domain in which the factory is looked for, where there are domains.
pub(in crate::doctor) fn in_domain(mut setup: Finding, server: &ServerFacts, configured: Option<&str>, set_up: bool) -> Finding {
    match (configured, server.domain.as_deref()) {
        (Some(domain), own) => {
            let own = own.filter(|own| *own != domain).map(|own| format!(", reached through a server of domain {}", shown(own)));
            setup.found.push_str(&format!("; in JetStream domain {domain}{}", own.unwrap_or_default()));
        }
        (None, Some(own)) if set_up => setup.found.push_str(&format!("; in JetStream domain {}", shown(own))),
        (None, Some(own)) => {
            let own = shown(own);
            setup.found.push_str(&format!("; the server is in JetStream domain {own}, and broker.domain is unset"));
            setup = setup.advice(format!(
                "set broker.domain to the domain of the factory; only if one of its own is meant here, run `wf broker setup \
                 --broker-domain {own}`"
            ));
        }
        (None, None) => {}
    }
    setup
}

/// What there is to say of so many factories that store what is published here.
pub(in crate::doctor) fn second(factories: usize, set_up: bool) -> Option<Finding> {
    let (found, advice) = match (factories, set_up) {
        (2.., _) => (
            "more than one JetStream stores what is published here, each for a factory of its own: jobs run more than once",
            "keep one of them: let executors run the other empty, remove its streams, and set broker.domain on the nodes there",
        ),
        (1, false) => (
            "another JetStream, that this server is linked to, has a factory of this prefix",
            "set broker.domain to the domain of that factory; a second one here would run every job again",
        ),
        _ => return None,
    };
    Some(Finding::problem(Check::Setup, found).advice(advice))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use wf_nats::{Difference, FactorySettings};

    fn missing() -> CheckupError {
        CheckupError::Missing("x".into())
    }

    fn of(settings: Result<FactorySettings, CheckupError>, jobs: Result<StreamFacts, CheckupError>) -> LayoutFacts {
        let streams = vec![(StreamRole::Jobs, "WF_JOBS".into(), jobs)];
        LayoutFacts { settings, differences: Vec::new(), streams }
    }

    fn difference(setting: &str, stands: &str, wanted: &str) -> Difference {
        Difference { of: "WF_JOBS".into(), setting: setting.into(), stands: stands.into(), wanted: wanted.into() }
    }

    #[test]
    fn not_set_up_is_no_fault_but_half_of_it_is() {
        let there = || Ok(StreamFacts::default());
        let settings = || Ok(FactorySettings::default());
        let failed = || CheckupError::Failed("temporarily unavailable".into());
        let unreadable = || CheckupError::Unreadable("unknown field".into());
        let mut other = of(settings(), there());
        other.differences.push(difference("lease_ms", "30000", "60000"));
        for (layout, verdict, text) in [
            (of(Err(missing()), Err(missing())), Verdict::Note, "not set up yet"),
            (of(Err(missing()), there()), Verdict::Problem, "did not end"),
            (of(settings(), Err(missing())), Verdict::Problem, "WF_JOBS is gone"),
            (of(Err(unreadable()), there()), Verdict::Problem, "another version"),
            (of(Err(failed()), there()), Verdict::Warning, "temporarily unavailable"),
            (of(settings(), there()), Verdict::Ok, "lease of 30 s"),
            (other, Verdict::Note, "lease_ms is 30 s, not 1 min"),
        ] {
            let finding = setup(&layout);
            assert!(finding.verdict == verdict && finding.found.contains(text), "{finding:?}");
        }
    }

    #[test]
    fn a_domain_is_told_and_a_second_factory_is_a_problem() {
        let server = |domain: Option<&str>| ServerFacts { domain: domain.map(str::to_owned), ..ServerFacts::default() };
        let told = |own, configured, set_up| in_domain(Finding::ok(Check::Setup, "x"), &server(own), configured, set_up);
        assert_eq!(told(None, None, true).found, "x");
        assert_eq!(told(Some("hub"), None, true).found, "x; in JetStream domain hub");
        assert_eq!(told(Some("hub"), Some("hub"), true).found, "x; in JetStream domain hub");
        let leaf = told(Some("leaf"), Some("hub"), true);
        assert_eq!(leaf.found, "x; in JetStream domain hub, reached through a server of domain leaf");
        let unnamed = told(Some("leaf"), None, false);
        assert!(unnamed.found.contains("broker.domain is unset") && unnamed.advice.unwrap().contains("--broker-domain leaf"));
        assert_eq!([second(0, false), second(0, true), second(1, true)], [None, None, None]);
        assert!(second(1, false).unwrap().found.contains("another JetStream"));
        assert_eq!(second(2, true).unwrap().verdict, Verdict::Problem);
    }

    #[test]
    fn a_stream_tells_its_worst_first_and_how_to_put_it_right() {
        let with = |differences| of(Ok(FactorySettings::default()), Ok(StreamFacts { differences, ..StreamFacts::default() }));
        let fine = streams(&with(Vec::new()));
        assert_eq!((fine.len(), fine[0].verdict), (1, Verdict::Ok));
        let found = streams(&with(vec![
            difference("compression", "\"s2\"", "\"none\""),
            difference("max_age", "60000000000", "0"),
            difference("discard", "\"old\"", "\"new\""),
        ]));
        let [row] = &found[..] else { panic!("{found:?}") };
        assert_eq!((row.verdict, row.of.as_deref()), (Verdict::Problem, Some("WF_JOBS")));
        assert!(row.found.starts_with("max_age is 1 min"), "{row:?}");
        let advice = row.advice.as_deref().unwrap();
        assert!(advice.contains("--update") && advice.contains("take back max_age by hand"), "{advice}");
        // It would be lost by a crash of the server, not only by a power failure.
        let found = streams(&with(vec![difference("persist_mode", "\"async\"", "false")]));
        assert!(found[0].verdict == Verdict::Problem && found[0].found.contains("loses accepted jobs"), "{found:?}");
        let found = streams(&with(vec![difference("storage", "\"memory\"", "\"file\"")]));
        assert!(found[0].advice.as_ref().unwrap().contains("nats stream rm WF_JOBS"));
        let denied = CheckupError::Denied { right: "publish to $JS.API.STREAM.INFO.WF_JOBS".into() };
        let found = streams(&of(Ok(FactorySettings::default()), Err(denied)));
        assert!(found[0].verdict == Verdict::Note && found[0].found.contains("$JS.API.STREAM.INFO.{WF_JOBS}"), "{found:?}");
    }
}
