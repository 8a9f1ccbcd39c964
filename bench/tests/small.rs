//! Every benchmark in its small form: they start what they need, each job is found done once, and the report is whole.
//! What they measure says nothing here.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::Command;

use serde_json::Value;

/// Runs `bench --small`: its report.
fn report(bench: &str) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let (json, svg) = (folder.path().join("report.json"), folder.path().join("plot.svg"));
    let output = Command::new(env!("CARGO_BIN_EXE_wf-bench"))
        .args([bench, "--small", "--json"])
        .arg(&json)
        .arg("--svg")
        .arg(&svg)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{bench} --small failed:\n{said}");
    let report: Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    assert_eq!(report["bench"], bench);
    assert!(report["machine"]["cores"].as_u64().unwrap() > 0);
    let figures = report["figures"].as_array().unwrap();
    assert!(!figures.is_empty(), "{said}");
    for figure in figures {
        assert!(figure["median"].as_f64().is_some_and(f64::is_finite), "{figure}");
    }
    if let Ok(drawn) = std::fs::read_to_string(svg) {
        assert!(drawn.starts_with("<svg") && drawn.trim_end().ends_with("</svg>"), "{bench}: half a plot");
    }
    report
}

/// The same for one that does jobs.
fn with_jobs(bench: &str) {
    let report = report(bench);
    assert!(report["jobs_checked"].as_u64().unwrap() > 0, "{report}");
}

#[test]
fn sweep() {
    with_jobs("sweep");
}

#[test]
fn ceiling() {
    with_jobs("ceiling");
}

#[test]
fn slow() {
    with_jobs("slow");
}

#[test]
fn backlog() {
    with_jobs("backlog");
}

#[test]
fn link() {
    report("link");
}

#[test]
fn old() {
    with_jobs("old");
}

#[test]
fn latency() {
    with_jobs("latency");
}

#[test]
fn http() {
    with_jobs("http");
}

#[test]
fn faults() {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("report.json");
    let mut command = Command::new(env!("CARGO_BIN_EXE_wf-bench"));
    command.args(["faults", "--small", "--at-once", "4", "--json"]).arg(&json).arg("--keep").arg(folder.path());
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "faults --small failed:\n{said}");
    let report: Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    let played = report["scenarios"].as_array().unwrap();
    assert!(played.len() >= 15, "{said}");
    for row in played {
        assert_eq!(row["rounds"], 1, "{row}");
        assert!(row["completed"].as_u64().unwrap() > 0, "{row}");
        if row["scenario"].as_str().unwrap().starts_with("spool") {
            assert!(row["spooled"].as_u64().unwrap() > 0, "{row}");
        }
        for none in ["lost", "condemned", "duplicated", "stuck", "false_accepts", "broken"] {
            assert_eq!(row[none], 0, "{row}");
        }
    }
    for skipped in report["skipped"].as_array().unwrap() {
        assert!(!skipped["why"].as_str().unwrap().is_empty(), "{skipped}");
    }
}

fn simulate(args: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_wf-bench")).arg("simulate").args(args).output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// CI plays a thousand histories; a few show that each is played again exactly.
#[test]
fn histories_keep_every_promise_and_are_played_again_exactly() {
    let (kept, said) = simulate(&["--seeds", "150", "--verify"]);
    assert!(kept, "{said}");
}

#[test]
fn faults_that_are_put_back_are_found_and_shrunk() {
    for (fault, promise) in [("a1", "settled runs again"), ("a4", "file twice")] {
        let (found, said) = simulate(&["--seeds", "200", "--break", fault, "--failures", "8", "--shrink", "1"]);
        assert!(found && said.contains(promise), "{said}");
    }
}
