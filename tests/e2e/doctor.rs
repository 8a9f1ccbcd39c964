//! `wf doctor`: what it finds, what it advises, and that the advice helps.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::TcpListener;
use wf_nats::testing::{DelayProxy, ServerOptions, TestServer};

use crate::support::{Ended, Stage, Web, ask, connect, echoes, look, pretender, until};

/// What `wf doctor -o json` said.
struct Said(Value);

impl Said {
    #[track_caller]
    fn of(ended: &Ended) -> Self {
        Self(serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}:\n{}", ended.stdout)))
    }

    /// The rows of one check.
    fn rows(&self, check: &str) -> Vec<&Value> {
        self.0["checks"].as_array().unwrap().iter().filter(|row| row["check"] == check).collect()
    }

    /// Fails unless there is a row of `check` whose finding and advice contain `texts`, whatever is made of it: on a
    /// busy machine disks and round trips are slow.
    #[track_caller]
    fn tells(&self, check: &str, texts: &[&str]) {
        let fits = |row: &&Value| texts.iter().all(|text| row.to_string().contains(text));
        assert!(self.rows(check).iter().any(fits), "nothing of {check} with {texts:?} in {:#}", self.0);
    }

    /// Fails unless there is a row of `check` with this verdict, whose finding and advice contain `texts`.
    #[track_caller]
    fn has(&self, check: &str, verdict: &str, texts: &[&str]) {
        let fits = |row: &&Value| row["verdict"] == verdict && texts.iter().all(|text| row.to_string().contains(text));
        assert!(self.rows(check).iter().any(fits), "no {verdict} of {check} with {texts:?} in {:#}", self.0);
    }
}

async fn doctor(stage: &Stage, line: &str, code: i32) -> Said {
    Said::of(&stage.run(&format!("doctor -o json {line}")).await.expect(code))
}

/// A server with monitoring, a factory that is set up on it, and the URL of its monitoring.
async fn monitored(stage: &Stage, options: ServerOptions) -> (TestServer, String) {
    let server = TestServer::start(options.config("server_name: n1\nhttp: \"127.0.0.1:-1\""));
    stage.run(&format!("broker setup --broker {}", server.url())).await.expect(0);
    let log = server.log();
    let address = log.lines().find_map(|line| Some(line.split_once("Starting http monitor on ")?.1.trim().to_owned()));
    (server, format!("http://{}", address.unwrap_or_else(|| panic!("no monitoring in\n{log}"))))
}

#[tokio::test]
async fn a_healthy_factory_has_no_problem_and_keeps_nothing_of_the_visit() {
    let stage = Stage::new();
    let (server, monitor) = monitored(&stage, ServerOptions::new().sync_always(true)).await;
    let broker = format!("--broker {}", server.url());
    let ended = stage.run(&format!("doctor {broker} --monitor {monitor}")).await.expect(0);
    let last = ended.stdout.lines().last().unwrap();
    assert!(last.contains(" ok (") && !last.contains("problem"), "{}", ended.stdout);
    assert!(ended.stdout.starts_with("CHECK") && ended.stderr.is_empty(), "{}\n{}", ended.stdout, ended.stderr);

    let said = doctor(&stage, &format!("{broker} --monitor {monitor}"), 0).await;
    assert_eq!((&said.0["reached"], &said.0["ended"]), (&json!(true), &json!("complete")));
    said.has("server", "ok", &["2.15"]);
    said.has("setup", "ok", &["lease of 30 s"]);
    said.has("streams", "ok", &["WF_JOBS, WF_LATER, WF_RUNS, WF_RESULTS, WF_DEAD, KV_WF_STATE"]);
    said.has("durability", "ok", &["n1", "sync_interval: always"]);
    said.has("clock", "ok", &["this machine"]);
    said.has("rate", "ok", &["bit/s up", "bit/s down"]);
    said.has("consumers", "note", &["default.high"]);
    said.has("replicas", "warning", &["one copy"]);
    let measured = &said.0["measured"];
    assert_eq!((&measured["sync"]["known"], &measured["sync"]["always"]), (&json!(true), &json!(true)), "{measured}");
    assert!(measured["rate"]["sent_bytes"].as_u64().unwrap() <= 256 << 20, "{measured}");

    // Without anybody to ask, it stores something, and says that it infers.
    let said = doctor(&stage, &format!("{broker} --only durability"), 0).await;
    assert!(said.rows("durability")[0]["found"].as_str().unwrap().contains("inferred"), "{:#}", said.0);
    until("its record to be gone", async || {
        let subjects = json!({ "subjects_filter": "$KV.WF_STATE.doctor.>" });
        let info = ask(&server, "$JS.API.STREAM.INFO.KV_WF_STATE", &subjects).await;
        info["state"]["subjects"].as_object().is_none_or(serde_json::Map::is_empty).then_some(())
    })
    .await;
    assert_eq!(look(&*connect(&server).await, "default.normal").await.pending, 0);
}

