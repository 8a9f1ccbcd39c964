//! Any number of jobs passes through in flat memory.

use tokio::io::AsyncWriteExt;

use crate::support::{Process, Stage, line_count};

/// The most memory a run may hold, whatever the number of its jobs. The lines of two million jobs and of their outcomes
/// take 400 MB, those of ten million 2 GB.
const BOUND: u64 = 256 << 20;

/// Writes jobs until there are enough, and watches what the process holds.
async fn feed(process: &mut Process, jobs: u64) -> u64 {
    let mut stdin = process.stdin();
    let mut peak = 0;
    let mut n = 0;
    while n < jobs {
        let block: String =
            (n..n + 1_000).map(|n| format!("{{\"kind\":\"math_multiply\",\"args\":{{\"a\":{n},\"b\":2}}}}\n")).collect();
        stdin.write_all(block.as_bytes()).await.unwrap();
        n += 1_000;
        peak = process.peak_memory().unwrap_or(peak);
    }
    peak
}

async fn flat(jobs: u64) {
    let stage = Stage::new();
    let mut process = stage.start_piped("run - --results out.ndjson -o json");
    let peak = feed(&mut process, jobs).await;
    let ended = process.wait().await.expect(0);
    assert_eq!(ended.summary()["jobs"], jobs);
    assert_eq!(ended.summary()["completed"], jobs);
    assert_eq!(line_count(&stage.path("out.ndjson")) as u64, jobs);
    assert!(ended.summary()["wire_bytes_per_job"].as_f64().unwrap() <= 12.0, "{}", ended.summary());
    eprintln!("{jobs} jobs: {} MiB at most, {}", peak >> 20, ended.summary());
    assert!(peak < BOUND, "{} MiB at most; it should stay below {}", peak >> 20, BOUND >> 20);
}

#[tokio::test]
async fn two_million_jobs() {
    flat(2_000_000).await;
}

#[tokio::test]
#[ignore = "takes two minutes"]
async fn ten_million_jobs() {
    flat(10_000_000).await;
}
