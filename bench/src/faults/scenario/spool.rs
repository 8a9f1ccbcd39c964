//! What happens to an ingest with a spool.

use futures::FutureExt;
use futures::future::BoxFuture;
use wf_nats::testing::Way;

use super::Scenario;
use super::links::sever;
use crate::faults::disk::Disk;
use crate::faults::evidence::Whom;
use crate::faults::order::Mix;
use crate::faults::setup::Setup;
use crate::faults::site::Site;

pub(super) fn scenarios() -> Vec<Scenario> {
    let spooling = |name, about, small, disk: fn(bool) -> Setup, strike| {
        let unavailable: fn() -> Option<String> = if name == "spool-disk-full" { no_disk } else { no_spool };
        Scenario { name, about, small, setup: disk, strike, unavailable }
    };
    vec![
        spooling("spool", "the broker is away while jobs come in, and comes back", true, |_| setup(None), away),
        spooling(
            "spool-ingest-kill",
            "the same, and ingest is killed in between, and started again before the broker is back or after",
            true,
            |_| setup(None),
            ingest_killed,
        ),
        spooling(
            "spool-disk-full",
            "the disk under the spool fills up while the broker is away",
            true,
            |_| setup(Some(192 << 20)),
            full,
        ),
    ]
}

fn setup(disk: Option<u64>) -> Setup {
    // Others than HTTP have no spool, and would only be refused.
    let mix = Mix { later: 0, ..Mix::default() };
    Setup { disk, spool: true, mix, http_only: true, rate: 60.0, ..Setup::default() }
}

/// Whether this build knows of it.
fn no_spool() -> Option<String> {
    let spool = crate::yard::config("memory://", "local", &[("ingest.spool", "spool")]);
    spool.is_err().then(|| "this build has no setting ingest.spool".to_owned())
}

fn no_disk() -> Option<String> {
    no_spool().or_else(Disk::unavailable)
}

/// Cuts ingest off, so that it has to spool.
fn cut_off(site: &mut Site) -> anyhow::Result<()> {
    let silent = site.rng.bool();
    sever(site.near()?, silent);
    Ok(())
}

fn let_through(site: &Site) -> anyhow::Result<()> {
    let link = site.near()?;
    link.refuse(false);
    // What was held back is lost with its connections: the outage was longer than they last.
    link.cut();
    link.resume(Way::Up);
    link.resume(Way::Down);
    Ok(())
}

fn away(site: &mut Site) -> BoxFuture<'_, anyhow::Result<()>> {
    async {
        for _ in 0..site.rng.u32(1..=2) {
            let ongoing = site.disturb("the broker is away", Whom::Producers);
            cut_off(site)?;
            site.pause(3_000..=9_000).await;
            let_through(site)?;
            site.over(ongoing);
            site.pause(500..=3_000).await;
        }
        Ok(())
    }
    .boxed()
}

fn ingest_killed(site: &mut Site) -> BoxFuture<'_, anyhow::Result<()>> {
    async {
        let ongoing = site.disturb("the broker is away, and ingest is killed", Whom::Producers);
        cut_off(site)?;
        site.pause(4_000..=8_000).await;
        site.ingest.kill().await?;
        // It comes back when the broker does, or before.
        if site.rng.bool() {
            site.ingest.again().await?;
            site.pause(500..=3_000).await;
            let_through(site)?;
        } else {
            let_through(site)?;
            site.ingest.again().await?;
        }
        site.over(ongoing);
        // Once more, while it ships.
        site.pause(0..=500).await;
        let ongoing = site.disturb("ingest is killed while it ships", Whom::Producers);
        site.ingest.kill().await?;
        site.ingest.again().await?;
        site.over(ongoing);
        site.pause(500..=2_000).await;
        Ok(())
    }
    .boxed()
}

fn full(site: &mut Site) -> BoxFuture<'_, anyhow::Result<()>> {
    async {
        let ongoing = site.disturb("the broker is away, and the disk fills up", Whom::Producers);
        cut_off(site)?;
        site.pause(3_000..=5_000).await;
        site.disk()?.fill()?;
        site.pause(1_000..=3_000).await;
        site.disk()?.free()?;
        site.pause(500..=1_500).await;
        let_through(site)?;
        site.over(ongoing);
        site.pause(500..=2_000).await;
        Ok(())
    }
    .boxed()
}
