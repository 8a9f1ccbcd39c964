//! Whether what was accepted is on disk: as the servers say, or as far as it can be inferred.

use std::time::Duration;

use wf_nats::{CheckupError, ServerVars, StoreTimes, SyncPolicy};
use wf_schema::config::Span;

use super::super::finding::said;
use super::super::{Check, Finding, units};

/// A store that takes this much longer than a round trip waits for something: most likely for a disk.
const A_DISK: Duration = Duration::from_millis(1);

/// One that takes less than this longer most likely waits for none.
const NO_DISK: Duration = Duration::from_micros(100);

/// What to do about a server that syncs now and then.
const SYNC_ALWAYS: &str = "set `sync_interval: always` in the jetstream block of its configuration (docs/deploy.md)";

/// How to know.
const ASK: &str = "to be sure, name the server's monitoring (--monitor http://HOST:8222), or a user of its system account \
                   (--monitor nats://USER:PASSWORD@HOST:4222)";

/// What a server says.
pub(in crate::doctor) fn told(vars: &ServerVars) -> Finding {
    let finding = match vars.sync {
        Some(SyncPolicy::Always) => Finding::ok(Check::Durability, "syncs to disk before it answers (sync_interval: always)"),
        Some(SyncPolicy::Every(interval)) => Finding::warning(
            Check::Durability,
            format!("syncs to disk every {0}: a power failure can take the last {0} of accepted jobs", Span::from(interval)),
        )
        .advice(SYNC_ALWAYS),
        None => Finding::note(Check::Durability, "has no JetStream"),
    };
    finding.of(&vars.server)
}

/// What the times of storing something let one infer.
pub(in crate::doctor) fn inferred(times: &Result<StoreTimes, CheckupError>) -> Finding {
    let times = match times {
        Ok(times) => times,
        Err(CheckupError::Denied { right }) => {
            return Finding::note(Check::Durability, format!("not known, nor to be inferred: the user has no right to {right}"))
                .advice(ASK);
        }
        Err(CheckupError::Missing(missing)) => {
            return Finding::note(Check::Durability, format!("not known, nor to be inferred: {missing} is not there"))
                .advice(ASK);
        }
        Err(error) => {
            return Finding::problem(Check::Durability, format!("a small record could not be stored: {}", said(error)))
                .advice("see the server's log, and that its disk has room; what cannot be stored is not accepted");
        }
    };
    // The quickest of each: what the link adds to some of them is not the disk's.
    let quickest = |times: &[Duration]| times.iter().min().copied().unwrap_or_default();
    let (store, trip) = (quickest(&times.stores), quickest(&times.round_trips));
    let beyond = store.saturating_sub(trip);
    let measured = format!("storing takes {} beyond a round trip", units::time(beyond));
    let spread = spread(&times.round_trips);
    if spread > beyond.max(A_DISK) {
        let found = format!("cannot be inferred: {measured}, on a link that varies by {}", units::time(spread));
        return Finding::note(Check::Durability, found).advice(ASK);
    }
    if beyond >= A_DISK {
        let found = format!("inferred, not known: {measured}, so the server most likely syncs to disk before it answers");
        return Finding::note(Check::Durability, found).advice(ASK);
    }
    if beyond >= NO_DISK {
        let found = format!("cannot be inferred: {measured}, much for a server that does not sync and little for one that does");
        return Finding::note(Check::Durability, found).advice(ASK);
    }
    let found = format!(
        "inferred, not known: {measured}, quicker than nearly all disks, so the server most likely answers first and syncs \
         later; its own default is every 2 min, and a power failure takes what was accepted since"
    );
    Finding::warning(Check::Durability, found).advice(format!("{SYNC_ALWAYS}; {ASK}"))
}

/// How far half of the times are from the quickest.
fn spread(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort_unstable();
    let first = times.first().copied().unwrap_or_default();
    times.get(times.len() / 2).copied().unwrap_or_default().saturating_sub(first)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::super::Verdict;
    use super::*;

    #[test]
    fn a_server_that_syncs_now_and_then_may_lose_that_much() {
        let vars = |sync| ServerVars { server: "n1".into(), sync, ..ServerVars::default() };
        for (sync, verdict, text) in [
            (Some(SyncPolicy::Always), Verdict::Ok, "before it answers"),
            (Some(SyncPolicy::Every(Duration::from_secs(120))), Verdict::Warning, "the last 2 min of accepted jobs"),
            (None, Verdict::Note, "no JetStream"),
        ] {
            let finding = told(&vars(sync));
            assert!(finding.verdict == verdict && finding.found.contains(text), "{finding:?}");
            assert_eq!(finding.of.as_deref(), Some("n1"));
        }
    }

    #[test]
    fn an_inference_says_that_it_is_one() {
        let times = |stores: &[u64], trips: &[u64]| {
            let of = |micros: &[u64]| micros.iter().map(|us| Duration::from_micros(*us)).collect();
            Ok(StoreTimes { stores: of(stores), round_trips: of(trips) })
        };
        for (times, verdict, text) in [
            (times(&[400, 350], &[300, 310]), Verdict::Warning, "answers first"),
            (times(&[900, 700], &[300, 310]), Verdict::Note, "cannot be inferred"),
            (times(&[3_400, 5_000], &[300, 310]), Verdict::Note, "syncs to disk before"),
            (times(&[104_000, 109_000], &[100_000, 101_000]), Verdict::Note, "syncs to disk before"),
            (times(&[101_000, 180_000], &[100_000, 140_000]), Verdict::Note, "cannot be inferred"),
            (Err(CheckupError::Missing("stream x".into())), Verdict::Note, "stream x is not there"),
            (Err(CheckupError::Denied { right: "publish to $KV.x".into() }), Verdict::Note, "$KV.x"),
        ] {
            let finding = inferred(&times);
            assert!(finding.verdict == verdict && finding.found.contains(text), "{finding:?}");
            assert!(finding.advice.as_deref().unwrap().contains("--monitor"), "{finding:?}");
        }
        let failed = inferred(&Err(CheckupError::Failed("no answer came".into())));
        assert!(failed.verdict == Verdict::Problem && failed.found.contains("no answer came"), "{failed:?}");
    }
}
