//! What happens to a nats-server.

use std::time::Duration;

use anyhow::ensure;
use futures::FutureExt;
use futures::future::BoxFuture;

use super::{Scenario, anywhere};
use crate::faults::disk::Disk;
use crate::faults::evidence::Whom;
use crate::faults::order::Mix;
use crate::faults::setup::{Setup, Store};
use crate::faults::site::Site;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario {
            name: "broker-kill",
            about: "SIGKILL and restart of nats-server",
            small: true,
            setup: |_| Setup::default(),
            strike: kill,
            unavailable: anywhere,
        },
        Scenario {
            name: "broker-lame-duck",
            about: "nats-server leaves in lame-duck mode, and comes back",
            small: false,
            setup: |_| Setup { store: Store::Server("lame_duck_grace_period: \"1s\"".to_owned()), ..Setup::default() },
            strike: lame_duck,
            unavailable: anywhere,
        },
        Scenario {
            name: "broker-disk-full",
            about: "the disk under nats-server fills up; it is restarted once there is room",
            small: true,
            setup: |_| Setup { disk: Some(96 << 20), ..Setup::default() },
            strike: disk_full,
            unavailable: Disk::unavailable,
        },
        Scenario {
            name: "lane-full",
            about: "a lane of a few messages, and executors too slow for it",
            small: true,
            setup: |_| {
                let mix = Mix { quick: 10, slow: 90, hopeless: 0, longest_ms: 400, ..Mix::default() };
                let settings = vec![("factory.lane_messages", "8".to_owned()), ("executor.concurrency", "4".to_owned())];
                Setup { settings, mix, rate: 30.0, ..Setup::default() }
            },
            strike: |site| site.pause(3_000..=5_000).map(Ok).boxed(),
            unavailable: anywhere,
        },
        Scenario {
            name: "schedule-while-down",
            about: "jobs fall due while nats-server is down",
            small: true,
            setup: |_| {
                let mix = Mix { later: 60, latest_ms: 4_000, ..Mix::default() };
                Setup { mix, ..Setup::default() }
            },
            strike: schedule,
            unavailable: anywhere,
        },
    ]
}

fn kill(site: &mut Site) -> BoxFuture<'_, anyhow::Result<()>> {
    async {
        for _ in 0..site.rng.u32(1..=3) {
            down(site, 0..=1_500).await?;
            site.pause(300..=2_500).await;
        }
        Ok(())
    }
    .boxed()
}

/// Kills the server, and starts it again after so many milliseconds.
async fn down(site: &mut Site, ms: std::ops::RangeInclusive<u64>) -> anyhow::Result<()> {
    let ongoing = site.disturb("the server is killed", Whom::Broker);
    let server = site.server()?;
    tokio::task::block_in_place(|| server.kill());
    site.pause(ms).await;
    let server = site.server()?;
    tokio::task::block_in_place(|| server.restart());
    site.over(ongoing);
    Ok(())
}

fn lame_duck(site: &mut Site) -> BoxFuture<'_, anyhow::Result<()>> {
    async {
        let ongoing = site.disturb("the server leaves", Whom::Broker);
        site.server()?.signal("USR2");
        // It goes by itself, however long it takes.
        for _ in 0..600 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            if tokio::net::TcpStream::connect(site.server()?.address()).await.is_err() {
                break;
            }
        }
        site.pause(0..=1_000).await;
        let server = site.server()?;
        tokio::task::block_in_place(|| server.restart());
        site.over(ongoing);
        site.pause(500..=2_000).await;
        Ok(())
    }
    .boxed()
}

fn disk_full(site: &mut Site) -> BoxFuture<'_, anyhow::Result<()>> {
    async {
        let ongoing = site.disturb("the server's disk is full", Whom::Broker);
        site.disk()?.fill()?;
        site.pause(1_000..=4_000).await;
        site.disk()?.free()?;
        site.pause(0..=500).await;
        // As docs/operations.md has it: a stream that could not write stays as it is until then.
        let server = site.server()?;
        tokio::task::block_in_place(|| {
            server.kill();
            server.restart();
        });
        site.over(ongoing);
        site.pause(500..=2_000).await;
        Ok(())
    }
    .boxed()
}

fn schedule(site: &mut Site) -> BoxFuture<'_, anyhow::Result<()>> {
    async {
        ensure!(site.setup.mix.later > 0, "nothing would be due");
        // Long enough for jobs to be waiting for their time.
        site.pause(1_000..=2_000).await;
        down(site, 2_500..=4_000).await?;
        Ok(())
    }
    .boxed()
}
