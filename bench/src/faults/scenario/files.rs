//! What happens to the files of a `wf run`.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::process::Command;

use super::Scenario;
use crate::faults::process::wf;
use crate::faults::setup::Setup;
use crate::faults::site::Site;

/// The longest that one run may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// The jobs of the file.
const JOBS: usize = 50;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![Scenario {
        name: "run-over-input",
        about: "`wf run F --results F`, by other paths, by links and with --resume: the input stays as it is",
        small: true,
        setup: |_| Setup { rate: 5.0, http_only: true, ..Setup::default() },
        strike,
        unavailable: || wf().is_none().then(|| "there is no program wf beside this one".to_owned()),
    }]
}

fn strike(site: &mut Site) -> BoxFuture<'_, anyhow::Result<()>> {
    async {
        let folder = site.folder.join("files");
        std::fs::create_dir_all(folder.join("inner"))?;
        let input = folder.join("jobs.ndjson");
        let jobs = "{\"kind\":\"noop\",\"args\":null}\n".repeat(JOBS);
        std::fs::write(&input, &jobs)?;
        std::os::unix::fs::symlink(&input, folder.join("symlink"))?;
        std::fs::hard_link(&input, folder.join("hardlink"))?;
        let ways: [(&str, PathBuf); 4] = [
            ("the same path", input.clone()),
            ("another path", folder.join("inner/../jobs.ndjson")),
            ("a symlink", folder.join("symlink")),
            ("a hard link", folder.join("hardlink")),
        ];
        for (n, (way, results)) in ways.iter().enumerate() {
            for resume in [false, true] {
                let told = run(&folder, &format!("over-{n}-{resume}"), &input, results, resume).await?;
                let kept = std::fs::read(&input)?;
                let how = if resume { " with --resume" } else { "" };
                if kept != jobs.as_bytes() {
                    let bytes = kept.len();
                    site.broken.push(format!("{way}{how}: of {} bytes of the input {bytes} are left ({told:?})", jobs.len()));
                    // In place, so that links stay what they are.
                    std::fs::write(&input, &jobs)?;
                } else if told == Some(0) {
                    site.broken.push(format!("{way}{how}: it says that all is well"));
                }
            }
        }
        let results = folder.join("results.ndjson");
        let told = run(&folder, "apart", &input, &results, false).await?;
        let lines = std::fs::read_to_string(&results).unwrap_or_default().lines().count();
        if (told, lines) != (Some(0), JOBS) {
            site.broken.push(format!("a run with a results file of its own: {lines} lines of {JOBS}, {told:?}"));
        }
        Ok(())
    }
    .boxed()
}

/// Runs `input` with a broker of its own, called `name`: the exit code, `None` if there is none or it took too long.
async fn run(folder: &Path, name: &str, input: &Path, results: &Path, resume: bool) -> anyhow::Result<Option<i32>> {
    let mut command = Command::new(wf().context("no program wf")?);
    command.arg("run").arg(input).arg("--results").arg(results);
    command.arg("--broker").arg(format!("embedded:{}", folder.join(name).display()));
    if resume {
        command.arg("--resume");
    }
    let log = std::fs::File::create(folder.join(format!("{name}.log")))?;
    command.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).kill_on_drop(true);
    let mut child = command.spawn()?;
    let ended = tokio::time::timeout(PATIENCE, child.wait()).await;
    Ok(ended.ok().transpose()?.and_then(|status| status.code()))
}
