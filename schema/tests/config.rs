//! Loading a configuration: what wins, and what is said when it cannot be.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::PathBuf;
use std::time::Duration;

use wf_schema::Limits;
use wf_schema::config::{BrokerUrl, ConfigError, Loader, Origin, Profile, ProfileSetting, Size, knobs};

/// A directory with `text` as its wf.toml.
fn directory(text: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("wf.toml"), text).unwrap();
    directory
}

/// What loading `text` as a file is refused with; the file's path, which differs each time, is left out.
fn refusal(text: &str) -> String {
    let directory = directory(text);
    let error = Loader::new().directory(directory.path()).load().unwrap_err().to_string();
    error.replace(directory.path().to_str().unwrap(), "").replace("/wf.toml", "wf.toml")
}

fn env_refusal(name: &str, value: &str) -> String {
    Loader::new().env([(name, value)]).load().unwrap_err().to_string()
}

fn of(profile: &str) -> wf_schema::config::Config {
    Loader::new().flags([("profile", profile)]).load().unwrap().config
}

#[test]
fn profiles_have_the_values_of_the_design() {
    let (secs, kib, mib) = (Duration::from_secs, |n: u64| Size::new(n << 10), |n: u64| Size::new(n << 20));
    let columns = [
        ("local", (5, 10, 1, 32, 8, 256), (8, 15, 5, 2, 1, 30)),
        ("lan", (10, 10, 2, 64, 16, 512), (16, 15, 5, 2, 1, 30)),
        ("wan", (15, 20, 5, 64, 16, 1_000), (32, 15, 5, 3, 2, 30)),
        ("wireless", (20, 30, 20, 32, 4, 256), (16, 10, 4, 5, 1, 60)),
    ];
    for (name, first, second) in columns {
        let (connect, request, linger, wire, window, messages) = first;
        let (prefetch, expires, heartbeat, ping, connections, lease) = second;
        let c = of(name);
        assert_eq!(c.profile().as_str(), name);
        assert_eq!((c.broker().connect_timeout, c.broker().request_timeout), (secs(connect), secs(request)), "{name}");
        assert_eq!((c.batch().linger, c.batch().wire_bytes), (Duration::from_millis(linger), kib(wire)), "{name}");
        assert_eq!((c.batch().jobs, c.batch().raw_bytes, c.batch().run_time), (4_000, mib(8), secs(1)), "{name}");
        assert_eq!((c.publish().window_bytes, c.publish().window_messages), (mib(window), messages), "{name}");
        assert_eq!((c.prefetch().bytes, c.prefetch().work), (mib(prefetch), secs(2)), "{name}");
        assert_eq!((c.pull().expires, c.pull().heartbeat), (secs(expires), secs(heartbeat)), "{name}");
        assert_eq!((c.broker().ping_interval, c.broker().connections), (secs(ping), connections), "{name}");
        assert_eq!((c.factory().lease, c.executor().concurrency), (secs(lease), 50), "{name}");
    }
}

#[test]
fn no_source_at_all_is_a_whole_configuration() {
    let loaded = Loader::new().load().unwrap();
    assert_eq!(loaded.config.profile_setting(), ProfileSetting::Fixed(Profile::Local));
    assert_eq!(loaded.config.broker().url, BrokerUrl::Embedded(PathBuf::from(".wf/broker")));
    assert_eq!(loaded.config.ingest().listen.to_string(), "127.0.0.1:8080");
    assert_eq!(loaded.rows().len(), knobs().count());
    assert_eq!(loaded.diff().count(), 0);
    assert_eq!(loaded.warnings, []);
}

