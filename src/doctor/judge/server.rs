//! The server: whether it is reached, its version, and the messages that it takes.

use std::time::Duration;

use wf_nats::{ConnectError, ServerFacts};
use wf_schema::config::Config;

use super::super::finding::{said, shown};
use super::super::{Check, Finding, Verdict, units};

/// The version that everything is tested with.
const TESTED: (u64, u64) = (2, 15);

/// What headers and the frame of a batch add to it, at most.
const AROUND_A_BATCH: u64 = 4 << 10;

/// A server that was reached, `took` after it was tried.
pub(in crate::doctor) fn reached(server: &ServerFacts, took: Duration) -> Finding {
    let mut found = format!("nats-server {} at {}, reached in {}", shown(&server.version), server.address, units::time(took));
    for (what, name) in [("cluster", &server.cluster), ("domain", &server.domain)] {
        if let Some(name) = name.as_deref().filter(|name| !name.is_empty()) {
            found.push_str(&format!(", {what} {}", shown(name)));
        }
    }
    found.push_str(if server.encrypted { ", encrypted" } else { ", not encrypted" });
    let far = !server.encrypted && !local(&server.address);
    if server.stopping {
        return Finding::warning(Check::Server, format!("{found}; it is about to stop")).advice("ask again when it is back");
    }
    match version(&server.version) {
        Some(version) if version == TESTED && far => Finding::note(Check::Server, found)
            .advice("use tls:// where others can listen: jobs and passwords cross the network as they are"),
        Some(version) if version == TESTED => Finding::ok(Check::Server, found),
        _ => Finding::note(Check::Server, format!("{found}; tested is {}.{}", TESTED.0, TESTED.1)),
    }
}

/// A server that was not, or that cannot be used; `others` is whether another one was.
pub(in crate::doctor) fn refused(error: &ConnectError, others: bool) -> Finding {
    let verdict = if others { Verdict::Warning } else { Verdict::Problem };
    let finding = Finding::new(Check::Server, verdict, said(error));
    match error {
        ConnectError::Unreachable { .. } => {
            finding.advice("start the server, or correct broker.url; a firewall shows as no answer, a wrong port as refused")
        }
        ConnectError::Login { .. } | ConnectError::Credentials { .. } => {
            finding.advice("correct the user in broker.url, or the file in broker.creds")
        }
        ConnectError::TooOld { .. } => finding.advice("upgrade nats-server: schedules with time zones came with 2.14"),
        _ => finding,
    }
}

/// Whether the server takes the largest batch that this node makes.
pub(in crate::doctor) fn payload(server: &ServerFacts, config: &Config) -> Finding {
    let (wire, args) = (config.batch().wire_bytes.bytes(), config.ingest().args_limit.bytes());
    let most = server.max_payload as u64;
    let found = format!(
        "the server takes messages up to {}; a full batch has {wire}, a single job's args up to {args}",
        units::bytes(most),
        wire = units::bytes(wire),
        args = units::bytes(args),
    );
    let advice = |least: u64| {
        format!("set `max_payload: {}` or more at the server", units::bytes((least + AROUND_A_BATCH).next_power_of_two()))
    };
    if most < wire + AROUND_A_BATCH {
        return Finding::problem(Check::Payload, found).advice(format!("{}, or less for batch.wire_bytes", advice(wire)));
    }
    // Incompressible args make a batch as large as they are.
    if most < args + AROUND_A_BATCH {
        return Finding::warning(Check::Payload, found).advice(format!("{}, or less for ingest.args_limit", advice(args)));
    }
    Finding::ok(Check::Payload, found)
}

fn version(text: &str) -> Option<(u64, u64)> {
    let mut numbers = text.trim_start_matches('v').split(['.', '-']).map_while(|number| number.parse().ok());
    Some((numbers.next()?, numbers.next()?))
}

/// Whether `address` is on this machine.
fn local(address: &str) -> bool {
    let host = address.split_once("://").map_or(address, |(_, host)| host);
    ["127.", "localhost", "[::1]", "::1"].iter().any(|local| host.starts_with(local))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use wf_schema::config::Loader;

    fn server(version: &str, address: &str) -> ServerFacts {
        ServerFacts { version: version.into(), address: address.into(), max_payload: 1 << 20, ..ServerFacts::default() }
    }

    #[test]
    fn a_version_is_tested_or_not_and_a_far_server_should_be_encrypted() {
        let table = [
            ("2.15.1", "nats://127.0.0.1:4222", Verdict::Ok),
            ("2.15.0-beta.2", "nats://localhost:4222", Verdict::Ok),
            ("2.14.3", "nats://127.0.0.1:4222", Verdict::Note),
            ("2.16.0", "nats://127.0.0.1:4222", Verdict::Note),
            ("dev", "nats://127.0.0.1:4222", Verdict::Note),
            ("2.15.1", "nats://broker.example:4222", Verdict::Note),
        ];
        for (version, address, verdict) in table {
            assert_eq!(reached(&server(version, address), Duration::ZERO).verdict, verdict, "{version} {address}");
        }
        let encrypted = ServerFacts { encrypted: true, ..server("2.15.1", "tls://broker.example:4222") };
        assert_eq!(reached(&encrypted, Duration::ZERO).verdict, Verdict::Ok);
        let stopping = ServerFacts { stopping: true, ..encrypted };
        assert_eq!(reached(&stopping, Duration::ZERO).verdict, Verdict::Warning);
    }

    #[test]
    fn a_payload_has_room_for_a_batch_and_for_a_job() {
        let config = Loader::new().load().unwrap().config;
        for (most, verdict) in [(1 << 20, Verdict::Ok), (128 << 10, Verdict::Warning), (33 << 10, Verdict::Problem)] {
            let finding = payload(&ServerFacts { max_payload: most, ..server("2.15.1", "x") }, &config);
            assert_eq!(finding.verdict, verdict, "{most}");
        }
        let small = ServerFacts { max_payload: 33 << 10, ..server("2.15.1", "x") };
        assert!(payload(&small, &config).advice.unwrap().contains("64 KiB"));
    }

    #[test]
    fn each_way_not_to_reach_a_server_has_its_advice() {
        let too_old = ConnectError::TooOld { address: "nats://x".into(), version: "2.9.25".into() };
        let unreachable = ConnectError::Unreachable { within: Duration::from_secs(5), tried: Vec::new() };
        for (error, advice) in [(too_old, "2.14"), (unreachable, "broker.url")] {
            assert_eq!(refused(&error, true).verdict, Verdict::Warning);
            let finding = refused(&error, false);
            assert!(finding.verdict == Verdict::Problem && finding.advice.as_ref().unwrap().contains(advice), "{finding:?}");
        }
    }
}
