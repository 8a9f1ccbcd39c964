//! What happens to the links: between producers and the broker (near), and between executors and the broker (far).

use std::time::Duration;

use futures::FutureExt;
use wf_nats::testing::{Conditions, DelayProxy, Stalls, Way};

use super::{Scenario, anywhere};
use crate::faults::evidence::Whom;
use crate::faults::setup::Setup;
use crate::faults::site::Site;

pub(super) fn scenarios() -> Vec<Scenario> {
    let cut =
        |name, about, small, strike| Scenario { name, about, small, setup: |_| Setup::default(), strike, unavailable: anywhere };
    vec![
        cut("near-cut-1s", "ingest's link is cut for a second", true, |site| {
            async { cuts(site, Side::Near, 1_000, 3).await }.boxed()
        }),
        cut("far-cut-1s", "the executors' link is cut for a second", true, |site| {
            async { cuts(site, Side::Far, 1_000, 3).await }.boxed()
        }),
        cut("near-cut-10s", "ingest's link is cut for ten seconds", false, |site| {
            async { cuts(site, Side::Near, 10_000, 1).await }.boxed()
        }),
        cut("far-cut-10s", "the executors' link is cut for ten seconds", false, |site| {
            async { cuts(site, Side::Far, 10_000, 1).await }.boxed()
        }),
        cut("near-cut-60s", "ingest's link is cut for a minute", false, |site| {
            async { cuts(site, Side::Near, 60_000, 1).await }.boxed()
        }),
        cut("far-cut-60s", "the executors' link is cut for a minute", false, |site| {
            async { cuts(site, Side::Far, 60_000, 1).await }.boxed()
        }),
        cut("near-one-way", "ingest's link carries one direction only", true, |site| {
            async { one_way(site, Side::Near).await }.boxed()
        }),
        cut("far-one-way", "the executors' link carries one direction only", true, |site| {
            async { one_way(site, Side::Far).await }.boxed()
        }),
        cut("resets", "connections are reset in the middle of messages, on both links", true, |site| resets(site).boxed()),
        Scenario {
            name: "stalls",
            about: "nothing arrives for 30 ms in every 100, on both links",
            small: true,
            setup: |_| {
                let ms = Duration::from_millis;
                let stalls = Some(Stalls { every: ms(100), lasting: ms(30) });
                let conditions = Conditions { delay: ms(5), jitter: ms(20), loss: 0.01, stalls, ..Conditions::default() };
                Setup { conditions, ..Setup::default() }
            },
            strike: |site| site.pause(3_000..=6_000).map(Ok).boxed(),
            unavailable: anywhere,
        },
    ]
}

#[derive(Clone, Copy)]
enum Side {
    Near,
    Far,
}

impl Side {
    fn whom(self) -> Whom {
        match self {
            Self::Near => Whom::Producers,
            Self::Far => Whom::Executors,
        }
    }

    fn link(self, site: &Site) -> anyhow::Result<&DelayProxy> {
        match self {
            Self::Near => site.near(),
            Self::Far => site.far(),
        }
    }
}

/// Lets nothing through: in silence, or with a reset and nobody there.
pub(super) fn sever(link: &DelayProxy, silent: bool) {
    if silent {
        link.hold(Way::Up);
        link.hold(Way::Down);
    } else {
        link.refuse(true);
        link.cut();
    }
}

/// Cuts the link for `ms`, up to so many times: in silence, so that it comes back with what was on its way, or with a
/// reset and nobody there.
async fn cuts(site: &mut Site, side: Side, ms: u64, most: u32) -> anyhow::Result<()> {
    for _ in 0..site.rng.u32(1..=most) {
        let silent = site.rng.bool();
        let what = if silent { "the link is silent" } else { "the link is refused" };
        let ongoing = site.disturb(format!("{what} for {ms} ms"), side.whom());
        sever(side.link(site)?, silent);
        site.pause(ms..=ms).await;
        let link = side.link(site)?;
        link.refuse(false);
        link.resume(Way::Up);
        link.resume(Way::Down);
        site.over(ongoing);
        site.pause(300..=2_000).await;
    }
    Ok(())
}

async fn one_way(site: &mut Site, side: Side) -> anyhow::Result<()> {
    for _ in 0..site.rng.u32(1..=2) {
        let way = if site.rng.bool() { Way::Up } else { Way::Down };
        let ongoing = site.disturb(format!("nothing goes {way:?}"), side.whom());
        side.link(site)?.hold(way);
        site.pause(500..=5_000).await;
        side.link(site)?.resume(way);
        site.over(ongoing);
        site.pause(300..=2_000).await;
    }
    Ok(())
}

async fn resets(site: &mut Site) -> anyhow::Result<()> {
    let near = site.disturb("resets", Whom::Producers);
    let far = site.disturb("resets", Whom::Executors);
    for _ in 0..site.rng.u32(5..=15) {
        let side = if site.rng.bool() { Side::Near } else { Side::Far };
        side.link(site)?.cut();
        site.pause(50..=600).await;
    }
    site.over(near);
    site.over(far);
    Ok(())
}