#[test]
fn each_source_wins_over_the_weaker_ones() {
    let directory = directory(
        "profile = \"wan\"\n[batch]\nlinger = \"6ms\"\njobs = 100\nwire_bytes = 40960\n[executor]\nqueues = [\"a\", \"b\"]\n",
    );
    let loaded = Loader::new()
        .directory(directory.path())
        .env([("WF_BATCH_LINGER", "7 ms"), ("WF_BATCH_JOBS", "200"), ("PATH", "/bin"), ("WF_BROKER_CREDS", "")])
        .flags([("batch.linger", "8 ms")])
        .load()
        .unwrap();
    let file = Origin::File(directory.path().join("wf.toml"));
    let row = |key: &str| {
        let row = loaded.rows().iter().find(|row| row.key == key).unwrap();
        (row.value.as_str(), row.origin.clone())
    };
    assert_eq!(row("profile"), ("wan", file.clone()));
    assert_eq!(row("batch.linger"), ("8 ms", Origin::Flag));
    assert_eq!(row("batch.jobs"), ("200", Origin::Environment("WF_BATCH_JOBS".to_owned())));
    assert_eq!(row("batch.wire_bytes"), ("40 KiB", file.clone()));
    assert_eq!(row("executor.queues"), ("a,b", file));
    assert_eq!(row("publish.window_messages"), ("1000", Origin::Profile(Profile::Wan)));
    assert_eq!(row("batch.run_time"), ("1 s", Origin::Default));
    assert_eq!(row("broker.creds"), ("unset", Origin::Default));
    let changed: Vec<_> = loaded.diff().map(|row| row.key).collect();
    assert_eq!(changed, ["profile", "batch.linger", "batch.wire_bytes", "batch.jobs", "executor.queues"]);
}

#[test]
fn the_environment_alone_picks_a_profile() {
    let loaded = Loader::new().env([("WF_PROFILE", "wireless")]).load().unwrap();
    assert_eq!(loaded.config, of("wireless"));
}

#[test]
fn a_value_equal_to_the_profiles_is_no_difference_and_keeps_its_origin() {
    let loaded = Loader::new().env([("WF_BATCH_LINGER", "1000us")]).load().unwrap();
    assert_eq!(loaded.diff().count(), 0);
    let row = loaded.rows().iter().find(|row| row.key == "batch.linger").unwrap();
    assert_eq!(row.origin.to_string(), "environment WF_BATCH_LINGER");
    let json = serde_json::to_value(row).unwrap();
    assert_eq!((&json["value"], &json["changed"]), (&"1 ms".into(), &false.into()));
    assert_eq!(json["origin"], "environment WF_BATCH_LINGER");
}

#[test]
fn auto_waits_for_a_measurement() {
    let auto = Loader::new().env([("WF_PROFILE", "auto")]);
    let profile_row = |loader: &Loader| loader.load().unwrap().rows()[0].value.clone();
    assert_eq!(auto.load().unwrap().config.profile_setting(), ProfileSetting::Auto);
    assert_eq!(profile_row(&auto), "auto (local until measured)");
    assert_eq!(profile_row(&auto.clone().flags([("broker.url", "nats://far:4222")])), "auto (wan until measured)");
    for (micros, profile) in
        [(200, "local"), (2_999, "local"), (3_000, "lan"), (12_000, "lan"), (30_000, "wan"), (900_000, "wan")]
    {
        let loaded = auto.clone().measured(Duration::from_micros(micros)).load().unwrap();
        assert_eq!(loaded.config.profile().as_str(), profile, "{micros} us");
    }
    assert_eq!(profile_row(&auto.measured(Duration::from_millis(101))), "auto (wan: round trip 101 ms)");
}

#[test]
fn under_auto_a_connection_suits_every_link() {
    let url = ("broker.url", "nats://somewhere:4222");
    let wan = Loader::new().flags([("profile", "wan"), url]).load().unwrap().config;
    for rtt in [1, 10, 100, 1_000].map(Duration::from_millis) {
        let auto = Loader::new().flags([("profile", "auto"), url]).measured(rtt).load().unwrap();
        assert_eq!((auto.config.broker(), auto.config.pull()), (wan.broker(), wan.pull()));
        let near = auto.rows().iter().find(|row| row.key == "batch.linger").unwrap();
        assert_eq!(near.origin.to_string(), format!("profile {}", auto.config.profile()));
    }
}

