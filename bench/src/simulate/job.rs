//! A job as people write it.

use serde_json::{Value, json};

use super::history::Spec;

/// The same as it is published to its lane.
pub(crate) fn plain(spec: &Spec, tag: u32) -> Value {
    let mut job = json(spec, tag);
    if let Some(job) = job.as_object_mut() {
        job.remove("queue");
        job.remove("priority");
    }
    job
}

/// The job `spec` with `tag`, as JSON.
pub(crate) fn json(spec: &Spec, tag: u32) -> Value {
    // Text that lz4 finds nothing in, the same whenever it is made.
    let mut rng = fastrand::Rng::with_seed(tag.into());
    let pad: String = (0..spec.size).map(|_| rng.alphanumeric()).collect();
    let mut job = json!({
        "kind": "work",
        "args": {"tag": tag, "ms": spec.ms, "fails": spec.fails, "permanent": spec.permanent, "pad": pad},
        "queue": spec.place.queue(),
        "priority": spec.place.priority(),
        "max_attempts": spec.attempts,
        "backoff": {"min": "500ms", "max": "4s"},
        "store_result": spec.store,
    });
    if spec.delay_s > 0 {
        job["delay"] = format!("{}s", spec.delay_s).into();
    }
    job
}
