//! The broker inside the process, and the disk under it.

use std::path::Path;
use std::time::Duration;

use wf_broker::OpenError;
use wf_schema::config::Config;

use super::super::disk::DiskFacts;
use super::super::finding::said;
use super::super::{Check, Finding, units};

/// With less than this free, what is stored now may be the last, in bytes.
const NEARLY_NONE: u64 = 512 << 20;

/// A sync that takes longer makes single jobs wait noticeably.
const SLOW: Duration = Duration::from_millis(50);

/// A sync that takes less never left the memory.
const NO_DISK: Duration = Duration::from_micros(5);

/// A broker that cannot be opened.
pub(in crate::doctor) fn refused(error: &OpenError) -> Finding {
    match error {
        OpenError::InUse { .. } => Finding::note(Check::Store, said(error))
            .advice("one process has it at a time; what only the broker can tell is left out"),
        OpenError::Format { .. } => {
            Finding::problem(Check::Store, said(error)).advice("use the version of wf that has written it")
        }
        OpenError::NotAFolder { .. } | OpenError::Foreign { .. } => {
            Finding::problem(Check::Store, said(error)).advice("name another folder in broker.url")
        }
        error => Finding::problem(Check::Store, said(error))
            .advice("see that this user may read and write it, and that the disk is well"),
    }
}

/// A folder in which there is no broker yet.
pub(in crate::doctor) fn nothing_yet(path: &Path) -> Finding {
    Finding::note(Check::Store, format!("there is no broker in {} yet: it is made when it is first used", path.display()))
}

/// A broker that was opened in `took`, with so many batches waiting in this node's lanes.
pub(in crate::doctor) fn opened(path: &Path, took: Duration, waiting: u64) -> Finding {
    let found = format!("{} opened in {}; {waiting} batches wait in this node's queues", path.display(), units::time(took));
    Finding::ok(Check::Store, found)
}

/// A broker that keeps nothing.
pub(in crate::doctor) fn memory() -> Finding {
    Finding::warning(Check::Store, "memory:// keeps nothing: what waits is gone when the process ends")
        .advice("it is for tests; embedded:PATH keeps jobs on disk")
}

/// The space and the file system.
pub(in crate::doctor) fn space(disk: &DiskFacts, config: &Config) -> Vec<Finding> {
    let factory = config.factory();
    let most = [factory.jobs_bytes, factory.results_bytes, factory.dead_bytes]
        .iter()
        .fold(0_u64, |sum, s| sum.saturating_add(s.bytes()));
    let found = format!(
        "{} free; the broker takes {} now and {} at most (factory.jobs_bytes, results_bytes, dead_bytes)",
        units::bytes(disk.free),
        units::bytes(disk.taken),
        units::bytes(most)
    );
    let mut findings = vec![if disk.free < NEARLY_NONE {
        Finding::problem(Check::Disk, found).advice("make room: without it, jobs are refused")
    } else if disk.free.saturating_add(disk.taken) < most {
        Finding::warning(Check::Disk, found)
            .advice("make room, or lower the limits: the disk is full before the factory says that it is")
    } else {
        Finding::ok(Check::Disk, found)
    }];
    findings.extend(disk.file_system.as_deref().and_then(file_system));
    findings
}

/// What there is to say about a file system.
fn file_system(name: &str) -> Option<Finding> {
    let advice = "name a folder on a disk of this machine";
    Some(match name {
        "tmpfs" | "ramfs" => {
            Finding::warning(Check::Disk, format!("the file system is {name}: memory, gone when the machine restarts"))
                .advice(advice)
        }
        "overlay" | "aufs" => {
            Finding::warning(Check::Disk, format!("the file system is {name}: a container's own, gone with the container"))
                .advice("mount a volume there")
        }
        "nfs" | "nfs4" | "cifs" | "smb3" | "9p" | "virtiofs" => {
            Finding::warning(Check::Disk, format!("the file system is {name}: its locks and syncs are another machine's word"))
                .advice(advice)
        }
        _ => return None,
    })
}

/// What syncing a batch to the disk costs: the times of some.
pub(in crate::doctor) fn sync(times: &Result<Vec<Duration>, std::io::Error>) -> Finding {
    let mut times = match times {
        Ok(times) if !times.is_empty() => times.clone(),
        Ok(_) => return Finding::note(Check::Durability, "syncing to disk was not measured"),
        Err(error) => return Finding::warning(Check::Durability, format!("syncing to disk could not be measured: {error}")),
    };
    times.sort_unstable();
    let (median, most) = (times[times.len() / 2], times[times.len() - 1]);
    let found =
        format!("every batch is synced before it is accepted: {} median, {} at most", units::time(median), units::time(most));
    if median > SLOW {
        return Finding::warning(Check::Durability, found)
            .advice("a disk this slow holds up single jobs; larger batches cost no more");
    }
    if median < NO_DISK {
        let found = format!("{found}: no disk is that quick, so a power failure may take accepted jobs");
        return Finding::warning(Check::Durability, found).advice("name a folder on a disk that keeps what it was told to sync");
    }
    Finding::ok(Check::Durability, found)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::super::Verdict;
    use super::*;
    use wf_schema::config::Loader;

    #[test]
    fn space_is_held_against_the_limits() {
        let config = Loader::new().load().unwrap().config;
        let (gib, name) = (1_u64 << 30, |name: &str| Some(name.to_owned()));
        let table: &[(u64, u64, Option<String>, &[Verdict])] = &[
            (100 * gib, 0, name("ext4"), &[Verdict::Ok]),
            (100 * gib, 0, None, &[Verdict::Ok]),
            (9 * gib, 0, name("xfs"), &[Verdict::Warning]),
            (9 * gib, 3 * gib, name("xfs"), &[Verdict::Ok]),
            (1 << 20, 3 * gib, name("xfs"), &[Verdict::Problem]),
            (100 * gib, 0, name("tmpfs"), &[Verdict::Ok, Verdict::Warning]),
            (100 * gib, 0, name("overlay"), &[Verdict::Ok, Verdict::Warning]),
            (100 * gib, 0, name("nfs4"), &[Verdict::Ok, Verdict::Warning]),
        ];
        for (free, taken, file_system, verdicts) in table {
            let disk = DiskFacts { free: *free, taken: *taken, file_system: file_system.clone() };
            let found: Vec<_> = space(&disk, &config).iter().map(|finding| finding.verdict).collect();
            assert_eq!(found, *verdicts, "{disk:?}");
        }
    }

    #[test]
    fn a_sync_is_too_slow_or_too_quick() {
        for (micros, verdict) in [(1, Verdict::Warning), (40, Verdict::Ok), (4_000, Verdict::Ok), (80_000, Verdict::Warning)] {
            assert_eq!(sync(&Ok(vec![Duration::from_micros(micros); 3])).verdict, verdict, "{micros}");
        }
        assert_eq!(sync(&Ok(Vec::new())).verdict, Verdict::Note);
        assert_eq!(sync(&Err(std::io::Error::other("read-only"))).verdict, Verdict::Warning);
    }

    #[test]
    fn a_broker_in_use_is_no_fault() {
        let path = std::path::PathBuf::from("b");
        let finding = refused(&OpenError::InUse { path: path.clone(), pid: Some(7) });
        assert!(finding.verdict == Verdict::Note && finding.found.contains("pid 7"), "{finding:?}");
        assert_eq!(refused(&OpenError::Foreign { path }).verdict, Verdict::Problem);
    }
}
