//! The rules of the house, read off `cargo metadata` and the sources: DESIGN.md's arrows, kept by a test and not by memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, Edition, Metadata, MetadataCommand, Package};

/// The floors, the ground floor first. A crate may use crates of the floors below its own, and nobody beside or above.
const FLOORS: &[&[&str]] =
    &[&["wf-schema"], &["wf-broker"], &["wf-nats", "wf-ingest", "wf-executor"], &["work-factory"], &["wf-bench"]];

/// Crates from outside that belong to one crate of the house, and why.
const OWNED: &[(&str, &str, &str)] = &[
    ("async-nats", "wf-nats", "the pipeline knows the broker contract and nothing of NATS"),
    ("axum", "wf-ingest", "HTTP is ingest's business"),
    ("fjall", "wf-broker", "storage stands behind the broker contract, and behind Keyspaces for the spool"),
];

/// Crates that have no business in wf-schema: it holds no sockets and runs nothing.
const NETWORK: &[&str] = &["tokio", "async-nats", "axum", "hyper", "hyper-util", "reqwest", "tower", "tower-http"];

/// The longest that a source file may be, in lines.
const LONGEST_FILE: usize = 450;

/// File names that say nothing of what is inside. (`foo.rs` beside `foo/` instead of `foo/mod.rs`.)
const NOT_NOUNS: &[&str] = &["mod.rs", "utils.rs", "util.rs", "common.rs", "helpers.rs", "manager.rs", "misc.rs"];

fn metadata() -> Metadata {
    MetadataCommand::new()
        .manifest_path(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"))
        .no_deps()
        .exec()
        .expect("cargo metadata describes the workspace")
}

fn floor(name: &str) -> Option<usize> {
    FLOORS.iter().position(|crates| crates.contains(&name))
}

fn directory(package: &Package) -> &Path {
    package.manifest_path.parent().expect("a manifest is in a directory").as_std_path()
}

/// Fails with all that is wrong at once.
fn assert_none(rule: &str, broken: &[String]) {
    assert!(broken.is_empty(), "{rule}\n  {}", broken.join("\n  "));
}

#[test]
fn every_crate_has_a_floor() {
    let metadata = metadata();
    let homeless: Vec<_> = metadata
        .workspace_packages()
        .iter()
        .filter(|package| floor(&package.name).is_none())
        .map(|package| format!("{} is on none: add it to FLOORS in tests/floors.rs", package.name))
        .collect();
    assert_none("Every crate stands on a floor.", &homeless);
    assert_eq!(metadata.workspace_packages().len(), FLOORS.concat().len(), "FLOORS names a crate that is not there");
}

#[test]
fn arrows_point_down_only() {
    let metadata = metadata();
    let mut broken = Vec::new();
    for package in metadata.workspace_packages() {
        for dependency in &package.dependencies {
            // A crate's tests may switch on its own features.
            let itself = dependency.name == *package.name && dependency.kind == DependencyKind::Development;
            let (Some(from), Some(to)) = (floor(&package.name), floor(&dependency.name)) else { continue };
            if !itself && to >= from {
                let place = if to == from { "a sibling" } else { "above it" };
                broken.push(format!("{} ({}) depends on {}, which is {place}", package.name, dependency.kind, dependency.name));
            }
        }
    }
    assert_none("Arrows point down only, from tests too, and siblings never see each other.", &broken);
}

#[test]
fn what_belongs_to_one_crate_is_used_by_no_other() {
    let metadata = metadata();
    let mut broken = Vec::new();
    for &(outside, owner, why) in OWNED {
        for package in metadata.workspace_packages() {
            let uses = package.dependencies.iter().any(|dependency| dependency.name == outside);
            match (uses, *package.name == owner) {
                // What ours is measured against is the bare library itself.
                (true, false) if *package.name == "wf-bench" => {}
                (true, false) => broken.push(format!("{} depends on {outside}: only {owner} may, for {why}", package.name)),
                (false, true) => broken.push(format!("{owner} no longer depends on {outside}: take it out of OWNED")),
                _ => {}
            }
        }
    }
    assert_none("Some crates belong to certain crates of the house.", &broken);
}

#[test]
fn the_schema_has_no_network() {
    let metadata = metadata();
    let schema = metadata.workspace_packages().into_iter().find(|package| *package.name == "wf-schema").unwrap();
    let broken: Vec<_> = schema
        .dependencies
        .iter()
        .filter(|dependency| NETWORK.contains(&dependency.name.as_str()))
        .map(|dependency| format!("wf-schema depends on {}", dependency.name))
        .collect();
    assert_none("Jobs, batches and outcomes are described without a network.", &broken);
}

#[test]
fn every_crate_has_the_same_laws() {
    let mut broken = Vec::new();
    for package in metadata().workspace_packages() {
        let manifest = fs::read_to_string(&package.manifest_path).unwrap();
        if !manifest.contains("[lints]\nworkspace = true") {
            broken.push(format!("{} does not inherit the lints: `[lints]`, `workspace = true`", package.name));
        }
        if package.edition != Edition::E2024 {
            broken.push(format!("{} is of edition {}", package.name, package.edition));
        }
        if package.license.is_none() || package.rust_version.is_none() {
            broken.push(format!("{} does not inherit `license` and `rust-version`", package.name));
        }
    }
    assert_none("One edition, one set of lints, one licence.", &broken);
}

#[test]
fn files_are_short_and_named_by_nouns() {
    let mut broken = Vec::new();
    for package in metadata().workspace_packages() {
        for file in sources(&directory(package).join("src")) {
            let lines = fs::read_to_string(&file).unwrap().lines().count();
            if lines > LONGEST_FILE {
                broken.push(format!("{} has {lines} lines, {LONGEST_FILE} at most", file.display()));
            }
            if file.file_name().is_some_and(|name| NOT_NOUNS.iter().any(|bad| name == *bad)) {
                broken.push(format!("{} is not named by what it holds", file.display()));
            }
        }
    }
    assert_none("One noun a file.", &broken);
}

/// All `.rs` files below `directory`, sorted.
fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

#[test]
fn architecture_md_speaks_of_every_crate() {
    let metadata = metadata();
    let path = metadata.workspace_root.join("ARCHITECTURE.md");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let silent: Vec<_> = metadata
        .workspace_packages()
        .iter()
        .filter(|package| !text.contains(package.name.as_str()))
        .map(|package| format!("it does not mention {}", package.name))
        .collect();
    assert_none("ARCHITECTURE.md speaks of every crate.", &silent);
}

#[test]
fn architecture_md_leads_to_files_that_are_there() {
    let root = metadata().workspace_root;
    let text = fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap_or_else(|error| panic!("ARCHITECTURE.md: {error}"));
    let code = text.split('`').skip(1).step_by(2);
    let paths = code.filter(|code| code.contains('/') && !code.contains([' ', '{', '<', ':', '*']) && !code.starts_with('/'));
    let lost: Vec<_> = paths.filter(|path| !root.join(path).exists()).map(|path| format!("there is no {path}")).collect();
    assert_none("Every path in ARCHITECTURE.md exists.", &lost);
}