#[test]
fn what_auto_may_pick_never_touches_what_is_shared() {
    let factory = of("local").factory().clone();
    for rtt in [1, 10, 100, 1_000].map(Duration::from_millis) {
        let loaded = Loader::new().flags([("profile", "auto")]).measured(rtt).load().unwrap();
        assert_eq!(*loaded.config.factory(), factory);
    }
}

#[test]
fn the_file_is_the_named_one_or_wf_config_or_wf_toml() {
    let named = directory("[batch]\njobs = 1\n");
    let by_env = directory("[batch]\njobs = 2\n");
    let beside = directory("[batch]\njobs = 3\n");
    let path = |directory: &tempfile::TempDir| directory.path().join("wf.toml");
    let jobs = |loader: &Loader| loader.load().unwrap().config.batch().jobs;

    let loader = Loader::new().directory(beside.path());
    assert_eq!(jobs(&loader), 3);
    let loader = loader.env([("WF_CONFIG", path(&by_env).to_str().unwrap())]);
    assert_eq!(jobs(&loader), 2);
    assert_eq!(jobs(&loader.file(Some(path(&named)))), 1);

    let empty = tempfile::tempdir().unwrap();
    assert_eq!(jobs(&Loader::new().directory(empty.path())), 4_000);
    let missing = Loader::new().env([("WF_CONFIG", "no/such/file.toml")]).load().unwrap_err();
    assert_eq!(missing.to_string(), "configuration file no/such/file.toml (from environment WF_CONFIG) cannot be read");
    assert!(std::error::Error::source(&missing).is_some());
}

#[test]
fn a_wrong_value_is_told_with_its_key_limit_and_origin() {
    assert_eq!(
        env_refusal("WF_BATCH_WIRE_BYTES", "2MiB"),
        "`batch.wire_bytes` = `2 MiB` (environment WF_BATCH_WIRE_BYTES) is out of range: allowed is 1 KiB to 512 KiB"
    );
    assert_eq!(
        refusal("[batch]\nlinger = 5\n"),
        "`batch.linger` = `5` (file wf.toml) is not valid: expected a time with its unit, e.g. `5 s` or `1500 ms`"
    );
    assert_eq!(
        refusal("[executor]\nconcurrency = -3\n"),
        "`executor.concurrency` = `-3` (file wf.toml) is not valid: expected a whole number, e.g. `50`"
    );
    assert_eq!(
        env_refusal("WF_PROFILE", "satellite"),
        "`profile` = `satellite` (environment WF_PROFILE) is not valid: expected one of local, lan, wan, wireless, auto"
    );
    assert_eq!(
        refusal("[batch]\nlinger = [\"5 ms\"]\n"),
        "`batch.linger` = `[...]` (file wf.toml) is not valid: expected a time with its unit, e.g. `5 s` or `1500 ms`"
    );
    assert_eq!(
        env_refusal("WF_EXECUTOR_QUEUES", "mail,mail"),
        "`executor.queues` = `mail,mail` (environment WF_EXECUTOR_QUEUES) is not valid: expected queue names, each 1 to 64 of \
         A-Z a-z 0-9 _ - and named once, e.g. `default` or `mail,reports`"
    );
    let flags = Loader::new().flags([("factory.replicas", "2")]).load().unwrap_err();
    assert_eq!(flags.to_string(), "`factory.replicas` = `2` (command line) is not valid: expected 1, 3 or 5");
    assert!(!flags.is_retryable());
}

