//! What happens to a hub whose executors are behind a leaf node.

use std::ops::RangeInclusive;

use futures::FutureExt;
use futures::future::BoxFuture;

use super::{Scenario, anywhere};
use crate::faults::evidence::Whom;
use crate::faults::order::Mix;
use crate::faults::process::Node;
use crate::faults::setup::{Setup, Store};
use crate::faults::site::Site;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario {
            name: "leaf-hub-kill",
            about: "SIGKILL and restart of the hub, with executors behind a leaf node that stays",
            small: true,
            setup: |_| setup(false),
            strike: |site| kill(site, 200..=1_500).boxed(),
            unavailable: anywhere,
        },
        Scenario {
            name: "leaf-hub-away",
            about: "the same, and it is away for so long that acknowledgements were once given up",
            small: false,
            setup: |_| setup(false),
            strike: |site| kill(site, 85_000..=95_000).boxed(),
            unavailable: anywhere,
        },
        Scenario {
            name: "leaf-domain",
            about: "a hub and a leaf node with a JetStream domain each: the hub is killed, and a node names no domain",
            small: true,
            setup: |_| setup(true),
            strike: domains,
            unavailable: anywhere,
        },
    ]
}

fn setup(own: bool) -> Setup {
    // Jobs that are under way when the hub goes, and when it is back; what is delivered again can only come to where it was.
    let mix = Mix { quick: 30, slow: 60, longest_ms: 2_500, ..Mix::default() };
    Setup { store: Store::Leaf { own }, executors: 1, mix, rate: 6.0, begins_once: true, ..Setup::default() }
}

/// Kills the hub, and starts it again after so many milliseconds.
async fn kill(site: &mut Site, away: RangeInclusive<u64>) -> anyhow::Result<()> {
    let ongoing = site.disturb("the hub is killed", Whom::Broker);
    let leaf = site.leaf()?;
    tokio::task::block_in_place(|| leaf.hub_mut().kill());
    site.pause(away).await;
    let leaf = site.leaf()?;
    tokio::task::block_in_place(|| leaf.hub_mut().restart());
    site.over(ongoing);
    site.pause(1_000..=2_500).await;
    Ok(())
}

fn domains(site: &mut Site) -> BoxFuture<'_, anyhow::Result<()>> {
    async {
        let at_the_leaf = site.leaf()?.leaf().url();
        // One that names no domain would make a factory of its own there.
        match Node::start(site.stranger("stranger", "ingest", at_the_leaf.clone())).await {
            Ok(mut stranger) => {
                site.broken.push("a node that names no domain works at the leaf node".to_owned());
                stranger.drain().await?;
            }
            Err(_) if site.said("set broker.domain")? => {}
            Err(error) => site.broken.push(format!("a node that names no domain is not told what to set: {error:#}")),
        }
        let context = async_nats::jetstream::new(async_nats::connect(at_the_leaf).await?);
        if context.get_stream("WF_JOBS").await.is_ok() {
            site.broken.push("there is a second factory at the leaf node".to_owned());
        }
        kill(site, 200..=1_500).await
    }
    .boxed()
}
