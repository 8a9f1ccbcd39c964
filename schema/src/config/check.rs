//! Settings against each other: what is fine alone and cannot be together.

use std::time::Duration;

use super::error::{ConfigError, Given};
use super::read::Row;
use super::sections::Config;

/// One rule between two settings.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub(super) struct Rule {
    pub(super) key: &'static str,
    /// What `key` must be towards `other`; reads "`key` must be `relation` `other`".
    pub(super) relation: &'static str,
    pub(super) other: &'static str,
    pub(super) why: &'static str,
    holds: fn(&Config) -> bool,
}

/// All rules.
pub(super) static RULES: &[Rule] = &[
    Rule {
        key: "broker.connect_timeout",
        relation: "at most",
        other: "broker.connect_deadline",
        why: "the deadline must leave time for one attempt",
        holds: |c| c.broker().connect_timeout <= c.broker().connect_deadline,
    },
    Rule {
        key: "broker.ping_interval",
        relation: "at most a third of",
        other: "factory.lease",
        why: "a link is found dead after three pings, and must be before the leases held over it run out",
        holds: |c| times(c.broker().ping_interval, 3) <= c.factory().lease,
    },
    Rule {
        key: "broker.request_timeout",
        relation: "less than",
        other: "factory.lease",
        why: "a renewal or acknowledgement without an answer must be sent again while the lease lasts",
        holds: |c| c.broker().request_timeout < c.factory().lease,
    },
    Rule {
        key: "batch.wire_bytes",
        relation: "at most",
        other: "batch.raw_bytes",
        why: "a batch on the wire is never larger than it is before compression",
        holds: |c| c.batch().wire_bytes <= c.batch().raw_bytes,
    },
    Rule {
        key: "publish.window_bytes",
        relation: "at least",
        other: "batch.wire_bytes",
        why: "the window must have room for one full batch",
        holds: |c| c.publish().window_bytes >= c.batch().wire_bytes,
    },
    Rule {
        key: "prefetch.bytes",
        relation: "at least twice",
        other: "batch.wire_bytes",
        why: "one full batch is on its way while another is worked on",
        holds: |c| c.prefetch().bytes.bytes() >= c.batch().wire_bytes.bytes().saturating_mul(2),
    },
    Rule {
        key: "pull.heartbeat",
        relation: "less than half of",
        other: "pull.expires",
        why: "a missed heartbeat must be noticed while the request is still open",
        holds: |c| times(c.pull().heartbeat, 2) < c.pull().expires,
    },
    Rule {
        key: "ingest.args_limit",
        relation: "at most",
        other: "batch.raw_bytes",
        why: "a batch must have room for the largest job",
        holds: |c| c.ingest().args_limit <= c.batch().raw_bytes,
    },
    Rule {
        key: "ingest.args_limit",
        relation: "at most",
        other: "ingest.body_limit",
        why: "a request must have room for the largest job",
        holds: |c| c.ingest().args_limit <= c.ingest().body_limit,
    },
    Rule {
        key: "factory.dedup_window",
        relation: "at least twice",
        other: "factory.lease",
        why: "what the executor that takes over publishes again must still be known as a repetition",
        holds: |c| c.factory().dedup_window >= times(c.factory().lease, 2),
    },
    Rule {
        key: "factory.dedup_window",
        relation: "at most",
        other: "factory.results_age",
        why: "the ids of records are forgotten with them",
        holds: |c| c.factory().dedup_window <= c.factory().results_age,
    },
    Rule {
        key: "factory.dedup_window",
        relation: "at most",
        other: "factory.dead_age",
        why: "the ids of dead letters are forgotten with them",
        holds: |c| c.factory().dedup_window <= c.factory().dead_age,
    },
    Rule {
        key: "factory.lane_bytes",
        relation: "at most",
        other: "factory.jobs_bytes",
        why: "no lane can have more than all lanes together",
        holds: |c| c.factory().lane_bytes <= c.factory().jobs_bytes,
    },
];

fn times(span: Duration, factor: u32) -> Duration {
    span.saturating_mul(factor)
}

/// The rules that `config` breaks; `rows` are its values, to be shown.
pub(super) fn conflicts(config: &Config, rows: &[Row]) -> Vec<ConfigError> {
    let given = |key: &str| {
        let row = rows.iter().find(|row| row.key == key)?;
        Some(Given::new(key, &row.value, row.origin.clone()))
    };
    let broken = RULES.iter().filter(|rule| !(rule.holds)(config));
    let conflict = |rule: &Rule| {
        let (given, other) = (given(rule.key).map(Box::new)?, given(rule.other).map(Box::new)?);
        Some(ConfigError::Conflict { given, relation: rule.relation, other, why: rule.why })
    };
    broken.filter_map(conflict).collect()
}