#[test]
fn values_that_cannot_be_together_are_told_with_both_origins_and_the_reason() {
    assert_eq!(
        env_refusal("WF_PULL_HEARTBEAT", "8 s"),
        "`pull.heartbeat` = `8 s` (environment WF_PULL_HEARTBEAT) must be less than half of `pull.expires` = `15 s` \
         (profile local): a missed heartbeat must be noticed while the request is still open"
    );
    let conflicts = [
        ("broker.connect_deadline", "1 s", "`broker.connect_timeout`"),
        ("broker.ping_interval", "11 s", "`broker.ping_interval`"),
        ("broker.request_timeout", "30 s", "`broker.request_timeout`"),
        ("batch.raw_bytes", "16 KiB", "`batch.wire_bytes`"),
        ("batch.wire_bytes", "65 KiB", "`publish.window_bytes`"),
        ("prefetch.bytes", "64 KiB", "`prefetch.bytes`"),
        ("pull.expires", "10 s", "`pull.heartbeat`"),
        ("ingest.body_limit", "2 KiB", "`ingest.args_limit`"),
        ("factory.dedup_window", "59 s", "`factory.dedup_window`"),
        ("factory.lease", "61 s", "`factory.dedup_window`"),
        ("factory.results_age", "1 min", "`factory.results_age`"),
        ("factory.dead_age", "1 min", "`factory.dead_age`"),
        ("factory.jobs_bytes", "1 GiB", "`factory.lane_bytes`"),
    ];
    for (key, value, told) in conflicts {
        let other = if key == "batch.wire_bytes" { ("publish.window_bytes", "64 KiB") } else { ("batch.linger", "1 ms") };
        let other = if key == "prefetch.bytes" { ("batch.wire_bytes", "33 KiB") } else { other };
        let error = Loader::new().flags([(key, value), other]).load().expect_err(key).to_string();
        assert!(error.contains(told) && error.contains(" must be "), "{key}: {error}");
    }
}

#[test]
fn unknown_keys_are_refused_with_the_nearest_known_one() {
    assert_eq!(
        refusal("[batch]\nwire_byte = 1\n"),
        "unknown key `batch.wire_byte` (file wf.toml): did you mean `batch.wire_bytes`?"
    );
    assert_eq!(refusal("lingr = 1\n"), "unknown key `lingr` (file wf.toml)");
    assert_eq!(refusal("linger = 1\n"), "unknown key `linger` (file wf.toml): did you mean `batch.linger`?");
    assert_eq!(refusal("[publish]\nlinger = 1\n"), "unknown key `publish.linger` (file wf.toml): did you mean `batch.linger`?");
    assert_eq!(refusal("[colours]\nx.y.z = 1\n"), "unknown key `colours.x` (file wf.toml)");
    assert_eq!(
        refusal("batch = 3\n"),
        "`batch` (file wf.toml) is a section, not a value: write `[batch]` and its settings below it"
    );
    let flag = Loader::new().flags([("brokr.url", "memory://")]).load().unwrap_err();
    assert_eq!(flag.to_string(), "unknown key `brokr.url` (command line): did you mean `broker.url`?");
}

#[test]
fn unknown_variables_are_warnings() {
    let known = [("WF_CONFIG", ""), ("WF_NATS_SERVER", "x"), ("WF_BLESS", "1"), ("HOME", "/")];
    let loaded = Loader::new().env(known).env([("WF_BATCH_LINGR", "1"), ("WF_SOMETHING_ELSE", "")]).load().unwrap();
    let warnings: Vec<_> = loaded.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "environment variable `WF_BATCH_LINGR` sets nothing: did you mean `WF_BATCH_LINGER`?",
            "environment variable `WF_SOMETHING_ELSE` sets nothing"
        ]
    );
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let error = Loader::new()
        .env([("WF_PROFILE", "moon"), ("WF_BATCH_JOBS", "0")])
        .flags([("log.format", "xml"), ("nonsense", "1")])
        .load()
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "4 settings are wrong:\
         \n  unknown key `nonsense` (command line)\
         \n  `profile` = `moon` (environment WF_PROFILE) is not valid: expected one of local, lan, wan, wireless, auto\
         \n  `batch.jobs` = `0` (environment WF_BATCH_JOBS) is out of range: allowed is 1 to 65536\
         \n  `log.format` = `xml` (command line) is not valid: expected one of text, json"
    );
}