#[tokio::test]
async fn a_server_that_syncs_now_and_then_is_warned_of_and_found_by_either_monitor() {
    let stage = Stage::new();
    let accounts = "accounts { S { users [{ user: sys, password: secret }] }, A { jetstream: enabled, users [{ user: a }] } }\n\
                    system_account: S\nno_auth_user: a";
    let (server, monitor) = monitored(&stage, ServerOptions::new().config(accounts)).await;
    let system = format!("nats://sys:secret@{}", server.address());
    for monitor in [monitor.as_str(), &system] {
        let only = format!("--only durability --broker {} --monitor {monitor}", server.url());
        let said = doctor(&stage, &only, 0).await;
        said.has("durability", "warning", &["n1", "the last 2 min of accepted jobs", "sync_interval: always"]);
        assert_eq!(said.0["measured"]["sync"]["interval_ms"], json!(120_000.0), "{:#}", said.0);
        assert!(!said.0.to_string().contains("secret"), "{:#}", said.0);
        // Warnings fail only whoever asks for that.
        doctor(&stage, &format!("{only} --strict"), 1).await;
    }
    let nowhere = format!("--only durability --broker {} --monitor http://127.0.0.1:1", server.url());
    doctor(&stage, &nowhere, 0).await.has("durability", "warning", &["http://127.0.0.1:1", "could not be asked"]);
    stage.run("doctor --monitor carrier-pigeon").await.expect(2).says(&["http://HOST:8222"]);
}

#[tokio::test]
async fn a_stream_that_was_changed_by_hand_is_a_problem_and_the_advice_puts_it_right() {
    let stage = Stage::new();
    let server = TestServer::start(ServerOptions::new());
    let broker = format!("--broker {}", server.url());
    doctor(&stage, &format!("{broker} --only setup"), 0).await.has("setup", "note", &["not set up yet", "wf broker setup"]);
    stage.run(&format!("broker setup {broker}")).await.expect(0);

    let info = ask(&server, "$JS.API.STREAM.INFO.WF_JOBS", &json!({})).await;
    let mut config = info["config"].clone();
    (config["discard"], config["discard_new_per_subject"]) = ("old".into(), false.into());
    (config["duplicate_window"], config["max_msgs"]) = (100_000_000.into(), 1_000.into());
    ask(&server, "$JS.API.STREAM.UPDATE.WF_JOBS", &config).await;
    let said = doctor(&stage, &format!("{broker} --only setup,streams"), 1).await;
    said.has("setup", "ok", &[]);
    said.has("streams", "problem", &["WF_JOBS", "discard is old, not new", "accepted jobs are dropped"]);
    said.has("streams", "problem", &["duplicate_window is 100 ms, not 2 min", "stored twice"]);
    said.has("streams", "problem", &["wf broker setup --update", "take back max_msgs by hand"]);
    said.has("streams", "ok", &["WF_LATER, WF_RUNS, WF_RESULTS, WF_DEAD, KV_WF_STATE"]);

    stage.run(&format!("broker setup --update {broker}")).await.expect(0);
    let said = doctor(&stage, &format!("{broker} --only streams"), 0).await;
    said.has("streams", "warning", &["max_msgs is 1000, not unlimited"]);
    let rows: Vec<_> = said.rows("streams").iter().map(|row| row["verdict"].clone()).collect();
    assert_eq!(rows, ["ok", "warning"]);

    ask(&server, "$JS.API.STREAM.DELETE.WF_LATER", &json!({})).await;
    doctor(&stage, &format!("{broker} --only setup"), 1).await.has("setup", "problem", &["WF_LATER is gone"]);
}

