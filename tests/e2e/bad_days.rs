//! Bad input and bad days.

use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use wf_broker::{Message, Publish};
use wf_nats::testing::{ServerOptions, TestServer};
use wf_schema::{BatchBuilder, BatchId, Format, Header, Job, Limits, Remains};

use crate::executors::SHORT_LEASE;
use crate::support::{
    Heard, JSON, NDJSON, Outcomes, Stage, Web, connect, dead_letters, echoes, lane, look, outcomes_of, pretender, until,
};

#[tokio::test]
async fn every_line_that_is_no_job_is_named_and_holds_up_no_other() {
    let stage = Stage::new();
    let large = format!("{{\"kind\":\"echo\",\"args\":\"{}\"}}", "x".repeat(300));
    let huge = "x".repeat(200_000);
    let lines = [
        (r#"{"kind":"echo","args":1}"#, ""),
        (r#"{"kind":"no_such_kind","args":1}"#, "no_such_kind"),
        (r#"{"kind":"echo","args":1,"colour":"red"}"#, "colour"),
        (r#"{"kind":"echo"}"#, "args"),
        (r#"{"args":1}"#, "kind"),
        (r#"{"kind":7,"args":1}"#, "line 6"),
        (r#"{"kind":"echo","args":1,"priority":"urgent"}"#, "urgent"),
        (r#"{"kind":"echo","args":1,"timeout":30}"#, "unit"),
        (r#"{"kind":"echo","args":1,"queue":"a b"}"#, "a b"),
        (r#"{"kind":"echo","args":1"#, "line 10"),
        ("nonsense", "line 11"),
        ("[1,2]", "line 12"),
        (large.as_str(), "256"),
        (huge.as_str(), "line 14"),
        (r#"{"kind":"math_add","args":{"a":1,"b":"two"}}"#, "two"),
        (r#"{"kind":"math_add","args":{"a":1}}"#, "b"),
        ("\u{0}\u{1}", "line 17"),
        (r#"{"kind":"echo","args":2}"#, ""),
    ];
    stage.file("jobs.ndjson", lines.iter().map(|(line, _)| format!("{line}\n")).collect::<String>());
    let ended = stage.run("run jobs.ndjson --broker memory:// --ingest-args-limit 256B -o json").await.expect(1);
    let outcomes = Outcomes::read(&ended.stdout);
    assert_eq!(outcomes.len(), lines.len(), "one outcome a line");
    assert_eq!(ended.summary()["completed"], 2);
    assert_eq!(ended.summary()["discarded"], lines.len() - 2);
    for (line, says) in lines.iter().filter(|(_, says)| !says.is_empty()) {
        let line = &line[..line.len().min(60)];
        assert!(
            outcomes.told.keys().any(|told| told.contains(" discarded ") && told.contains(says)),
            "{line}: {says} is not in {:#?}",
            outcomes.told
        );
    }
}

#[tokio::test]
async fn bytes_that_are_no_text_are_no_job() {
    let stage = Stage::new();
    stage.file(
        "jobs.ndjson",
        [b"\xff\xfe\x00{\n".as_slice(), b"{\"kind\":\"echo\",\"args\":\"\xff\"}\n", b"{\"kind\":\"noop\",\"args\":1}\n"].concat(),
    );
    let ended = stage.run("run jobs.ndjson --broker memory:// -o json").await.expect(1);
    assert_eq!(Outcomes::read(&ended.stdout).len(), 3);
    assert_eq!(ended.summary()["completed"], 1);
}

#[tokio::test]
async fn enqueueing_names_the_lines_it_leaves_out() {
    let server = TestServer::start(ServerOptions::new());
    let stage = Stage::new();
    stage.file("jobs.ndjson", format!("{}nonsense\n{{\"kind\":\"echo\"}}\n{}", echoes(0..2, ""), echoes(2..4, "")));
    let ended = stage.run(&format!("enqueue jobs.ndjson -o json --broker {}", server.url())).await.expect(1);
    assert_eq!((&ended.summary()["enqueued"], &ended.summary()["rejected"]), (&4.into(), &2.into()));
    ended.says(&["line 3: ", "line 4: "]);
}

#[tokio::test]
async fn no_broker_at_the_start_is_exit_code_three() {
    let stage = Stage::with("[broker]\nconnect_timeout = \"200ms\"\nconnect_deadline = \"700ms\"\n");
    stage.file("jobs.ndjson", echoes(0..1, ""));
    // A port that was free a moment ago, and the one that is never served.
    for command in ["run jobs.ndjson", "serve", "ingest", "executor", "enqueue jobs.ndjson", "broker setup"] {
        let ended = stage.run(&format!("{command} --broker nats://127.0.0.1:1")).await.expect(3);
        ended.says(&["127.0.0.1:1", "refused"]);
    }
}

#[tokio::test]
async fn a_server_that_is_too_old_is_exit_code_three() {
    let info = r#"{"server_id":"X","server_name":"x","version":"2.10.29","go":"go1","host":"127.0.0.1","port":4222,"headers":true,"max_payload":1048576,"proto":1,"jetstream":true}"#;
    let (address, _pretending) = pretender(info).await;
    let stage = Stage::new();
    stage.file("jobs.ndjson", echoes(0..1, ""));
    for command in ["run jobs.ndjson", "executor", "broker setup"] {
        let ended = stage.run(&format!("{command} --broker nats://{address}")).await.expect(3);
        ended.says(&["2.10.29", "2.14", &address.to_string()]);
    }
}

#[tokio::test]
async fn a_server_without_jetstream_is_exit_code_three() {
    let server = TestServer::start(ServerOptions::new().jetstream(false));
    let stage = Stage::new();
    stage.file("jobs.ndjson", echoes(0..1, ""));
    let ended = stage.run(&format!("run jobs.ndjson --broker {}", server.url())).await.expect(3);
    ended.says(&["JetStream", &server.address().to_string()]);
}

#[tokio::test]
async fn an_executor_without_a_factory_says_what_to_do() {
    let server = TestServer::start(ServerOptions::new());
    let stage = Stage::with("[broker]\nconnect_timeout = \"500ms\"\nconnect_deadline = \"1s\"\n");
    let ended = stage.run(&format!("executor --broker {}", server.url())).await.expect(3);
    ended.says(&["not set up", "wf broker setup"]);
}

#[tokio::test]
async fn an_embedded_broker_that_cannot_be_opened_is_said() {
    let stage = Stage::new();
    stage.file("jobs.ndjson", echoes(0..1, ""));
    // A path that is something else is a mistake in the configuration; a store that is in use may be free later.
    stage.run("run jobs.ndjson --broker embedded:jobs.ndjson").await.expect(2).says(&["jobs.ndjson", "not a folder"]);
    let mut server = stage.start("serve --listen 127.0.0.1:0");
    Web::of(&mut server).await;
    let ended = stage.run("run jobs.ndjson").await.expect(3);
    ended.says(&["in use", &server.id().to_string()]);
}

/// A batch of one job, as it goes over the wire.
fn batch() -> Vec<u8> {
    let mut builder = BatchBuilder::new(Header::new(BatchId::new(), Format::Json));
    builder.push(&Job::from_json(br#"{"kind":"echo","args":"whole"}"#, &Limits::default()).unwrap()).unwrap();
    builder.encode().to_vec()
}

#[tokio::test]
async fn messages_that_are_no_batches_are_dead_letters() {
    let server = TestServer::start(ServerOptions::new());
    let stage = Stage::new();
    let broker = format!("--broker {}", server.url());
    stage.run(&format!("broker setup {broker}")).await.expect(0);
    let eye = connect(&server).await;
    let heard = Heard::listen(eye.clone()).await;

    let whole = batch();
    let mut flipped = whole.clone();
    let last = flipped.len() - 1;
    flipped[last] ^= 0x40;
    let mut from_the_future = whole.clone();
    from_the_future[2] = 200;
    let mut bomb = whole.clone();
    bomb[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    let bad: [Vec<u8>; 9] = [
        b"hello".to_vec(),
        Vec::new(),
        b"WF".to_vec(),
        whole[..whole.len() - 3].to_vec(),
        flipped,
        from_the_future,
        bomb,
        br#"{"kind":"echo","#.to_vec(),
        vec![0xff; 1000],
    ];
    for (n, bytes) in bad.iter().enumerate() {
        let message = Message { lane: lane("default.normal"), id: format!("bad-{n}").into(), bytes: Bytes::from(bytes.clone()) };
        eye.publish(message).await.unwrap();
    }
    let good = json!([{"kind":"echo","args":"good","store_result":true}, {"kind":"echo"}, 7]);
    let good = Message { lane: lane("default.normal"), id: "good".into(), bytes: good.to_string().into() };
    eye.publish(good).await.unwrap();

    let mut executor = stage.start(&format!("executor {broker}"));
    // Those that are no jobs beside one that is are dead letters too.
    let letters = until("eleven dead letters", async || {
        assert!(executor.is_running());
        let letters = dead_letters(&*eye).await;
        (letters.len() >= bad.len() + 2).then_some(letters)
    })
    .await;
    for bytes in &bad {
        let letter = letters.iter().find(|letter| matches!(&letter.remains, Remains::Raw { bytes: kept, .. } if kept == bytes));
        let letter = letter.unwrap_or_else(|| panic!("nothing is kept of {:?}", String::from_utf8_lossy(bytes)));
        let Remains::Raw { failure, .. } = &letter.remains else { unreachable!() };
        assert!(!failure.message.is_empty() && !failure.kind.is_empty(), "{failure:?}");
        assert_eq!(letter.lane, lane("default.normal"));
    }
    let told = until("the good one", async || {
        let told: Vec<String> = outcomes_of(&*eye, &heard.batches()).await.into_values().collect();
        told.iter().any(|told| told.contains("good")).then_some(told)
    })
    .await;
    assert!(told.contains(&"echo completed 1 \"good\"".to_owned()), "{told:?}");
    until("the lane to be empty", async || {
        let stats = look(&*eye, "default.normal").await;
        (stats.pending + stats.in_flight == 0).then_some(())
    })
    .await;
    executor.signal("TERM");
    executor.wait().await.expect(0);
}

/// Text that does not compress, another for each `n`.
fn noise(n: u64, len: usize) -> String {
    let mut state = n.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_"[(state >> 58) as usize])
    };
    std::iter::repeat_with(next).take(len).collect()
}

#[tokio::test]
async fn a_batch_above_what_the_server_takes_is_split() {
    const JOBS: u64 = 100;
    let server = TestServer::start(ServerOptions::new().config("max_payload: 65536"));
    let stage = Stage::new();
    let line = |n: u64| format!("{{\"kind\":\"echo\",\"args\":\"{}\"}}\n", noise(n, 12_000));
    stage.file("jobs.ndjson", (0..JOBS).map(line).collect::<String>());
    // Their results do not fit into one record, either.
    let ended =
        stage.run(&format!("run jobs.ndjson -o json --batch-wire-bytes 256KiB --broker {}", server.url())).await.expect(0);
    let expected = (0..JOBS).map(|n| (format!("echo default completed 1 \"{}\"", noise(n, 12_000)), 1)).collect();
    Outcomes::read(&ended.stdout).assert_are(&expected);
}

#[tokio::test]
async fn a_full_stream_is_503_until_there_is_room() {
    let server = TestServer::start(ServerOptions::new());
    let stage = Stage::with("[factory]\njobs_bytes = \"1 MiB\"\nlane_bytes = \"1 MiB\"\n[ingest]\nroom_timeout = \"200ms\"\n");
    let broker = format!("--broker {}", server.url());
    let mut ingest = stage.start(&format!("ingest --listen 127.0.0.1:0 {broker}"));
    let web = Web::of(&mut ingest).await;
    let job = |n: u64| format!("{{\"kind\":\"echo\",\"args\":\"{}\"}}", noise(n, 200_000));
    let mut taken = 0;
    let refused = loop {
        let reply = web.post("/v1/jobs", &[JSON], job(taken)).await;
        if reply.status != 202 {
            break reply;
        }
        taken += 1;
        assert!(taken < 20, "four megabytes in a stream of one");
    };
    assert!(taken >= 3, "{refused:?}");
    let refused = refused.problem(503, &[]);
    assert!(refused.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
    // In bulk it is the same.
    let bulk: String = (100..104).map(|n| job(n) + "\n").collect();
    let bulk = web.post("/v1/jobs/batch", &[NDJSON], bulk).await;
    assert!(bulk.status == 503 && bulk.header("retry-after").is_some(), "{bulk:?}");

    let mut executor = stage.start(&format!("executor {broker}"));
    until("room", async || (web.post("/v1/jobs", &[JSON], job(99)).await.status == 202).then_some(())).await;
    assert!(executor.is_running() && ingest.is_running());
}

#[tokio::test]
async fn a_server_that_is_restarted_under_everybody_loses_nothing() {
    use tokio::io::AsyncWriteExt;
    const JOBS: u64 = 4_000;
    let mut server = TestServer::start(ServerOptions::new());
    let stage = Stage::with(SHORT_LEASE);
    let broker = format!("--broker {}", server.url());
    let mut ingest = stage.start(&format!("ingest --listen 127.0.0.1:0 {broker}"));
    let web = Web::of(&mut ingest).await;
    let mut executors = [0, 1].map(|_| stage.start(&format!("executor {broker}")));
    for executor in &mut executors {
        executor.says("running jobs").await;
    }
    // A run and an enqueueing, half-way in their input; and jobs that run while it happens.
    let mut run = stage.start_piped(&format!("run - -o json --results out.ndjson {broker}"));
    let mut enqueue = stage.start_piped(&format!("enqueue - -o json {broker}"));
    let (mut run_input, mut enqueue_input) = (run.stdin(), enqueue.stdin());
    run_input.write_all(echoes(0..JOBS / 2, "").as_bytes()).await.unwrap();
    enqueue_input.write_all(echoes(0..JOBS / 2, "").as_bytes()).await.unwrap();
    let slow = "{\"kind\":\"sleep\",\"args\":{\"ms\":1500},\"store_result\":true}";
    let before = web.post("/v1/jobs", &[JSON], slow).await.expect(202).json()["id"].as_str().unwrap().to_owned();
    until("half of the results", async || {
        (crate::support::line_count(&stage.path("out.ndjson")) as u64 >= JOBS / 4).then_some(())
    })
    .await;

    server.kill();
    run_input.write_all(echoes(JOBS / 2..JOBS, "").as_bytes()).await.unwrap();
    enqueue_input.write_all(echoes(JOBS / 2..JOBS, "").as_bytes()).await.unwrap();
    drop((run_input, enqueue_input));
    // Somebody asks in the worst moment.
    let meanwhile = tokio::spawn({
        let web = web.clone();
        async move { web.post("/v1/jobs", &[JSON], "{\"kind\":\"echo\",\"args\":\"meanwhile\",\"store_result\":true}").await }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    server.restart();

    let meanwhile = meanwhile.await.unwrap();
    if meanwhile.status == 202 {
        let outcome = web.outcome(meanwhile.json()["id"].as_str().unwrap()).await;
        assert_eq!(outcome["result"], "meanwhile");
    } else {
        meanwhile.problem(503, &[]);
    }
    assert_eq!(web.outcome(&before).await["state"], "completed");
    assert_eq!(enqueue.wait().await.expect(0).summary()["enqueued"], JOBS);
    run.wait().await.expect(0);
    let expected = (0..JOBS).map(|n| (format!("echo default completed 1 {{\"n\":{n}}}"), 1)).collect();
    Outcomes::in_file(&stage.path("out.ndjson")).assert_are(&expected);

    let eye = connect(&server).await;
    until("the lane to be empty", async || {
        let stats = look(&*eye, "default.normal").await;
        (stats.pending + stats.in_flight == 0).then_some(())
    })
    .await;
    assert_eq!(dead_letters(&*eye).await.len(), 0);
    // New work goes through, and everybody still stops when told.
    let id = web.post("/v1/jobs", &[JSON], slow).await.expect(202).json()["id"].as_str().unwrap().to_owned();
    assert_eq!(web.outcome(&id).await["state"], "completed");
    for mut process in executors.into_iter().chain([ingest]) {
        process.signal("TERM");
        process.wait().await.expect(0);
    }
}

#[tokio::test]
async fn results_that_cannot_be_written_are_said() {
    let stage = Stage::new();
    stage.file("jobs.ndjson", echoes(0..1_000, ""));
    stage.run("run jobs.ndjson --results /dev/full").await.expect(1).says(&["/dev/full", "No space left"]);
    // Nothing was lost by it.
    let ended = stage.run("run jobs.ndjson --results out.ndjson --resume -o json").await.expect(0);
    assert_eq!(ended.summary()["jobs"], 1_000);
    assert_eq!(Outcomes::in_file(&stage.path("out.ndjson")).len(), 1_000);
}

/// The disk of the embedded broker takes no more: the run ends and says why, and goes on when there is room.
#[tokio::test]
#[ignore = "mounts a small file system, which not everybody may"]
async fn a_full_disk_ends_a_run_that_can_be_resumed() {
    const JOBS: u64 = 20_000;
    let stage = Stage::new();
    let line = |n: u64| format!("{{\"kind\":\"echo\",\"args\":\"{}\"}}\n", noise(n, 10_000));
    stage.file("jobs.ndjson", (0..JOBS).map(line).collect::<String>());
    let mut command = stage.command("unshare");
    // The mount is there for this one process, and what it has written is copied out of it at the end.
    let run = format!("{} run jobs.ndjson --broker embedded:small/store --results out.ndjson", env!("CARGO_BIN_EXE_wf"));
    let script = format!(
        "mkdir small; mount -t tmpfs -o size=250m small small; code=0; {run} || code=$?; cp -r small/store store; exit $code"
    );
    command.args(["--user", "--map-root-user", "--mount", "bash", "-c", &script]);
    let ended = stage.started_as("run on a full disk", command).wait().await.expect(1);
    ended.says(&["no room"]);

    let line = "run jobs.ndjson --broker embedded:store --results out.ndjson --resume -o json";
    let ended = stage.run(line).await.expect(0);
    assert_eq!(ended.summary()["completed"], JOBS);
    let expected = (0..JOBS).map(|n| (format!("echo default completed 1 \"{}\"", noise(n, 10_000)), 1)).collect();
    Outcomes::in_file(&stage.path("out.ndjson")).assert_are(&expected);
}
