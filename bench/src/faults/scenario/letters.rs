//! What happens to the store of dead letters.

use std::time::{Duration, Instant};

use anyhow::ensure;
use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::json;

use super::{Scenario, anywhere};
use crate::faults::evidence::Whom;
use crate::faults::order::Mix;
use crate::faults::setup::{Setup, Store};
use crate::faults::site::Site;

/// How many jobs without a handler there are, and the size of each: three times what the store holds.
const JOBS: usize = 120;
const SIZE: usize = 27_000;
/// How long it may take until it is said that letters are dropped: two looks at the stream.
const SAID_WITHIN: Duration = Duration::from_secs(30);
/// What is said.
const SAID: &str = "the oldest letters are dropped to make room";

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario {
            name: "dead-letters-full",
            about: "three times the dead letters that the store holds, and a restart of executors",
            small: true,
            setup: |_| full(Store::Server(String::new())),
            strike: fill,
            unavailable: anywhere,
        },
        Scenario {
            name: "embedded-letters-full",
            about: "the same with the embedded broker, and a restart of its process",
            small: true,
            setup: |_| full(Store::Embedded),
            strike: fill,
            unavailable: anywhere,
        },
    ]
}

fn full(store: Store) -> Setup {
    // Letters of jobs that are looked for later would be dropped too.
    let mix = Mix { hopeless: 0, ..Mix::default() };
    Setup { store, settings: vec![("factory.dead_bytes", "1 MiB".to_owned())], mix, ..Setup::default() }
}

fn fill(site: &mut Site) -> BoxFuture<'_, anyhow::Result<()>> {
    async {
        let jobs = format!("http://{}/v1/jobs", site.ingest.address()?);
        let client = reqwest::Client::builder().timeout(Duration::from_secs(30)).no_proxy().build()?;
        for _ in 0..JOBS {
            // What compresses well would not fill anything.
            let args: String = std::iter::repeat_with(|| site.rng.alphanumeric()).take(SIZE).collect();
            let job = json!({ "kind": "nobody-runs-this", "args": args }).to_string();
            let answer = client.post(&jobs).header("content-type", "application/json").body(job).send().await?;
            ensure!(answer.status().is_success(), "a job was refused: {}", answer.text().await?);
        }
        site.pause(1_000..=2_000).await;
        if site.setup.store == Store::Embedded {
            let ongoing = site.disturb("its process is killed", Whom::Broker);
            site.ingest.kill().await?;
            site.ingest.again().await?;
            site.over(ongoing);
        } else {
            let ongoing = site.disturb("killed", Whom::Executors);
            for executor in &mut site.executors {
                executor.kill().await?;
                executor.again().await?;
            }
            site.over(ongoing);
        }
        // Some more, by those that have just met a full store.
        for _ in 0..4 {
            let args: String = std::iter::repeat_with(|| site.rng.alphanumeric()).take(SIZE).collect();
            let job = json!({ "kind": "nobody-runs-this", "args": args }).to_string();
            client.post(&jobs).header("content-type", "application/json").body(job).send().await?;
        }
        let began = Instant::now();
        while !site.said(SAID)? {
            if began.elapsed() > SAID_WITHIN {
                site.broken.push("letters were dropped, and nobody has said so".to_owned());
                break;
            }
            site.pause(200..=300).await;
        }
        Ok(())
    }
    .boxed()
}