#[tokio::test]
async fn what_waits_is_told_by_lane_and_consumer() {
    let stage = Stage::new();
    let server = TestServer::start(ServerOptions::new());
    let broker = format!("--broker {}", server.url());
    stage.file("jobs.ndjson", echoes(0..10, ""));
    // Makes the consumers, and leaves.
    stage.run(&format!("run jobs.ndjson --results out.ndjson {broker}")).await.expect(0);
    let mut executor = stage.start(&format!("executor {broker} --log info"));
    executor.says("running jobs").await;
    until("its consumers", async || {
        let said = doctor(&stage, &format!("{broker} --only consumers"), 0).await;
        said.rows("consumers")[0]["found"].as_str().unwrap().starts_with("6 of").then_some(())
    })
    .await;
    executor.signal("TERM");
    executor.wait().await.expect(0);
    stage.run(&format!("enqueue jobs.ndjson {broker} --factory-lane-messages 1")).await.expect(0);
    let said = doctor(&stage, &format!("{broker} --only consumers,setup"), 0).await;
    said.has("consumers", "warning", &["default.normal in WF_JOBS", "wait and nobody asks for them", "wf executor"]);
}

#[tokio::test]
async fn names_that_nobody_serves_are_told_and_executors_sweep_those_that_nobody_can() {
    let stage = Stage::with("factory.lease = \"3s\"\nbroker.request_timeout = \"2s\"\nbroker.ping_interval = \"1s\"");
    let server = TestServer::start(ServerOptions::new());
    let broker = format!("--broker {}", server.url());
    stage.run(&format!("broker setup {broker}")).await.expect(0);
    doctor(&stage, &format!("{broker} --only lanes"), 0).await.has("lanes", "ok", &[]);
    for subject in ["wf.jobs.mail:out", "wf.jobs.mail"] {
        ask(&server, subject, &json!({ "kind": "noop", "args": null })).await;
    }
    let said = doctor(&stage, &format!("{broker} --only lanes"), 0).await;
    said.has("lanes", "warning", &["wf.jobs.mail:out (1 batches", "no executor can serve"]);
    said.has("lanes", "note", &["mail.normal (1 batches", "ask again in a minute"]);
    let _executor = stage.start(&format!("executor {broker}"));
    until("the message at the impossible name is buried", async || {
        let said = doctor(&stage, &format!("{broker} --only lanes"), 0).await;
        said.rows("lanes").iter().all(|row| !row.to_string().contains("mail:out")).then_some(())
    })
    .await;
    let info = ask(&server, "$JS.API.STREAM.INFO.WF_DEAD", &json!({})).await;
    assert_eq!(info["state"]["messages"], 1, "{info:#}");
}

