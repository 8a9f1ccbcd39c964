//! What happens to ingest and to executors.

use futures::FutureExt;
use futures::future::BoxFuture;

use super::{Scenario, anywhere};
use crate::faults::disk::Disk;
use crate::faults::evidence::Whom;
use crate::faults::order::Mix;
use crate::faults::process::Node;
use crate::faults::setup::{LEASE, Setup, Store};
use crate::faults::site::Site;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario {
            name: "executor-kill",
            about: "SIGKILL and restart of executors",
            small: true,
            setup: |_| Setup::default(),
            strike: kill_executors,
            unavailable: anywhere,
        },
        Scenario {
            name: "ingest-kill",
            about: "SIGKILL and restart of ingest",
            small: true,
            setup: |_| Setup::default(),
            strike: kill_ingest,
            unavailable: anywhere,
        },
        Scenario {
            name: "zombie",
            about: "SIGSTOP of an executor past its lease, then SIGCONT",
            small: true,
            setup: |_| Setup { mix: Mix { slow: 12, longest_ms: 1_500, ..Mix::default() }, ..Setup::default() },
            strike: zombie,
            unavailable: anywhere,
        },
        Scenario {
            name: "rolling-upgrade",
            about: "SIGTERM and replacement of every node, one after the other",
            small: true,
            setup: |_| Setup { mix: Mix { slow: 12, longest_ms: 1_000, ..Mix::default() }, ..Setup::default() },
            strike: upgrade,
            unavailable: anywhere,
        },
        Scenario {
            name: "embedded-kill",
            about: "SIGKILL and restart of one process with the embedded broker",
            small: true,
            setup: |_| embedded(None),
            strike: kill_ingest,
            unavailable: anywhere,
        },
        Scenario {
            name: "embedded-disk-full",
            about: "the disk under the embedded broker fills up, and has room again; some are killed meanwhile",
            small: true,
            // Twice what the broker keeps free of it.
            setup: |_| embedded(Some(256 << 20)),
            strike: embedded_disk_full,
            unavailable: Disk::unavailable,
        },
    ]
}

fn embedded(disk: Option<u64>) -> Setup {
    // Its dead letters can be read only when it has ended.
    Setup { store: Store::Embedded, disk, mix: Mix { hopeless: 0, ..Mix::default() }, rate: 60.0, ..Setup::default() }
}

fn kill_executors(site: &mut Site) -> BoxFuture<'_, anyhow::Result<()>> {
    async {
        for _ in 0..site.rng.u32(1..=3) {
            let at = site.any_executor();
            let ongoing = site.disturb("killed", Whom::Node(site.executors[at].name().to_owned()));
            site.executors[at].kill().await?;
            site.pause(0..=1_500).await;
            site.executors[at].again().await?;
            site.over(ongoing);
            site.pause(200..=2_000).await;
        }
        Ok(())
    }
    .boxed()
}

fn kill_ingest(site: &mut Site) -> BoxFuture<'_, anyhow::Result<()>> {
    async {
        for _ in 0..site.rng.u32(1..=3) {
            // With the embedded broker it is everything.
            let whom = if site.setup.store == Store::Embedded { Whom::Broker } else { Whom::Producers };
            let ongoing = site.disturb("ingest is killed", whom);
            site.ingest.kill().await?;
            site.pause(0..=1_500).await;
            site.ingest.again().await?;
            site.over(ongoing);
            site.pause(200..=2_000).await;
        }
        Ok(())
    }
    .boxed()
}

fn zombie(site: &mut Site) -> BoxFuture<'_, anyhow::Result<()>> {
    async {
        let at = site.any_executor();
        let ongoing = site.disturb("stopped past its lease", Whom::Node(site.executors[at].name().to_owned()));
        site.executors[at].signal("STOP").await?;
        let lease = LEASE.as_millis() as u64;
        site.pause(lease + 500..=2 * lease + 2_000).await;
        site.executors[at].signal("CONT").await?;
        site.over(ongoing);
        site.pause(1_000..=3_000).await;
        Ok(())
    }
    .boxed()
}

fn upgrade(site: &mut Site) -> BoxFuture<'_, anyhow::Result<()>> {
    async {
        for at in 0..site.executors.len() {
            let ongoing = site.disturb("replaced", Whom::Node(site.executors[at].name().to_owned()));
            replace(&mut site.executors[at]).await?;
            site.over(ongoing);
            site.pause(200..=1_000).await;
        }
        let ongoing = site.disturb("ingest is replaced", Whom::Producers);
        replace(&mut site.ingest).await?;
        site.over(ongoing);
        site.pause(200..=1_000).await;
        Ok(())
    }
    .boxed()
}

/// As a service manager does it.
async fn replace(node: &mut Node) -> anyhow::Result<()> {
    node.signal("TERM").await?;
    anyhow::ensure!(node.drain().await?, "{} did not drain", node.name());
    node.again().await
}

fn embedded_disk_full(site: &mut Site) -> BoxFuture<'_, anyhow::Result<()>> {
    async {
        let ongoing = site.disturb("the disk is full", Whom::Broker);
        site.disk()?.fill()?;
        site.pause(1_000..=4_000).await;
        let killed = site.rng.bool();
        if killed {
            site.ingest.kill().await?;
        }
        site.disk()?.free()?;
        if killed {
            site.ingest.again().await?;
        }
        // Nobody else has to do anything.
        site.over(ongoing);
        site.pause(500..=2_000).await;
        Ok(())
    }
    .boxed()
}