#[test]
fn broken_files_say_where() {
    let directory = directory("[batch]\nlinger = \n");
    let error = Loader::new().directory(directory.path()).load().unwrap_err();
    assert!(matches!(error, ConfigError::Syntax { .. }));
    assert!(error.to_string().ends_with("wf.toml is not valid TOML"));
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("line 2"));

    for text in ["#".repeat((1 << 20) + 1), "a.".repeat(300_000) + "a = 1", "a = ".to_owned() + &"[".repeat(500_000)] {
        let directory = self::directory(&text);
        Loader::new().directory(directory.path()).load().unwrap_err();
    }
    std::fs::write(directory.path().join("wf.toml"), b"\xff\xfe").unwrap();
    let error = Loader::new().directory(directory.path()).load().unwrap_err();
    assert!(error.to_string().ends_with("(found in the working directory) cannot be read"), "{error}");
}

#[test]
fn broker_urls_are_read_and_never_show_their_secrets() {
    let url = |text: &str| Loader::new().flags([("broker.url", text)]).load().map(|loaded| loaded.config.broker().url.clone());
    assert_eq!(url("memory://").unwrap(), BrokerUrl::Memory);
    assert_eq!(url("embedded:/var/lib/wf").unwrap(), BrokerUrl::Embedded("/var/lib/wf".into()));
    let cluster = "nats://a:4222, tls://b.example.org,nats://[::1]:4222";
    let BrokerUrl::Nats(servers) = url(cluster).unwrap() else { panic!("not nats") };
    assert_eq!(servers, ["nats://a:4222", "tls://b.example.org", "nats://[::1]:4222"]);
    for wrong in
        ["", "localhost:4222", "embedded:", "nats://", "nats://:4222", "nats://a:0", "nats://a:70000", "nats://a b", "redis://a"]
    {
        let error = url(wrong).expect_err(wrong).to_string();
        assert!(error.contains("expected `embedded:PATH`, `memory://`, `nats://HOST:PORT`"), "{error}");
    }

    let loaded = Loader::new().flags([("broker.url", "nats://ana:s,cret@a:4222,nats://s3cret@b")]);
    let error = loaded.load().unwrap_err().to_string();
    assert!(!error.contains("cret"), "{error}");
    let loaded = Loader::new().flags([("broker.url", "nats://ana:secret@a:4222,nats://secret@b")]).load().unwrap();
    assert!(!format!("{:?} {:?}", loaded, loaded.rows()).replace("s3cret", "").contains("ana:secret"));
    assert_eq!(loaded.config.broker().url.to_string(), "nats://***@a:4222,nats://***@b");
    let row = loaded.rows().iter().find(|row| row.key == "broker.url").unwrap();
    assert_eq!(row.value, "nats://***@a:4222,nats://***@b");
}

#[test]
fn unset_takes_back_what_a_weaker_source_set() {
    let directory = directory("[broker]\ncreds = \"/etc/wf.creds\"\n");
    let loader = Loader::new().directory(directory.path());
    assert_eq!(loader.load().unwrap().config.broker().creds, Some("/etc/wf.creds".into()));
    assert_eq!(loader.env([("WF_BROKER_CREDS", "unset")]).load().unwrap().config.broker().creds, None);
}

#[test]
fn what_ingest_may_make_every_reader_takes() {
    let limits = Limits::default();
    let most = |key: &str| knobs().find(|knob| knob.key == key).unwrap().limits.unwrap().1;
    assert!(most("batch.raw_bytes").parse::<Size>().unwrap().as_usize() <= limits.raw_bytes);
    assert!(most("batch.jobs").parse::<usize>().unwrap() <= limits.jobs);
    assert!(most("ingest.args_limit").parse::<Size>().unwrap().as_usize() <= limits.args_bytes);
}
