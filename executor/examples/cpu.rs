//! How fast jobs go through an executor: batches that wait in a broker in memory, typed handlers, settling and all.
//!
//! `cargo bench -p wf-executor`. One element is one job; `one core` runs the handlers on one thread.

use std::error::Error;
use std::time::{Duration, Instant};


use tokio::runtime::{Builder, Runtime};
use wf_broker::{Embedded, EmbeddedOptions, Message, Publish};
use wf_executor::{Executor, ExecutorOptions, JobContext, JobFailure, Registry, stock};
use wf_schema::{BatchBuilder, BatchId, Format, Header, Job, Lane};

const BATCHES: u64 = 256;
const JOBS: u64 = 1_000;

type Failed = Box<dyn Error>;

fn registry() -> Registry {
    stock::register(Registry::new()).register("typed_noop", |_: JobContext, _: ()| async { Ok::<_, JobFailure>(()) }).register(
        "yield",
        |_: JobContext, _: ()| async {
            tokio::task::yield_now().await;
            Ok::<_, JobFailure>(())
        },
    )
}

fn batch(job: &Job<'_>) -> Result<bytes::Bytes, Failed> {
    let mut open = BatchBuilder::new(Header::new(BatchId::new(), Format::Json));
    for _ in 0..JOBS {
        open.push(job)?;
    }
    Ok(open.encode())
}

/// From the start of an executor until all that waited is acknowledged.
async fn run(job: &Job<'_>) -> Result<Duration, Failed> {
    let broker = Embedded::memory(EmbeddedOptions::default())?;
    for n in 0..BATCHES {
        broker.publish(Message { lane: Lane::default(), id: n.to_string().into(), bytes: batch(job)? }).await?;
    }
    let began = Instant::now();
    let executor = Executor::start(broker, registry(), ExecutorOptions::new("bench")?)?;
    while executor.stats().acked < BATCHES {
        tokio::time::sleep(Duration::from_micros(500)).await;
    }
    let took = began.elapsed();
    let stats = executor.stats();
    if stats.completed != BATCHES * JOBS {
        return Err(format!("not all jobs completed: {stats:?}").into());
    }
    Ok(took)
}

fn measure(runtime: &Runtime, job: &Job<'_>, times: u64) -> Duration {
    (0..times).map(|_| runtime.block_on(run(job)).unwrap_or_else(|error| fail(&*error))).sum()
}

fn fail(error: &dyn Error) -> ! {
    #[allow(clippy::print_stderr, reason = "a bench has nobody else to tell")]
    {
        eprintln!("{error}");
    }
    std::process::exit(1)
}


fn cpu() -> f64 { let s=std::fs::read_to_string("/proc/self/stat").unwrap(); let f:Vec<&str>=s.rsplit(')').next().unwrap().split_whitespace().collect(); (f[11].parse::<f64>().unwrap()+f[12].parse::<f64>().unwrap())/100.0 }
fn main(){
 let rt=Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
 for (name,job) in [("noop",Job::new("typed_noop",&()).unwrap()),("add",Job::new("math_add", &serde_json::json!({"a": 2, "b": 3})).unwrap()),("stored",Job::new("math_add", &serde_json::json!({"a": 2, "b": 3})).unwrap().store_result()),("waits",Job::new("yield",&()).unwrap())] {
  let mut pubs=0.0; let mut all=0.0; let mut best=f64::MAX;
  for _ in 0..10 { let c=cpu(); let d=measure(&rt,&job,1); all+=cpu()-c; best=best.min(d.as_secs_f64()); let c=cpu(); for _ in 0..BATCHES { std::hint::black_box(batch(&job).unwrap()); } pubs+=cpu()-c; }
  println!("{name}: {:.0} ns cpu/job (encode {:.0}), best wall {:.0} ns/job",(all-pubs)/10.0/256000.0*1e9,pubs/10.0/256000.0*1e9,best/256000.0*1e9);
 }
}

