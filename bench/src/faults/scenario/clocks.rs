//! What happens to clocks.

use futures::FutureExt;
use futures::future::BoxFuture;

use super::Scenario;
use crate::faults::evidence::Whom;
use crate::faults::faketime;
use crate::faults::order::Mix;
use crate::faults::setup::Setup;
use crate::faults::site::Site;

const HOUR: i64 = 3_600;

pub(super) fn scenarios() -> Vec<Scenario> {
    let stepping =
        |name, about, small, setup| Scenario { name, about, small, setup, strike: steps, unavailable: faketime::unavailable };
    vec![
        stepping(
            "clock-steps",
            "the wall clocks of ingest, of a producer and of executors step by an hour, either way",
            true,
            |_| {
                let mix = Mix { failing: 0, hopeless: 0, panicking: 0, later: 0, ..Mix::default() };
                Setup { moving_clocks: true, mix, ..Setup::default() }
            },
        ),
        stepping("clock-steps-retries", "the same, with jobs that fail and jobs for later", false, |_| Setup {
            moving_clocks: true,
            ..Setup::default()
        }),
    ]
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
