//! What a result was measured on, and with.

use std::fs;
use std::process::Command;

use serde::Serialize;

/// The machine, and the versions of what ran on it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    /// The processor, as it calls itself.
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) memory_gib: f64,
    pub(crate) kernel: String,
    /// Programs and libraries by name.
    pub(crate) versions: Vec<(String, String)>,
}

impl Machine {
    /// This machine.
    pub(crate) fn here() -> Self {
        let field = |file: &str, name: &str| {
            let text = fs::read_to_string(file).unwrap_or_default();
            let line = text.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned())
        };
        let kib = field("/proc/meminfo", "MemTotal").and_then(|text| text.split(' ').next()?.parse::<f64>().ok());
        Self {
            cpu: field("/proc/cpuinfo", "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_gib: (kib.unwrap_or(0.0) / 1024.0 / 1024.0 * 10.0).round() / 10.0,
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
            versions: vec![
                ("wf-bench".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
                ("build".to_owned(), if cfg!(debug_assertions) { "debug" } else { "release" }.to_owned()),
            ],
        }
    }

    /// Adds what `program` with `argument` says of its version, if it is there.
    pub(crate) fn with_program(mut self, name: &str, program: &std::path::Path, argument: &str) -> Self {
        if let Ok(output) = Command::new(program).arg(argument).output() {
            let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
            // The word with a digit and a dot in it: every program says it differently.
            let version = said.split_whitespace().find(|word| word.contains('.') && word.contains(|c: char| c.is_ascii_digit()));
            let version = version.unwrap_or("unknown").trim_start_matches('v').trim_end_matches([',', ':']);
            self.versions.push((name.to_owned(), version.to_owned()));
        }
        self
    }

    /// In one line.
    pub(crate) fn line(&self) -> String {
        let versions: Vec<String> = self.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
        let Self { cpu, cores, memory_gib, kernel, .. } = self;
        format!("{cores} cores of {cpu}, {memory_gib} GiB, Linux {kernel}; {}", versions.join(", "))
    }
}
