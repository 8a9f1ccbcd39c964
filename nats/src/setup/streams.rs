//! What the factory's streams are like.

use std::time::Duration;

use serde_json::{Value, json};

use crate::factory::FactorySettings;
use crate::layout::Layout;

/// The streams, as they should be.
pub(crate) fn streams(layout: &Layout, settings: &FactorySettings) -> Vec<Value> {
    let prefix = &layout.prefix;
    let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(i64::MAX as u64);
    let dedup = nanos(settings.dedup_window);
    let of_lanes = |kind: &str| ["high", "normal", "low"].map(|priority| format!("{prefix}.{kind}.*.{priority}"));
    let stream = |name: &str, description: &str, subjects: &[String], more: Value| {
        let mut config = json!({
            "name": name,
            "description": description,
            "subjects": subjects,
            "storage": "file",
            // Messages are compressed where they are made; the server would only warm the room.
            "compression": "none",
            "num_replicas": settings.replicas,
            "duplicate_window": dedup,
            "allow_direct": true,
        });
        if let (Some(config), Value::Object(more)) = (config.as_object_mut(), more) {
            config.extend(more);
            config.extend(placement(settings).map(|placement| ("placement".to_owned(), placement)));
        }
        config
    };
    // Only priorities that are served: a message for `<queue>.urgent` is to be refused, not to wait for ever.
    let jobs: Vec<String> = [format!("{prefix}.jobs.*")].into_iter().chain(of_lanes("jobs")).collect();
    let later: Vec<String> = [format!("{prefix}.at.>"), format!("{prefix}.cron.>")].into_iter().chain(of_lanes("fire")).collect();
    vec![
        stream(
            &layout.jobs,
            "Work Factory: batches to run now",
            &jobs,
            json!({
                "retention": "workqueue",
                "discard": "new",
                // A queue that nobody serves must not fill the factory.
                "discard_new_per_subject": true,
                "max_msgs_per_subject": settings.lane_messages,
                "max_bytes": settings.jobs_bytes,
                "allow_atomic": true,
            }),
        ),
        stream(
            &layout.later,
            "Work Factory: batches for later",
            &later,
            json!({
                "retention": "workqueue",
                // Schedules forbid DiscardNew, and with DiscardOld a limit would drop schedules: so there is none.
                "discard": "old",
                "max_bytes": -1,
                "max_msgs": -1,
                "allow_msg_schedules": true,
                "allow_msg_ttl": true,
            }),
        ),
        stream(
            &layout.runs,
            "Work Factory: the logs of the runs that are open",
            &[format!("{prefix}.runs.*.*")],
            json!({
                "retention": "limits",
                // No limits: a log that lost its records would let its run start over, and one that could not be
                // written would let no run end. It holds what is open, and for a while the ends of what was.
                "discard": "new",
                "max_age": 0,
                "max_bytes": -1,
                "max_msgs": -1,
                "max_msgs_per_subject": -1,
                "allow_rollup_hdrs": true,
                "allow_msg_ttl": true,
                "deny_delete": true,
            }),
        ),
        stream(
            &layout.results,
            "Work Factory: what became of the jobs",
            &[format!("{prefix}.results.*.*")],
            json!({
                "retention": "limits",
                "discard": "old",
                "max_age": nanos(settings.results_age),
                "max_bytes": settings.results_bytes,
                "max_msgs": settings.results_messages,
            }),
        ),
        stream(
            &layout.dead,
            "Work Factory: dead letters",
            &[format!("{prefix}.dead.*")],
            json!({
                "retention": "limits",
                "discard": "old",
                "max_age": nanos(settings.dead_age),
                "max_bytes": settings.dead_bytes,
            }),
        ),
        stream(
            &layout.state_stream,
            "Work Factory: keyed records",
            &[format!("$KV.{}.>", layout.state)],
            json!({
                "retention": "limits",
                "discard": "new",
                "max_msgs_per_subject": 1,
                "max_bytes": settings.state_bytes,
                "allow_rollup_hdrs": true,
                "deny_delete": true,
                "allow_msg_ttl": true,
                // So that who watches a record hears that its time is over.
                "subject_delete_marker_ttl": 1_000_000_000_u64,
            }),
        ),
    ]
}

/// Where the streams are to lie, if that is said at all; else they may lie anywhere, and stay where they are.
fn placement(settings: &FactorySettings) -> Option<Value> {
    let FactorySettings { placement_cluster, placement_tags, .. } = settings;
    let cluster = placement_cluster.as_ref().map(|cluster| ("cluster".to_owned(), json!(cluster)));
    let tags = (!placement_tags.is_empty()).then(|| ("tags".to_owned(), json!(placement_tags)));
    let placement: serde_json::Map<_, _> = cluster.into_iter().chain(tags).collect();
    (!placement.is_empty()).then_some(Value::Object(placement))
}
