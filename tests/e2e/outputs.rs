//! What the program writes to: nothing that is not its own.

use std::fs;
use std::os::unix::fs::symlink;

use crate::support::{Ended, Outcomes, Process, Stage, echoes};

const MEMORY: &str = "--broker memory://";

/// The files that are named in a test are as they were.
fn unchanged(stage: &Stage, name: &str, before: &str) {
    assert_eq!(fs::read_to_string(stage.path(name)).unwrap(), before, "{name} was changed");
}

async fn refused(stage: &Stage, line: &str) -> Ended {
    stage.run(line).await.expect(2)
}

#[tokio::test]
async fn results_never_go_to_the_file_of_jobs() {
    let stage = Stage::new();
    let jobs = echoes(0..10, "");
    stage.file("jobs.ndjson", &jobs);
    symlink(stage.path("jobs.ndjson"), stage.path("symlink")).unwrap();
    fs::hard_link(stage.path("jobs.ndjson"), stage.path("hardlink")).unwrap();
    for out in ["jobs.ndjson", "./jobs.ndjson", "symlink", "hardlink"] {
        for how in [MEMORY, "", "--fresh", "--resume"] {
            refused(&stage, &format!("run jobs.ndjson --results {out} {how}")).await.says(&["is the file of jobs itself", out]);
            unchanged(&stage, "jobs.ndjson", &jobs);
        }
    }
    assert!(!stage.path(".wf").exists(), "it is refused before a broker is made");
}

/// Runs the program with standard input and output as they are given.
async fn redirected(stage: &Stage, shell: &str) -> Ended {
    let mut command = stage.command("sh");
    command.args(["-c", &format!("exec \"$0\" {shell}"), env!("CARGO_BIN_EXE_wf")]);
    let mut process: Process = stage.started_as(shell, command);
    process.wait().await
}

#[tokio::test]
async fn neither_do_they_by_way_of_standard_input_or_output() {
    let stage = Stage::new();
    let jobs = echoes(0..10, "");
    stage.file("jobs.ndjson", &jobs);
    for shell in [
        "run - --results jobs.ndjson --broker memory:// < jobs.ndjson",
        "run /dev/stdin --results jobs.ndjson --broker memory:// < jobs.ndjson",
        "run jobs.ndjson --broker memory:// >> jobs.ndjson",
        "run - --broker memory:// < jobs.ndjson >> jobs.ndjson",
    ] {
        redirected(&stage, shell).await.expect(2).says(&["is the file of jobs itself"]);
        unchanged(&stage, "jobs.ndjson", &jobs);
    }
    // A pipe or a device has nothing to lose.
    redirected(&stage, "run - --results /dev/null --broker memory:// < jobs.ndjson").await.expect(0);
    redirected(&stage, "run /dev/null --results /dev/null --broker memory://").await.expect(0);
}

#[tokio::test]
async fn results_replace_earlier_results_and_nothing_else() {
    let stage = Stage::new();
    stage.file("jobs.ndjson", echoes(0..10, ""));
    for text in ["my notes", "a\nb\nc", "{\"kind\":\"echo\",\"args\":1}\n"] {
        stage.file("notes", text);
        for how in [MEMORY, "--resume"] {
            refused(&stage, &format!("run jobs.ndjson --results notes {how}")).await.says(&["notes", "not a results file"]);
            unchanged(&stage, "notes", text);
        }
    }
    // An empty file is anybody's, and results of an earlier run are replaced.
    stage.file("out.ndjson", "");
    for _ in 0..2 {
        stage.run(&format!("run jobs.ndjson --results out.ndjson {MEMORY}")).await.expect(0);
        assert_eq!(Outcomes::in_file(&stage.path("out.ndjson")).len(), 10);
    }
    // Of a run that is refused, nothing is replaced.
    let before = fs::read_to_string(stage.path("out.ndjson")).unwrap();
    stage.run("run jobs.ndjson --results out.ndjson --resume").await.expect(2).says(&["no unfinished run"]);
    unchanged(&stage, "out.ndjson", &before);
}

#[tokio::test]
async fn a_folder_of_something_else_is_left_alone() {
    let stage = Stage::new();
    stage.file("jobs.ndjson", echoes(0..1, ""));
    stage.file("file", "mine");
    fs::create_dir(stage.path("folder")).unwrap();
    stage.file("folder/lock", "mine");
    fs::create_dir(stage.path("other")).unwrap();
    stage.file("other/lock", "17\n");
    stage.file("other/data", "mine");
    let broker = |path: &str| format!("run jobs.ndjson --broker embedded:{path}");
    // The broker is not there: the spool is looked at first.
    let spool = |path: &str| format!("ingest --broker nats://127.0.0.1:1 --ingest-spool {path} --listen 127.0.0.1:0");
    for path in ["file", "folder", "other", "jobs.ndjson"] {
        refused(&stage, &broker(path)).await.says(&[path]);
        refused(&stage, &spool(path)).await.says(&[path, "not a spool"]);
    }
    unchanged(&stage, "file", "mine");
    unchanged(&stage, "folder/lock", "mine");
    unchanged(&stage, "other/lock", "17\n");
    unchanged(&stage, "jobs.ndjson", &echoes(0..1, ""));

    // A broker's folder is no spool, and the other way round.
    stage.run(&broker("store")).await.expect(0);
    refused(&stage, &spool("store")).await.says(&["store", "not a spool"]);
    let mut ingest = stage.start(&spool("spool"));
    ingest.says("taking jobs on").await;
    ingest.kill().await;
    refused(&stage, &broker("spool")).await.says(&["spool", "not an embedded broker"]);
    stage.run(&broker("store")).await.expect(0);
}
