//! Runs what the fuzzer started from, and what it once found, through the fuzz targets.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;

#[path = "../fuzz/targets.rs"]
#[allow(dead_code, unreachable_pub)]
mod targets;

#[test]
fn every_input_that_was_kept_is_answered() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let mut replayed = 0;
    for kept in ["corpus", "regressions"] {
        for directory in fuzz.join(kept).read_dir().into_iter().flatten() {
            let directory = directory.unwrap().path();
            let name = directory.file_name().unwrap().to_string_lossy().into_owned();
            let target = targets::named(&name).unwrap_or_else(|| panic!("no target is called {name}"));
            for input in directory.read_dir().unwrap() {
                let input = input.unwrap().path();
                let data = std::fs::read(&input).unwrap();
                assert!(std::panic::catch_unwind(|| target(&data)).is_ok(), "{}", input.display());
                replayed += 1;
            }
        }
    }
    assert!(replayed >= 12, "the corpus is gone: {replayed} inputs");
}
