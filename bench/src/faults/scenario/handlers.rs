//! What handlers do.

use futures::FutureExt;
use futures::future::BoxFuture;

use super::{Scenario, anywhere};
use crate::faults::evidence::Whom;
use crate::faults::order::Mix;
use crate::faults::setup::Setup;
use crate::faults::site::Site;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario {
            name: "slow-handlers",
            about: "jobs that run longer than the lease",
            small: true,
            setup: |small| {
                let longest_ms = if small { 5_000 } else { 10_000 };
                Setup { mix: Mix { quick: 30, slow: 10, longest_ms, ..Mix::default() }, rate: 8.0, ..Setup::default() }
            },
            strike: linger,
            unavailable: anywhere,
        },
        Scenario {
            name: "blocking-handlers",
            about: "handlers that block their thread for longer than the lease",
            small: true,
            setup: |_| {
                let mix = Mix { quick: 60, slow: 20, blocking: 2, longest_ms: 5_000, ..Mix::default() };
                Setup { mix, rate: 3.0, ..Setup::default() }
            },
            strike: linger,
            unavailable: anywhere,
        },
        Scenario {
            name: "panicking-handlers",
            about: "handlers that panic, and some that never succeed",
            small: true,
            setup: |_| Setup { mix: Mix { panicking: 40, failing: 20, hopeless: 20, ..Mix::default() }, ..Setup::default() },
            strike: linger,
            unavailable: anywhere,
        },
        Scenario {
            name: "poison",
            about: "jobs that take their executor with them; it is started again each time",
            small: false,
            setup: |_| Setup { mix: Mix { poison: 1, quick: 200, ..Mix::default() }, rate: 3.0, ..Setup::default() },
            strike: poison,
            unavailable: anywhere,
        },
    ]
}

fn linger(site: &mut Site) -> BoxFuture<'_, anyhow::Result<()>> {
    site.pause(3_000..=5_000).map(Ok).boxed()
}

/// Starts executors again for as long as they die.
fn poison(site: &mut Site) -> BoxFuture<'_, anyhow::Result<()>> {
    async {
        let ongoing = site.disturb("executors are poisoned", Whom::Executors);
        site.pause(2_000..=4_000).await;
        site.end_load().await?;
        let mut calm = 0;
        // A lease and a margin without a death: there is no poison left.
        while calm < 80 {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            calm += 1;
            for at in 0..site.executors.len() {
                if site.executors[at].ended().is_some() {
                    site.executors[at].again().await?;
                    calm = 0;
                }
            }
        }
        site.over(ongoing);
        Ok(())
    }
    .boxed()
}
