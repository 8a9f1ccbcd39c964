//! An executor with a handler of its own: `cargo run --example worker -- nats://127.0.0.1:4222`.
#![allow(clippy::print_stdout)]

use serde::{Deserialize, Serialize};
use work_factory::{Factory, JobContext, JobFailure, Registry};

#[derive(Deserialize)]
struct Greet {
    name: String,
}

#[derive(Serialize)]
struct Greeting {
    text: String,
}

async fn greet(job: JobContext, args: Greet) -> Result<Greeting, JobFailure> {
    Ok(Greeting { text: format!("Hello, {}! This is attempt {}.", args.name, job.attempt()) })
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "embedded:.wf/broker".to_owned());
    let factory = Factory::connect(&url).await?;
    let executor = factory.executor(Registry::new().register("greet", greet))?;
    println!("running jobs; Ctrl-C drains");
    work_factory::shutdown::token()?.cancelled().await;
    println!("{}", executor.drain(None).await);
    Ok(factory.close().await?)
}
