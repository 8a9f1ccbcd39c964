//! The bytes of every wire version, as files: what once was written stays readable, and is still written like that.
//!
//! `WF_BLESS=1` writes what is missing. A file of bytes, once there, is never written again: different bytes are a new
//! version. The text beside it, the seeds of the fuzzer and the generated parts of the document are.

use std::path::{Path, PathBuf};
use std::sync::Once;

use bytes::Bytes;
use wf_schema::{OLDEST, VERSION};

use crate::{document, samples};

pub(crate) fn blessing() -> bool {
    std::env::var_os("WF_BLESS").is_some_and(|value| value == "1")
}

pub(crate) fn schema() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn golden(version: u8) -> PathBuf {
    schema().join(format!("tests/golden/v{version}"))
}

pub(crate) fn write(path: &Path, bytes: impl AsRef<[u8]>) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

/// Writes the files of the current version that are missing.
fn bless() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for sample in samples::all().iter().filter(|_| blessing()) {
            let path = golden(VERSION).join(sample.name).with_extension("bin");
            if !path.exists() {
                write(&path, &sample.message);
            }
        }
    });
}

/// Which sort of message a golden file is.
fn target(name: &str) -> &'static str {
    match name.split('-').next() {
        Some("batch") => "wire_batch",
        Some("record") => "wire_record",
        Some("dead") => "dead_letter",
        _ => panic!("{name} is no sort of message"),
    }
}

#[test]
fn what_was_written_by_every_version_is_read() {
    for version in OLDEST..=VERSION {
        bless();
        let mut read = 0;
        for path in golden(version).read_dir().unwrap().map(|entry| entry.unwrap().path()) {
            if path.extension().is_some_and(|extension| extension == "bin") {
                let target = target(&path.file_stem().unwrap().to_string_lossy());
                let message = Bytes::from(std::fs::read(&path).unwrap());
                assert_eq!(message[2], version);
                let text = format!("{}\n{}", samples::describe(target, &message), document::dump(&message));
                let beside = path.with_extension("txt");
                if blessing() {
                    write(&beside, &text);
                }
                assert_eq!(std::fs::read_to_string(&beside).unwrap(), text, "{} is read differently", path.display());
                read += 1;
            }
        }
        assert!(read >= 10, "golden files of version {version} are gone");
    }
}

#[test]
fn what_is_written_now_is_what_the_current_version_says() {
    bless();
    for sample in samples::all() {
        let written = std::fs::read(golden(VERSION).join(sample.name).with_extension("bin")).unwrap();
        let name = sample.name;
        assert_eq!(samples::body(&written), samples::body(&sample.message), "{name} is written differently: a new version?");
        assert_eq!(written[..4], sample.message[..4], "{name}: the envelope");
        // How LZ4 packs is its own affair, and may change with the library: whatever it does can be read.
        if written[3] == 0 {
            assert_eq!(written, sample.message, "{name}");
        }
    }
}

#[test]
fn the_fuzzer_starts_from_what_is_written_now() {
    let corpus = schema().join("fuzz/corpus");
    for sample in samples::all() {
        // Whole, and as the body alone, which the targets put into an envelope themselves.
        let body = &samples::body(&sample.message)[1..];
        for (form, seed) in [("message", &sample.message[..]), ("body", body)] {
            seeded(&corpus.join(sample.target).join(format!("{}-{form}", sample.name)), seed);
        }
    }
    let job = r#"{"kind":"k","args":{"a":[1,"ü\n",null]},"queue":"q","priority":"low","max_attempts":3,"timeout":"90s","#;
    let job = format!(r#"{job}"backoff":{{"min":"2s","max":"1m"}},"expires_in":"1h","delay":"5m","store_result":true}}"#);
    let plain = r#"{"kind":"math_add","args":{"a":2,"b":3}}"#;
    for (name, seed) in [
        ("job_form/plain", plain.to_owned()),
        ("job_form/every-field", job.clone()),
        ("job_form/run-at", r#"{"kind":"k","args":1,"run_at":"2026-11-22T09:30:00Z"}"#.to_owned()),
        ("json_message/one", plain.to_owned()),
        ("json_message/array", format!("[{plain}, {plain},7]")),
        ("json_message/lines", format!("{plain}\n{{broken\r\n\n{plain}\n{}", r#"{"kind":"k","args":1,"queue":"other"}"#)),
    ] {
        seeded(&corpus.join(name), seed.as_bytes());
    }
}

fn seeded(path: &Path, seed: &[u8]) {
    if blessing() {
        write(path, seed);
    }
    assert_eq!(std::fs::read(path).unwrap(), seed, "{}: WF_BLESS=1 writes it", path.display());
}