#[tokio::test]
async fn dead_letters_that_made_room_are_told_by_either_broker() {
    let stage = Stage::with("factory.dead_bytes = \"1MiB\"");
    let server = TestServer::start(ServerOptions::new());
    let broker = format!("--broker {}", server.url());
    stage.run(&format!("broker setup {broker}")).await.expect(0);
    doctor(&stage, &format!("{broker} --only capacity"), 0).await.has("capacity", "ok", &["WF_DEAD 0 B of 1 MiB"]);
    for _ in 0..60 {
        ask(&server, "wf.dead.default", &json!("x".repeat(27_000))).await;
    }
    let said = doctor(&stage, &format!("{broker} --only capacity"), 0).await;
    said.has("capacity", "warning", &["WF_DEAD", "letters are gone", "the oldest make room", "factory.dead_bytes"]);

    // Letters are compressed, so it takes what does not compress well.
    let mut chance = 1_u64;
    let mut letter = || {
        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        char::from(b'0' + u8::try_from(chance >> 58).unwrap())
    };
    let mut job = |n| {
        let args: String = (0..27_000).map(|_| letter()).filter(|c| *c != '\\').collect();
        format!("{{\"kind\":\"nosuch{n}\",\"args\":\"{args}\"}}\n")
    };
    let jobs: String = (0..80).map(&mut job).collect();
    stage.file("jobs.ndjson", jobs);
    stage.run("run jobs.ndjson --results out.ndjson --broker embedded:inside --batch-jobs 1").await.expect(1);
    let said = doctor(&stage, "--broker embedded:inside --only capacity", 0).await;
    said.has("capacity", "warning", &["dead letters take", "were dropped so far to make room"]);
}

#[tokio::test]
async fn a_user_with_few_rights_learns_what_it_may_and_which_rights_are_missing() {
    let stage = Stage::new();
    let users = "authorization { users [\n\
        { user: admin, password: a },\n\
        { user: ingest, password: i, permissions {\n\
          publish: [\"wf.jobs.>\", \"wf.at.>\", \"wf.cron.>\", \"$KV.WF_STATE.idem.>\", \"$KV.WF_STATE.uniq.>\",\n\
            \"$JS.API.STREAM.INFO.KV_WF_STATE\", \"$JS.API.DIRECT.GET.KV_WF_STATE.>\", \"$JS.API.DIRECT.GET.WF_RESULTS\"],\n\
          subscribe: [\"_INBOX.>\", \"wf.results.>\"] } }\n] }";
    let server = TestServer::start(ServerOptions::new().config(users));
    stage.run(&format!("broker setup --broker nats://admin:a@{}", server.address())).await.expect(0);
    let said = doctor(&stage, &format!("--broker nats://ingest:i@{}", server.address()), 0).await;
    said.has("account", "note", &["no right to publish to $JS.API.INFO"]);
    said.has("setup", "ok", &[]);
    said.has("streams", "ok", &["KV_WF_STATE as they should be"]);
    said.has("streams", "note", &["$JS.API.STREAM.INFO.{WF_JOBS,WF_LATER,WF_RUNS,WF_RESULTS,WF_DEAD}"]);
    said.has("consumers", "note", &["no right to publish to $JS.API.CONSUMER.INFO"]);
    said.has("durability", "note", &["$KV.WF_STATE.doctor.>", "--monitor"]);
    said.has("clock", "ok", &[]);
    said.tells("link", &["round trip", "pings"]);
    // Measured with the one request that every role may make.
    said.has("rate", "ok", &["bit/s up", "bit/s down"]);
    said.has("profile", "ok", &["local fits"]);
    assert!(!said.0.to_string().contains("ingest:i"), "{:#}", said.0);
    let said = doctor(&stage, &format!("--broker nats://ingest:wrong@{}", server.address()), 3).await;
    said.has("server", "problem", &["refused the login"]);
}

