//! Where a section plays: a directory that looks like the repository's, with free ports and the program just built.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::document::Section;
use crate::process::Process;
use crate::tools;

/// The ports that README.md speaks of: ingest, a second ingest, NATS, and its monitoring.
const PORTS: [&str; 4] = ["8080", "8081", "4222", "8222"];

/// Entries of the repository that a section has of its own, or must not reach.
const NOT_LINKED: [&str; 4] = ["target", ".git", ".wf", ".env"];

/// The directory and the ports of one section.
pub(crate) struct Stage {
    root: PathBuf,
    ports: BTreeMap<&'static str, String>,
    started: AtomicUsize,
}

impl Stage {
    pub(crate) fn new(section: &Section) -> Result<Self, String> {
        let name: String = section.title.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let line = section.blocks.first().map_or(0, |block| block.line);
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("readme").join(format!("{line}-{name}"));
        let stage = Self { root, ports: free_ports(), started: AtomicUsize::new(0) };
        stage.furnish(section).map_err(|error| format!("{}: {error}", stage.root.display()))?;
        Ok(stage)
    }

    fn furnish(&self, section: &Section) -> Result<(), Box<dyn std::error::Error>> {
        if self.root.exists() {
            fs::remove_dir_all(&self.root)?;
        }
        for directory in [self.work(), self.bin(), self.root.join("log")] {
            fs::create_dir_all(directory)?;
        }
        for entry in fs::read_dir(env!("CARGO_MANIFEST_DIR"))? {
            let entry = entry?;
            if !NOT_LINKED.iter().any(|name| entry.file_name() == *name) {
                symlink(entry.path(), self.work().join(entry.file_name()))?;
            }
        }

        let wf = Path::new(env!("CARGO_BIN_EXE_wf"));
        symlink(wf, self.bin().join("wf"))?;
        let examples = wf.with_file_name("examples");
        self.program("cargo", &CARGO.replace("@WF@", &quoted(wf)).replace("@EXAMPLES@", &quoted(&examples)))?;

        let text: String = section.running().map(|block| block.text.as_str()).collect();
        if text.contains("nats-server") {
            let server = NATS_SERVER
                .replace("@SERVER@", &quoted(&tools::nats_server()))
                .replace("@PORT@", &self.ports["4222"])
                .replace("@STORE@", &quoted(&self.root.join("nats")));
            self.program("nats-server", &server)?;
        }
        if section.running().any(|block| block.needs.iter().any(|tool| tool == "nats")) {
            symlink(tools::nats()?, self.bin().join("nats"))?;
        }
        Ok(())
    }

    fn program(&self, name: &str, script: &str) -> std::io::Result<()> {
        let path = self.bin().join(name);
        fs::write(&path, script)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
    }

    fn work(&self) -> PathBuf {
        self.root.join("work")
    }

    fn bin(&self) -> PathBuf {
        self.root.join("bin")
    }

    /// `text` with this section's ports.
    pub(crate) fn localised(&self, text: &str) -> String {
        self.ports.iter().fold(text.to_owned(), |text, (written, free)| replace_number(&text, written, free))
    }

    /// Runs the commands of the block at `line` of README.md.
    pub(crate) fn start(&self, commands: &str, line: usize) -> Result<Process, String> {
        let script = self.localised(commands);
        let log = self.root.join("log").join(format!("{}-line-{line}", self.started.fetch_add(1, Ordering::Relaxed)));
        let label = format!("README.md, line {line}: `{}`", script.trim());
        Process::start(&script, label, log, |command| {
            // What happens to be set where the tests run must not change what a reader sees.
            for (name, _) in std::env::vars_os() {
                let ours = name.to_string_lossy();
                if (ours.starts_with("WF_") && ours != "WF_NATS_SERVER") || ours.starts_with("NATS_") {
                    command.env_remove(&name);
                }
            }
            let path = std::env::var_os("PATH").unwrap_or_default();
            let path = std::env::join_paths(std::iter::once(self.bin()).chain(std::env::split_paths(&path)));
            command
                .current_dir(self.work())
                .env("PATH", path.unwrap_or_default())
                .env("WF_INGEST_LISTEN", format!("127.0.0.1:{}", self.ports["8080"]))
                .env("NATS_URL", format!("nats://127.0.0.1:{}", self.ports["4222"]))
                // The nats CLI's contexts.
                .env("XDG_CONFIG_HOME", self.root.join("config"));
        })
    }

    /// Clears up after a success; after a failure everything stays to be looked at.
    pub(crate) fn leave(self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

/// The commands of cargo that README.md may use, without building anything twice.
const CARGO: &str = r#"#!/bin/bash
set -euo pipefail
case "$*" in
    "run --release -- "*) shift 3; exec @WF@ "$@" ;;
    "run --release --example "*) example=@EXAMPLES@/$4; shift 4; [[ ${1:-} != -- ]] || shift; exec "$example" "$@" ;;
    *) echo "tests/readme/stage.rs does not know how to stand in for: cargo $*" >&2; exit 1 ;;
esac
"#;

/// The server with a port and a store of its own unless the command says otherwise: the last flag wins.
const NATS_SERVER: &str = r#"#!/bin/bash
exec @SERVER@ --addr 127.0.0.1 --port @PORT@ --store_dir @STORE@ "$@"
"#;

fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

/// Ports that nobody else has now. All are held at once, so that they differ.
fn free_ports() -> BTreeMap<&'static str, String> {
    let held = PORTS.map(|port| (port, TcpListener::bind("127.0.0.1:0").expect("loopback has a free port")));
    held.iter().map(|(port, listener)| (*port, listener.local_addr().unwrap().port().to_string())).collect()
}

/// `text` with the number `from` replaced wherever it stands as a word of its own.
fn replace_number(text: &str, from: &str, to: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(from) {
        let (before, after) = (&rest[..at], &rest[at + from.len()..]);
        let apart = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric() && c != '_');
        let whole = apart(result.chars().chain(before.chars()).next_back()) && apart(after.chars().next());
        result.push_str(before);
        result.push_str(if whole { to } else { from });
        rest = after;
    }
    result + rest
}

/// This file's own tests, in the form that this test program runs.
pub(crate) mod tests {
    use libtest_mimic::Trial;

    pub(crate) fn trials() -> Vec<Trial> {
        vec![Trial::test("stage: only whole numbers are ports", || {
            let text = super::replace_number("a:8080 18080 8080x :8080/8080\n8080", "8080", "1");
            assert_eq!(text, "a:1 18080 8080x :1/1\n1");
            Ok(())
        })]
    }
}
