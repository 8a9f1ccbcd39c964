//! docs/configuration.md is what the code says.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::time::Duration;

use wf_schema::config::{BrokerUrl, EXAMPLE, Loader, Profile, knobs, reference};

#[test]
fn the_reference_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    if std::env::var_os("WF_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, reference()).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == reference(),
        "docs/configuration.md is not what the code says: run `WF_BLESS=1 cargo test -p wf-schema --test config_reference`"
    );
    for knob in knobs() {
        assert!(written.contains(&format!("`{}`", knob.env())), "{} is missing", knob.key);
    }
}

#[test]
fn the_example_loads() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("wf.toml"), EXAMPLE).unwrap();
    let config = Loader::new().directory(directory.path()).load().unwrap().config;
    assert_eq!(config.profile(), Profile::Wan);
    assert!(matches!(&config.broker().url, BrokerUrl::Nats(servers) if servers.len() == 1));
    assert_eq!(config.executor().queues.len(), 2);
    assert_eq!(config.executor().drain_deadline, Duration::from_secs(120));
}
