//! docs/http-api.md says what is so: its jobs are jobs, and its codes are the codes there are.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use reqwest::StatusCode;

use crate::support::Puppet;
use crate::support::http::Site;

const DOCS: &str = include_str!("../../../docs/http-api.md");

#[tokio::test]
async fn the_jobs_it_shows_are_jobs() {
    let site = Site::new(Puppet::new()).await;
    let blocks = DOCS.split("```json job\n").skip(1).map(|rest| rest.split_once("```").unwrap().0);
    let quoted = DOCS.split("-d '").skip(1).map(|rest| rest.split_once('\'').unwrap().0);
    let jobs: Vec<&str> = blocks.chain(quoted).collect();
    assert!(jobs.len() >= 3);
    for job in jobs {
        assert_eq!(site.job(job).await.status, StatusCode::ACCEPTED, "{job}");
    }
}

/// The first text that stands behind each `marker` in `source`.
fn texts<'a>(source: &'a str, marker: &str) -> impl Iterator<Item = &'a str> {
    source.split(marker).skip(1).filter_map(|rest| rest.split('"').nth(1))
}

#[test]
fn the_codes_it_lists_are_those_there_are() {
    let mut codes = BTreeSet::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let source = fs::read_to_string(&path).unwrap();
            codes.extend(texts(&source, "Problem::new(").map(str::to_owned));
            if path.ends_with("problem.rs") {
                codes.extend(texts(&source, "Self::new(").map(str::to_owned));
            }
        }
    }
    let (_, table) = DOCS.split_once("| code | status |").unwrap();
    let rows = table.lines().take_while(|line| line.starts_with('|') || line.starts_with(" what"));
    let listed: BTreeSet<String> = rows.filter_map(|row| row.strip_prefix("| `")?.split('`').next()).map(str::to_owned).collect();
    assert_eq!(listed, codes);
}
