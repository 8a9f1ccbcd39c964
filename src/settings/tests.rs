//! Every knob of the table reaches a part that does something with it.

use wf_schema::config::{Loader, knobs};

use super::*;

/// Those that the program itself reads, where it picks a broker, listens, says which queues it serves and starts its log.
const ELSEWHERE: [&str; 6] = ["profile", "broker.url", "ingest.listen", "executor.queues", "log.level", "log.format"];

/// What there is to say for settings without limits.
const OTHERWISE: [(&str, &str); 7] = [
    ("broker.prefix", "other"),
    ("broker.creds", "some.creds"),
    ("broker.root_certificates", "some.pem"),
    ("broker.inbox_prefix", "_OTHER"),
    ("ingest.spool", "some/spool"),
    ("executor.name", "other"),
    ("factory.replicas", "3"),
];

/// What all parts are told.
fn told(config: &Config) -> String {
    format!(
        "{:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {}",
        nats(config, &["nats://far:4222".to_owned()]).unwrap(),
        factory(config),
        embedded(config).unwrap(),
        executor(config, []).unwrap(),
        producer(config),
        http(config),
        spool(config),
        window(config),
        limits(config),
        raw_bytes_of_a_batch(config)
    )
}

#[test]
fn every_knob_reaches_a_part() {
    // Named, or it would have another name each time; without a spool nobody asks how large it may be.
    let loader = || Loader::new().flags([("executor.name", "press"), ("ingest.spool", "spool")]);
    let usual = told(&loader().load().unwrap().config);
    for knob in knobs().filter(|knob| !ELSEWHERE.contains(&knob.key)) {
        let limits = knob.limits.into_iter().flat_map(|(least, most)| [least, most]);
        let others = OTHERWISE.iter().filter(|(key, _)| *key == knob.key).map(|(_, value)| *value);
        // The least or the most may not go together with the rest; something between them does.
        let between = ["2 s", "3 s", "9 s", "45 s", "2 min", "1 MiB", "128 KiB", "16 KiB", "3 GiB", "7", "2000"];
        let loaded = limits.chain(others).chain(between).filter_map(|value| loader().flags([(knob.key, value)]).load().ok());
        let reached =
            loaded.filter(|loaded| loaded.diff().any(|row| row.key == knob.key)).any(|loaded| told(&loaded.config) != usual);
        assert!(reached, "nobody is told of `{}`", knob.key);
    }
}