#[tokio::test]
async fn a_broker_that_cannot_be_used_is_named_and_what_is_known_is_told() {
    let stage = Stage::new();
    // Taken and given back, so nobody listens there.
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let soon = "--broker-connect-timeout 200ms --broker-connect-deadline 300ms";
    let said = doctor(&stage, &format!("--broker nats://me:secret@{free} {soon}"), 3).await;
    assert_eq!((&said.0["reached"], &said.0["verdict"]), (&json!(false), &json!("problem")));
    said.has("config", "ok", &["profile local"]);
    said.has("server", "problem", &[&free.to_string(), "refused", "broker.url"]);
    assert!(!said.0.to_string().contains("secret"), "{:#}", said.0);

    let server = TestServer::start(ServerOptions::new());
    let both = format!("--broker {},nats://{free} --no-rate {soon}", server.url());
    let said = doctor(&stage, &both, 0).await;
    said.has("server", "ok", &[&server.address().to_string()]);
    said.has("server", "warning", &[&free.to_string(), "refused"]);
    assert!(said.rows("rate").is_empty() && !said.rows("host").is_empty(), "{:#}", said.0);

    let (old, _pretending) =
        pretender(r#"{"server_id":"old","version":"2.9.25","proto":1,"headers":true,"max_payload":1048576}"#).await;
    let said = doctor(&stage, &format!("--broker nats://{old}"), 1).await;
    said.has("server", "problem", &["2.9.25", "2.14"]);
    assert_eq!(said.0["reached"], json!(true));

    let server = TestServer::start(ServerOptions::new().jetstream(false));
    let said = doctor(&stage, &format!("--broker {}", server.url()), 1).await;
    said.has("account", "problem", &["JetStream is off"]);
    assert!(said.rows("streams").is_empty() && said.rows("setup").is_empty(), "{:#}", said.0);
    // The link can be measured without.
    said.tells("link", &["round trip"]);
    said.has("rate", "ok", &[]);
}

#[tokio::test]
async fn a_long_link_asks_for_another_profile() {
    let stage = Stage::new();
    let (server, monitor) = monitored(&stage, ServerOptions::new()).await;
    let link = DelayProxy::start(server.address(), Duration::from_millis(50));
    let said = doctor(&stage, &format!("--broker {} --monitor {monitor}", link.url()), 0).await;
    let (rtt, fits) = (&said.0["measured"]["link"]["rtt_min_ms"], &said.0["measured"]["profile"]["fits"]);
    assert!(rtt.as_f64().unwrap() >= 100.0 && fits != "local" && fits != "lan", "{:#}", said.0);
    said.has("profile", "warning", &["local is set", "--profile w"]);
    assert!(said.0["measured"]["clock"]["uncertainty_ms"].as_f64().unwrap() >= 50.0, "{:#}", said.0);
    assert!(!said.rows("connections").is_empty() && !said.rows("windows").is_empty(), "{:#}", said.0);

    // Here everything was measured: the fields are those that the documentation has, and no others.
    let documented = documented(&["## The document"]);
    let mut fields = BTreeSet::new();
    flatten("", &said.0, &mut fields);
    assert_eq!(fields, documented);
    let checks = self::documented(&["## The checks"]);
    let listed: BTreeSet<String> =
        said.0["checks"].as_array().unwrap().iter().map(|row| row["check"].as_str().unwrap().into()).collect();
    assert!(listed.is_subset(&checks), "{listed:?} {checks:?}");
    let refused = stage.run("doctor --only weather").await.expect(2);
    assert!(checks.iter().all(|check| refused.stderr.contains(check.as_str())), "{checks:?}\n{}", refused.stderr);

    let said = doctor(&stage, &format!("--only profile --profile auto --broker {}", link.url()), 0).await;
    assert_eq!(said.0["measured"]["profile"]["in_force"], json!("wan"), "{:#}", said.0);
    assert!(said.rows("link").is_empty() && said.0["measured"]["rate"].is_null(), "only what was asked for: {:#}", said.0);
}

/// The names in the first column of the tables below `headings` of docs/networks.md.
fn documented(headings: &[&str]) -> BTreeSet<String> {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/networks.md")).unwrap();
    let below = |heading: &&str| {
        let (_, section) = text.split_once(&format!("#{heading}\n")).unwrap_or_else(|| panic!("no {heading}"));
        let section = section.split("\n#").next().unwrap().to_owned();
        section.lines().filter_map(|line| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned())).collect::<Vec<_>>()
    };
    headings.iter().flat_map(below).collect()
}

