//! Enqueues typed jobs and waits for one of them: `cargo run --example producer -- nats://127.0.0.1:4222`.
#![allow(clippy::print_stdout)]

use std::time::Duration;

use serde::Serialize;
use work_factory::{Factory, Job, Priority};

#[derive(Serialize)]
struct Greet {
    name: String,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "embedded:.wf/broker".to_owned());
    let factory = Factory::connect(&url).await?;
    let producer = factory.producer();
    let crowd = (0..1_000).map(|n| Job::new("greet", &Greet { name: format!("guest {n}") })).collect::<Result<Vec<_>, _>>()?;
    producer.enqueue_all(crowd).await?;
    let ada = Job::new("greet", &Greet { name: "Ada".to_owned() })?.priority(Priority::High).store_result();
    let id = producer.enqueue(ada).await?;
    let outcome = factory.outcome(id, Duration::from_secs(30)).await?;
    println!("{id}: {}", outcome.map_or("not finished yet".to_owned(), |o| o.to_string()));
    Ok(factory.close().await?)
}
