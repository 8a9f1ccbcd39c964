//! What is published where nobody asks for it.

use std::time::{Duration, Instant};

use anyhow::Context;
use futures::FutureExt;
use futures::future::BoxFuture;
use wf_schema::{DeadLetter, Limits, Remains};
use work_factory::Factory;

use super::{Scenario, anywhere};
use crate::faults::setup::Setup;
use crate::faults::site::Site;

/// How long it may take until what nobody can serve is a dead letter: some looks of two leases.
const BURIED_WITHIN: Duration = Duration::from_secs(30);

/// A lane that no executor serves.
const ALONE: &str = "wf.jobs.nobody";

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![Scenario {
        name: "unserved-names",
        about: "messages at names that are no queue's, and in a lane that no executor serves",
        small: true,
        setup: |_| Setup::default(),
        strike,
        unavailable: anywhere,
    }]
}

fn strike(site: &mut Site) -> BoxFuture<'_, anyhow::Result<()>> {
    async {
        let context = async_nats::jetstream::new(async_nats::connect(site.url.clone()).await?);
        let long = format!("wf.jobs.{}", "q".repeat(200));
        let names = ["wf.jobs.mail:out", "wf.jobs.\u{c4}", "wf.jobs.mail:out.high", &long];
        for name in names {
            // Their key, so that nobody takes them for jobs of the round.
            context.publish(name.to_owned(), name.to_owned().into()).await?.await?;
        }
        context.publish(ALONE, "{}".into()).await?.await?;
        for refused in ["wf.jobs.a.b.c", "wf.jobs.mail.urgent"] {
            if context.publish(refused, "{}".into()).await?.await.is_ok() {
                site.broken.push(format!("{refused} is stored"));
            }
        }
        let config = crate::yard::config(&site.url, "local", &[])?;
        let factory = Box::pin(Factory::with(config)).await?;
        let broker = factory.broker();
        let unserved = broker.unserved().await?;
        if !unserved.iter().any(|unserved| unserved.name == "nobody.normal" && unserved.messages == 1) {
            site.broken.push(format!("a lane that nobody serves is not told: {unserved:?}"));
        }
        let began = Instant::now();
        loop {
            let letters = broker.dead(None, 0, 1_000).await?.letters;
            let buried = |name: &&str| letters.iter().any(|letter| is_of(&letter.bytes, name));
            let left: Vec<&str> = names.into_iter().filter(|name| !buried(name)).collect();
            if left.is_empty() {
                break;
            }
            if began.elapsed() > BURIED_WITHIN {
                site.broken.push(format!("nobody can serve {}, and they are no dead letters", left.join(", ")));
                break;
            }
            site.pause(200..=300).await;
        }
        factory.close().await?;
        // It would wait for ever, as it should, and the round with it; so would what was not buried.
        let stream = context.get_stream("WF_JOBS").await.context("no stream of jobs")?;
        for name in names.into_iter().chain([ALONE]) {
            stream.purge().filter(name).await?;
        }
        Ok(())
    }
    .boxed()
}

/// Whether the letter in `bytes` is of the message at `name`, and says why it is one.
fn is_of(bytes: &bytes::Bytes, name: &str) -> bool {
    let letter = DeadLetter::decode(bytes, &Limits::default());
    let Ok(Remains::Raw { failure, bytes }) = letter.map(|letter| letter.remains) else { return false };
    bytes == name.as_bytes() && failure.to_string().contains("names no lane")
}