/// The paths of the fields of `value`, rows being one: `checks[].verdict`.
fn flatten(path: &str, value: &Value, fields: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => object.iter().for_each(|(key, value)| {
            flatten(&if path.is_empty() { key.clone() } else { format!("{path}.{key}") }, value, fields);
        }),
        Value::Array(rows) => rows.iter().for_each(|row| flatten(&format!("{path}[]"), row, fields)),
        _ => drop(fields.insert(path.to_owned())),
    }
}

#[tokio::test]
async fn an_examination_that_is_cut_short_tells_what_it_has() {
    let stage = Stage::new();
    let server = TestServer::start(ServerOptions::new());
    let link = DelayProxy::start(server.address(), Duration::from_millis(50));
    let broker = format!("--broker {}", link.url());
    let said = doctor(&stage, &format!("{broker} --timeout 2s"), 1).await;
    assert_eq!(said.0["ended"], json!("timed_out"));
    said.has("config", "ok", &[]);
    assert!(said.rows("windows").is_empty(), "{:#}", said.0);

    for (form, text) in [("table", "interrupted, the rest was not checked"), ("json", "\"interrupted\"")] {
        let before = link.connections();
        let mut process = stage.start(&format!("doctor {broker} -o {form}"));
        until("it to connect", async || (link.connections() > before).then_some(())).await;
        process.signal("INT");
        let ended = process.wait().await.expect(1);
        assert!(ended.stdout.contains(text) && ended.stdout.contains("config"), "{}", ended.stdout);
    }
}

#[tokio::test]
async fn a_broker_inside_the_process_is_opened_or_its_owner_named() {
    let stage = Stage::new();
    let said = doctor(&stage, "", 0).await;
    said.has("store", "note", &["no broker in .wf/broker yet"]);
    said.tells("disk", &["free"]);
    assert!(!stage.path(".wf").exists(), "it makes nothing");

    stage.file("jobs.ndjson", echoes(0..10, ""));
    stage.run("enqueue jobs.ndjson").await.expect(0);
    let said = doctor(&stage, "", 0).await;
    said.has("store", "ok", &["1 batches wait"]);
    said.tells("durability", &["synced before it is accepted"]);
    said.has("profile", "ok", &["local fits"]);
    said.tells("link", &["round trip", "pings"]);
    let names = std::fs::read_dir(stage.path(".wf/broker")).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(names.into_iter().all(|name| !name.to_string_lossy().contains("doctor")));

    let mut serve = stage.start("serve --listen 127.0.0.1:0");
    Web::of(&mut serve).await;
    let said = doctor(&stage, "", 0).await;
    said.has("store", "note", &["in use by", &serve.id().to_string()]);
    said.tells("disk", &["free"]);
    serve.signal("TERM");
    serve.wait().await.expect(0);

    stage.file("file", "");
    doctor(&stage, "--broker embedded:file", 3).await.has("store", "problem", &["not a folder"]);
    doctor(&stage, "--broker memory://", 0).await.has("store", "warning", &["keeps nothing"]);
}

#[tokio::test]
async fn a_configuration_that_cannot_be_is_a_finding_too() {
    let stage = Stage::new();
    let said = doctor(&stage, "--batch-jobs 0", 2).await;
    said.has("config", "problem", &["`batch.jobs` = `0`", "1 to 65536"]);
    assert_eq!((&said.0["broker"], &said.0["reached"]), (&Value::Null, &Value::Null));
    let ended = stage.run("doctor --batch-jobs 0").await.expect(2);
    assert!(ended.stdout.contains("`batch.jobs` = `0`"), "{}", ended.stdout);
}
