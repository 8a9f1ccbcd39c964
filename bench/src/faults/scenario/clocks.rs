//! What happens to clocks.

use futures::FutureExt;
use futures::future::BoxFuture;

use super::Scenario;
use crate::faults::evidence::Whom;
use crate::faults::faketime;
use crate::faults::setup::Setup;
use crate::faults::site::Site;

const HOUR: i64 = 3_600;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![Scenario {
        name: "clock-steps",
        about: "the wall clocks of ingest, of a producer and of executors step by an hour, either way",
        small: true,
        setup: |_| Setup { moving_clocks: true, ..Setup::default() },
        strike: steps,
        unavailable: faketime::unavailable,
    }]
}

fn steps(site: &mut Site) -> BoxFuture<'_, anyhow::Result<()>> {
    async {
        for _ in 0..site.rng.u32(1..=3) {
            let names = ["ingest", "library", "executor-1", "executor-2"];
            let name = names[site.rng.usize(..names.len())];
            let seconds = if site.rng.bool() { HOUR } else { -HOUR };
            let ongoing = site.disturb(format!("{name} is {seconds} s off"), Whom::Node(name.to_owned()));
            site.set_clock(name, seconds)?;
            site.over(ongoing);
            site.pause(1_000..=2_500).await;
        }
        // Some stay as they are for the rest of the round.
        if site.rng.bool() {
            for name in ["ingest", "library", "executor-1", "executor-2"] {
                site.set_clock(name, 0)?;
            }
        }
        Ok(())
    }
    .boxed()
}
