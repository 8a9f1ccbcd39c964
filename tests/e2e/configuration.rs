//! The command line and the configuration: what is wrong is named, with exit code 2.

use serde_json::Value;

use crate::support::{Ended, Stage, echoes};

async fn run_with(stage: &Stage, env: &[(&str, &str)], line: &str) -> Ended {
    let mut command = stage.wf(line);
    command.envs(env.iter().copied());
    stage.started_as(line, command).wait().await
}

#[tokio::test]
async fn what_cannot_be_is_refused_with_key_value_limit_and_origin() {
    let stage = Stage::new();
    let key_and_origin = ["`batch.linger` = `5 min`", "out of range", "0 s to 1 s", "WF_BATCH_LINGER"];
    run_with(&stage, &[("WF_BATCH_LINGER", "5min")], "config check").await.expect(2).says(&key_and_origin);
    stage.run("config check --batch-jobs 0").await.expect(2).says(&["`batch.jobs` = `0`", "1 to 65536", "command line"]);
    stage.run("config check --batch-linger 5").await.expect(2).says(&["`batch.linger` = `5`", "expected"]);
    // Every command refuses, before it does anything.
    for command in ["run jobs.ndjson", "serve", "ingest", "executor", "enqueue jobs.ndjson", "broker setup"] {
        let ended = run_with(&stage, &[("WF_EXECUTOR_CONCURRENCY", "0")], command).await.expect(2);
        ended.says(&["`executor.concurrency` = `0`", "1 to 100000", "WF_EXECUTOR_CONCURRENCY"]);
    }
    assert!(!stage.path(".wf").exists());
}

#[tokio::test]
async fn a_file_is_checked_down_to_the_line() {
    let stage = Stage::with("profile = \"wan\"\n\n[batch]\nlingerr = \"1 ms\"\n");
    stage.run("config check").await.expect(2).says(&["unknown key `batch.lingerr`", "wf.toml", "batch.linger"]);
    stage.file("wf.toml", "[batch]\njobs = 70000\n[executor]\nconcurrency = \"many\"\n");
    // All that is wrong is told at once.
    stage.run("config check").await.expect(2).says(&[
        "2 settings are wrong",
        "`batch.jobs` = `70000`",
        "`executor.concurrency` = `many`",
    ]);
    stage.file("wf.toml", "[batch\n");
    stage.run("config check").await.expect(2).says(&["wf.toml", "not valid TOML"]);
    stage.file("wf.toml", "");
    stage.run("config check --config nowhere.toml").await.expect(2).says(&["nowhere.toml"]);
    stage.run("config check").await.expect(0);
}

#[tokio::test]
async fn settings_that_do_not_go_together_are_refused() {
    let stage = Stage::new();
    let ended = stage.run("config check --publish-window-bytes 64KiB --batch-wire-bytes 128KiB").await.expect(2);
    ended.says(&["publish.window_bytes", "batch.wire_bytes", "room for one full batch"]);
}

#[tokio::test]
async fn a_profile_alone_tunes_for_a_network_and_the_stronger_source_wins() {
    let stage = Stage::with("[batch]\nlinger = \"3 ms\"\njobs = 100\n");
    let env = [("WF_PROFILE", "wan"), ("WF_BATCH_LINGER", "4ms")];
    let ended = run_with(&stage, &env, "config show -o json").await.expect(0);
    let rows: Vec<Value> = serde_json::from_str(&ended.stdout).unwrap();
    let row = |key: &str| {
        let row = rows.iter().find(|row| row["key"] == key).unwrap_or_else(|| panic!("no {key}"));
        let text = |field: &str| row[field].as_str().unwrap_or_default().to_owned();
        (text("value"), text("origin"))
    };
    assert_eq!(row("publish.window_bytes").0, "16 MiB");
    assert!(row("publish.window_bytes").1.contains("wan"), "{:?}", row("publish.window_bytes"));
    assert_eq!(row("batch.linger").0, "4 ms");
    assert!(row("batch.linger").1.contains("WF_BATCH_LINGER"), "{:?}", row("batch.linger"));
    assert_eq!(row("batch.jobs").0, "100");
    assert!(row("batch.jobs").1.contains("wf.toml"), "{:?}", row("batch.jobs"));

    let ended = run_with(&stage, &env, "config diff --batch-linger 6ms").await.expect(0);
    let differing: Vec<&str> = ended.stdout.lines().skip(1).filter_map(|line| line.split_whitespace().next()).collect();
    assert!(differing.contains(&"batch.linger") && differing.contains(&"batch.jobs"), "{}", ended.stdout);
    assert!(!differing.contains(&"publish.window_bytes"), "{}", ended.stdout);
    assert!(ended.stdout.contains("6 ms"), "{}", ended.stdout);
}

#[tokio::test]
async fn wrong_usage_is_exit_code_two() {
    let stage = Stage::new();
    stage.file("jobs.ndjson", echoes(0..1, ""));
    stage.run("run jobs.ndjson --no-such-flag").await.expect(2).says(&["--no-such-flag"]);
    stage.run("no-such-command").await.expect(2).says(&["no-such-command"]);
    stage.run("run").await.expect(2);
    stage.run("run nowhere.ndjson").await.expect(2).says(&["nowhere.ndjson"]);
    stage.run("run .").await.expect(2).says(&["directory"]);
    stage.run("run jobs.ndjson --broker carrier-pigeon://loft").await.expect(2).says(&["broker.url", "nats://"]);
    stage.run("executor").await.expect(2).says(&["wf executor", "nats://", "wf serve"]);
    stage.run("ingest --broker memory://").await.expect(2).says(&["wf ingest", "nats://"]);
    stage.run("enqueue jobs.ndjson --broker memory://").await.expect(2).says(&["memory://"]);
    stage.run("broker setup --broker memory://").await.expect(2).says(&["memory://"]);
}

#[tokio::test]
async fn help_and_version_are_no_failure() {
    let stage = Stage::new();
    assert!(stage.run("--help").await.expect(0).stdout.contains("Exit codes"));
    assert!(stage.run("version").await.expect(0).stdout.starts_with("wf "));
    assert!(stage.run("completions bash").await.expect(0).stdout.contains("wf"));
}
