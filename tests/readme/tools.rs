//! The programs from outside that README.md uses.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The nats CLI that Go installs where there is none.
const NATS_CLI: &str = "github.com/nats-io/natscli/nats@v0.5.1";

/// Whether `tool` can be used: it is on the PATH or, for `nats`, can be installed.
pub(crate) fn is_there(tool: &str) -> bool {
    on_path(tool).is_some() || (tool == "nats" && (installed().is_file() || on_path("go").is_some()))
}

fn on_path(tool: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(tool)).find(|file| file.is_file())
}

/// `target/tools`: kept between runs, gone with `cargo clean`.
fn directory() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("tools")
}

fn installed() -> PathBuf {
    directory().join("nats")
}

/// The nats CLI; installed into `target/tools` if it is nowhere.
pub(crate) fn nats() -> Result<PathBuf, String> {
    static NATS: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let found = || match on_path("nats") {
        Some(path) => Ok(path),
        None if installed().is_file() => Ok(installed()),
        None => install(),
    };
    NATS.get_or_init(found).clone()
}

fn install() -> Result<PathBuf, String> {
    let output = Command::new("go").args(["install", NATS_CLI]).env("GOBIN", directory()).output();
    match output {
        Ok(output) if output.status.success() => Ok(installed()),
        Ok(output) => Err(format!("go install {NATS_CLI}: {}", String::from_utf8_lossy(&output.stderr))),
        Err(error) => Err(format!("go install {NATS_CLI}: {error}")),
    }
}

/// The nats-server of all tests: the one named, the one on the PATH, or the pinned one from pip.
pub(crate) fn nats_server() -> PathBuf {
    wf_nats::testing::nats_server()
}
